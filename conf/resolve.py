"""A composed configuration becomes a frozen request, or one sentence that says why not.

Everything that can be refused without the model's files is refused here, before Ray starts:
values outside their range, settings that contradict each other, empty selections.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.describe import did_you_mean
from conf.errors import UserError
from conf.schema import JOBS, METHODS, ClusterConfig, JobConfig, ModelConfig, TraitConfig

PROJECT = Path(__file__).resolve().parent.parent
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
OPERATORS = ("add", "add_norm_matched", "ablate")
_TOKENS = re.compile(r"^(prompt|response|all)(\[(-?\d+|(-?\d+)?:(-?\d+)?)\])?$")
_POSITIONS = re.compile(r"^(all|prompt|response|from:-?\d+|at:\d+(,\d+)*)$")
NEEDS_TRAIT = ("extract", "steer", "project", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One point of a sweep, checked; what the plan is made from."""

    job: str
    config: JobConfig
    """All settings, after checks; not modified any more."""
    traits: tuple[TraitConfig, ...]
    layers: tuple[int, ...] | Literal["all"] | None
    """As asked; None lets the job choose."""
    coefficients: tuple[float, ...] | None
    """None: ratios of each layer's residual norm."""
    methods: tuple[str, ...]
    model_path: Path
    model_name: str
    """Slug of the result folders."""
    run_dir: Path
    overrides: tuple[str, ...] = ()
    """What was typed, for the record of the point."""


