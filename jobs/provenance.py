"""What every commit says about how it was made: versions and digests, never a time or a host."""

from __future__ import annotations

import platform
from importlib import metadata

from conf.resolve import JobRequest
from jobs.preflight import Model, experts_held
from jobs.task import NUMERICS, Json

PACKAGES = ("torch", "transformers", "ray", "numpy", "scikit-learn", "pyarrow", "traitmill")


def versions() -> dict[str, str]:
    """Installed versions of what computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(request: JobRequest, model: Model) -> dict[str, Json]:
    """The part that all tasks of a run share."""
    spec = model.spec
    return {
        "model": request.model_name,
        "model_digest": model.digest,
        "dtype": spec.dtype,
        "expert_weights": experts_held(model),
        "device": spec.device,
        "tensor_parallel_size": spec.tensor_parallel_size,
        "numerics": dict(NUMERICS),
        "versions": dict(versions()),
    }
