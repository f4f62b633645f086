"""A vector leaves in the form that its consumer documents, and comes back equal to the last bit.

Layers are 0-based block outputs here. GGUF control vectors (llama.cpp, repeng, EasySteer) name the
same thing ``direction.<layer>``; llama.cpp has no slot for layer 0. vllm-lens takes absolute
vectors as JSON: a zstd frame in base64 with dtype and shape, layer indices and a scale.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from conf.errors import UserError
from storage.vectors import TraitVector, digest_of

Directions = dict[int, NDArray[np.float32]]
"""Layer -> direction."""


def write_safetensors(vectors: Sequence[TraitVector], path: Path) -> None:
    """One tensor a vector, by its name; identity and facts as JSON in the metadata."""
    tensors = {vector.name: np.ascontiguousarray(vector.direction) for vector in vectors}
    facts = {
        vector.name: json.dumps(
            {
                "trait": vector.trait,
                "layer": vector.layer,
                "site": vector.site,
                "method": vector.method,
                "tokens": vector.tokens,
                "model": vector.model,
                "norm": vector.norm,
                "auroc": vector.auroc,
                "sha256": vector.sha256,
            },
            sort_keys=True,
        )
        for vector in vectors
    }
    save_file(tensors, path, metadata=facts)


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Directions by name."""
    found: dict[str, NDArray[np.float32]] = load_file(path)
    return found


def by_layer(vectors: Sequence[TraitVector], *, scale: float | None = None) -> Directions:
    """One direction a layer, times ``scale``; None scales to the length before normalising.

    Raises:
        UserError: Two vectors have the same layer, or they come from several models.
    """
    layers = [vector.layer for vector in vectors]
    if len(set(layers)) != len(layers) or len({v.model for v in vectors}) > 1:
        raise UserError(
            f"one direction per layer of one model is exported, but {len(layers)} vectors cover "
            f"layers {sorted(set(layers))}: choose one trait, method and token selector."
        )
    return {
        vector.layer: np.float32(vector.norm if scale is None else scale) * vector.direction
        for vector in vectors
    }


def write_gguf(
    directions: Mapping[int, NDArray[np.float32]],
    path: Path,
    *,
    model_hint: str,
    method: str = "",
    allow_layer_0: bool = False,
) -> None:
    """A GGUF control vector for llama.cpp and repeng; with ``method`` and layer 0 for EasySteer.

    Args:
        directions: Layer -> vector, as it is to be added at coefficient 1.
        path: File to write.
        model_hint: Model type as in its config, such as ``qwen3_moe``.
        method: EasySteer's ``controlvector.method``; empty leaves it out.
        allow_layer_0: EasySteer reads it; llama.cpp does not.

    Raises:
        UserError: The ``gguf`` package is missing, or layer 0 is asked of llama.cpp.
    """
    gguf = _gguf()
    if 0 in directions and not allow_layer_0:
        raise UserError("a llama.cpp control vector has no slot for layer 0: leave layer 0 out.")
    writer = gguf.GGUFWriter(str(path), "controlvector")
    writer.add_string("controlvector.model_hint", model_hint)
    writer.add_uint32("controlvector.layer_count", len(directions))
    if method:
        writer.add_string("controlvector.method", method)
    for layer, direction in sorted(directions.items()):
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(direction, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> Directions:
    """Directions of a control vector by layer.

    Raises:
        UserError: It is a GGUF file of another kind.
    """
    reader = _gguf().GGUFReader(str(path))
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    if not all(re.fullmatch(r"direction\.\d+", name) for name in found):
        raise UserError(f"{path} is not a control vector: its tensors are {sorted(found)[:3]}.")
    return {
        int(name.removeprefix("direction.")): np.array(data, np.float32)
        for name, data in found.items()
    }


def write_vllm_lens(directions: Mapping[int, NDArray[np.float32]], path: Path) -> None:
    """The list that vllm-lens takes as ``apply_steering_vectors``; absolute, no norm matching."""
    layers = sorted(directions)
    stacked = np.stack([np.ascontiguousarray(directions[n], "<f4") for n in layers])
    body = pa.compress(stacked.tobytes(), codec="zstd", asbytes=True)
    vector = {
        "activations": {
            "data": base64.b64encode(body).decode("ascii"),
            "dtype": "float32",
            "original_dtype": "torch.float32",
            "shape": list(stacked.shape),
            "compression": "zstd",
        },
        "layer_indices": layers,
        "scale": 1.0,
        "norm_match": False,
    }
    path.write_text(json.dumps([vector]))


def read_vllm_lens(path: Path) -> Directions:
    """Directions of such a list, or of one of its vectors, by layer; scale included.

    Raises:
        UserError: A vector depends on position or norm, or a layer has two.
    """
    listed = json.loads(path.read_text())
    found: Directions = {}
    for vector in [listed] if isinstance(listed, dict) else listed:
        rows = _unpacked(vector["activations"])
        if rows.ndim != 2 or vector.get("norm_match"):
            raise UserError(
                f"{path} holds a vector that depends on position or norm (shape "
                f"{list(rows.shape)}): only one direction a layer can be imported."
            )
        for layer, row in zip(vector["layer_indices"], rows, strict=True):
            if layer in found:
                raise UserError(f"{path} has two vectors of layer {layer}: give one.")
            found[layer] = np.float32(vector.get("scale", 1.0)) * row
    return found


def _unpacked(packed: Mapping[str, Any]) -> NDArray[np.float32]:
    """A tensor of vllm-lens; bfloat16 lies in it as int16 bit patterns and is widened exactly."""
    stored = np.dtype(packed["dtype"])
    body = base64.b64decode(packed["data"])
    if packed.get("compression") == "zstd":
        size_bytes = stored.itemsize * int(np.prod(packed["shape"]))
        body = pa.decompress(body, decompressed_size=size_bytes, codec="zstd", asbytes=True)
    values = np.frombuffer(body, stored).reshape(packed["shape"])
    if packed.get("original_dtype") == "torch.bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def same_direction(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    """True when two directions are equal to the last bit."""
    return digest_of(left) == digest_of(right)


def _gguf() -> ModuleType:
    """The ``gguf`` package, which only this export needs."""
    try:
        import gguf  # an optional dependency, of this export alone
    except ImportError as error:
        raise UserError(
            "the GGUF export needs the gguf package: pip install 'traitmill[gguf]'."
        ) from error
    return gguf