def resolve(composed: DictConfig, overrides: Sequence[str] = ()) -> JobRequest:
    """Check a composed configuration and freeze it.

    Raises:
        UserError: A value is missing, outside its range or at odds with another.
    """
    try:
        config = cast("JobConfig", OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{error.full_key}: {first}; give it a value.") from error
    _one_of("job", config.job, JOBS)
    _check_groups(config)
    _check_stages(config)
    traits = tuple(_checked_trait(t, config) for t in config.traits.values())
    layers = _layers(config.layer)
    methods = tuple(str(m) for m in _many(config.method, ("mean_difference", "probe")))
    for method in methods:
        _one_of("method", method, METHODS)
    coefficients = _coefficients(config)
    if config.job in NEEDS_TRAIT and not traits:
        raise UserError(f"trait=[]: jobs.{config.job} needs at least one; use trait=anxiety.")
    if config.job == "generate" and traits and (layers is None or coefficients is None):
        raise UserError(
            "layer=null or coefficient=null: steered generation needs both; "
            "add layer=3 coefficient=2, or leave trait out."
        )
    path = _model_path(config.model)
    return JobRequest(
        job=config.job,
        config=config,
        traits=traits,
        layers=layers,
        coefficients=coefficients,
        methods=methods,
        model_path=path,
        model_name=_model_name(config.model, path),
        run_dir=Path(config.run_dir).expanduser(),
        overrides=tuple(overrides),
    )


def extraction_request(request: JobRequest) -> JobRequest | None:
    """The same request to the model in which directions are found, when that is another one.

    Raises:
        UserError: That model has no weights here.
    """
    model = request.config.extract_model
    if model is None:
        return None
    path = _model_path(model, "extract_model")
    return replace(
        request,
        config=replace(request.config, model=model, extract_model=None),
        model_path=path,
        model_name=_model_name(model, path),
    )


def _check_groups(config: JobConfig) -> None:
    cluster, model = config.cluster, config.model
    for place, one in (("model", model), ("extract_model", config.extract_model or model)):
        _one_of(f"{place}.dtype", one.dtype, ("float32", "bfloat16"))
        _one_of(f"{place}.weights", one.weights, ("checkpoint", "random"))
    _one_of("cluster.device", cluster.device, ("cpu", "cuda"))
    _one_of("cluster.backend", cluster.backend, ("gloo", "nccl"))
    _one_of("judge.kind", config.judge.kind, ("lexicon", "endpoint", "local_model"))
    _one_of("judge.scale", config.judge.scale, ("hundred", "digit"))
    _one_of("storage.kind", config.storage.kind, ("local", "s3"))
    if cluster.backend == "nccl" and cluster.device == "cpu":
        raise UserError("cluster.backend=nccl needs GPUs; use cluster.backend=gloo on the CPU.")
    _check_groups_of_ranks(cluster)
    if config.judge.kind == "endpoint" and not config.judge.url:
        raise UserError(
            "judge.url=null: judge=endpoint needs its address; add judge.url=https://..."
        )
    if config.storage.kind == "s3" and not config.storage.bucket:
        raise UserError("storage.bucket=null: storage.kind=s3 needs it; add storage.bucket=NAME.")
    if not config.run_dir.strip():
        raise UserError("run_dir is empty; give a folder, such as run_dir=runs/first.")
    seen: set[str] = set()
    for item in config.prompts.prompts:
        if item.id in seen:
            raise UserError(
                f"prompts={config.prompts.name} has two prompts {item.id!r}; rename one."
            )
        seen.add(item.id)


def _check_groups_of_ranks(cluster: ClusterConfig) -> None:
    sizes = ("tensor_parallel_size", "groups", "max_batch_tokens", "max_batch_requests")
    for name in (*sizes, "page_size"):
        _at_least(f"cluster.{name}", getattr(cluster, name), 1)
    if cluster.max_groups is not None and cluster.max_groups < cluster.groups:
        raise UserError(
            f"cluster.max_groups={cluster.max_groups} is below cluster.groups={cluster.groups}; "
            "raise it, or leave it out."
        )
    if cluster.resident and (cluster.max_groups or cluster.groups) > 1:
        raise UserError(
            "cluster.resident=true is one group that is loaded already; leave cluster.groups and "
            "cluster.max_groups out, or set cluster.resident=false."
        )


def _check_stages(config: JobConfig) -> None:
    found, steer, schedule = config.extraction, config.steering, config.schedule
    _matches("extraction.tokens", found.tokens, _TOKENS, "response[:5]")
    _matches("capture.tokens", config.capture.tokens, _TOKENS, "all")
    _matches("steering.positions", steer.positions, _POSITIONS, "all")
    _one_of("extraction.site", found.site, SITES)
    _one_of("steering.operator", steer.operator, OPERATORS)
    for site in config.capture.sites:
        _one_of("capture.sites", site, SITES)
    for control in steer.controls:
        _one_of("steering.controls", control, ("negated", "random"))
    if not 0.0 < found.held_out < 1.0:
        raise UserError(
            f"extraction.held_out={found.held_out} is no share of the pairs; use 0 to 1."
        )
    for ratio in steer.coefficient_ratios:
        if not (math.isfinite(ratio) and ratio > 0):
            raise UserError(f"steering.coefficient_ratios has {ratio}; ratios are above 0.")
    if not steer.coefficient_ratios and config.coefficient is None:
        raise UserError("steering.coefficient_ratios=[] leaves no coefficient; give coefficient=X.")
    counts = {
        "extraction.samples": found.samples,
        "extraction.max_new_tokens": found.max_new_tokens,
        "extraction.min_passed": found.min_passed,
        "steering.samples": steer.samples,
        "steering.max_new_tokens": steer.max_new_tokens,
        "generate.samples": config.generate.samples,
        "schedule.bundle_requests": schedule.bundle_requests,
        "schedule.cpu_workers": schedule.cpu_workers,
        "schedule.max_unwritten": schedule.max_unwritten,
        "schedule.max_unwritten_bytes": schedule.max_unwritten_bytes,
        "schedule.group_attempts": schedule.group_attempts,
        "schedule.bundles_per_group": schedule.bundles_per_group,
    }
    for name, value in counts.items():
        _at_least(name, value, 1)
    for name, temperature in (
        ("extraction.temperature", found.temperature),
        ("steering.temperature", steer.temperature),
        ("capture.temperature", config.capture.temperature),
        ("generate.temperature", config.generate.temperature),
    ):
        if not (math.isfinite(temperature) and temperature >= 0):
            raise UserError(f"{name}={temperature} is not a temperature; use 0 (greedy) or above.")


def _checked_trait(trait: TraitConfig, config: JobConfig) -> TraitConfig:
    """The trait cut to the pairs and questions asked for."""
    if trait.sign not in (1, -1):
        raise UserError(
            f"traits.{trait.name}.sign={trait.sign}: use 1 (steering raises the trait) or -1 "
            "(steering lowers it)."
        )
    pairs, questions = config.extraction.num_pairs, config.steering.num_questions
    for name, asked, there in (
        ("extraction.num_pairs", pairs, len(trait.pairs)),
        ("steering.num_questions", questions, len(trait.questions)),
    ):
        if asked is not None and not 1 <= asked <= there:
            raise UserError(f"{name}={asked}: trait={trait.name} has {there}; use 1 to {there}.")
    if config.job != "generate" and len(trait.pairs[:pairs]) < 4:
        raise UserError(
            f"extraction.num_pairs={len(trait.pairs[:pairs])}: trait={trait.name} needs at least "
            "4 pairs, so that some can be held out."
        )
    return TraitConfig(
        name=trait.name,
        definition=" ".join(trait.definition.split()),
        rubric={key: " ".join(text.split()) for key, text in trait.rubric.items()},
        sign=trait.sign,
        pairs=trait.pairs[:pairs],
        questions=trait.questions[:questions],
    )


def _layers(asked: object) -> tuple[int, ...] | Literal["all"] | None:
    if asked is None or asked == "all":
        return asked
    layers: list[int] = []
    for item in _many(asked, ()):
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise UserError(
                f"layer={item} is not a layer; use a number from 0, a list such as [2,3], or all."
            )
        layers.append(item)
    if not layers:
        raise UserError("layer=[] selects nothing; use a number, a list such as [2,3], or all.")
    return tuple(sorted(set(layers)))


def _coefficients(config: JobConfig) -> tuple[float, ...] | None:
    if config.coefficient is None:
        return None
    found: list[float] = []
    for item in _many(config.coefficient, ()):
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
            raise UserError(
                f"coefficient={item} is not a number; use a length such as 2.5, or a list [1,2]."
            )
        found.append(float(item))
    if not found:
        raise UserError("coefficient=[] selects nothing; use a number or a list such as [1,2].")
    return tuple(dict.fromkeys(found))


def _model_path(model: ModelConfig, place: str = "model") -> Path:
    if model.path is not None:
        return Path(model.path).expanduser()
    if model.shipped is None:
        raise UserError(
            f"{place}={model.name} has no weights here: download {model.source} and add "
            f"{place}.path=DIR."
        )
    return PROJECT / model.shipped


def _model_name(model: ModelConfig, path: Path) -> str:
    """The slug: the config's own name, unless a shipped model was replaced by a folder."""
    replaced = model.shipped is not None and model.path is not None
    name = path.name if replaced else model.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "model"


def _many(asked: object, default: Sequence[Any]) -> Sequence[Any]:
    if asked is None:
        return default
    return list(asked) if isinstance(asked, list | tuple) else [asked]


def _one_of(field: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{field}={value} does not exist; {did_you_mean(value, known)}")


def _at_least(field: str, value: float, least: float) -> None:
    if value < least:
        raise UserError(f"{field}={value} is too small; use {least:g} or more.")


def _matches(field: str, value: str, pattern: re.Pattern[str], example: str) -> None:
    if not pattern.match(value):
        raise UserError(f"{field}={value} cannot be read; write it like {example}.")
