"""Weight files are whole and belong to their config.json, or no rank is started for them.

Only the headers are read: a safetensors file begins with the length of a JSON object that names
each tensor's shape and place, so a file that was cut, or is of another model, shows at once.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from actors.model.family import ModelFacts
from actors.model.quantized import (
    GROUP_SUFFIX,
    PACKED_SUFFIX,
    PER_WORD,
    SCALE_SUFFIX,
    ZERO_SUFFIX,
    block_shape,
    packed_group,
    scales_shape,
)
from conf.errors import UserError

INDEX = "model.safetensors.index.json"
FP8_TYPES = {"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
SCALE_TYPES = {"F32", "BF16", "F16", "F8_E8M0"}
_LENGTH = struct.Struct("<Q")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_EXPERT = re.compile(r"\.(?:experts|shared_experts)\.(?:\d+\.)?\w+_proj(?:\.weight)?$")
_EMBEDDING = re.compile(r"(?:^|\.)embed_tokens\.weight$")


def check_weight_files(model_path: str, facts: ModelFacts, *, keeps_fp8: bool = False) -> None:
    """Refuse weights that are damaged, incomplete or of another shape than config.json says.

    Args:
        model_path: Folder with at least one safetensors file.
        facts: What its config.json says.
        keeps_fp8: Experts are to stay FP8 in memory, so they must be FP8 in the files.

    Raises:
        UserError: Names the folder, the file or number at fault, and the way out.
    """
    folder = Path(model_path)
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name in _names(folder):
        tensors.update(_tensors(folder, name))
    _check_scales(folder, tensors, facts)
    _check_packed(folder, tensors, facts)
    if keeps_fp8:
        _check_experts(folder, tensors, facts)
    shapes = {name: shape for name, (_, shape) in tensors.items()}
    layers = {int(found[1]) for found in map(_LAYER.search, shapes) if found}
    if layers and max(layers) + 1 < facts.num_layers:
        _misfit(folder, f"{max(layers) + 1} layers", "num_hidden_layers", facts.num_layers)
    for name, shape in shapes.items():
        if _EMBEDDING.search(name) and shape != [facts.vocab_size, facts.hidden_size]:
            said = f"{facts.vocab_size} and {facts.hidden_size}"
            _misfit(folder, f"{name} of shape {shape}", "vocab_size and hidden_size", said)


def _check_scales(
    folder: Path, tensors: Mapping[str, tuple[str, list[int]]], facts: ModelFacts
) -> None:
    """FP8 weights are announced by config.json, and each block of them has its scale."""
    block = block_shape(facts.config)
    for name, (dtype, shape) in tensors.items():
        if dtype not in FP8_TYPES or name.endswith(SCALE_SUFFIX):
            continue
        if block is None or dtype != "F8_E4M3":
            said = f"blocks of {list(block)} in E4M3" if block else "nothing of blocks"
            _misfit(folder, f"{dtype} weights ({name})", "quantization_config", said)
        kind, held = tensors.get(name + SCALE_SUFFIX, ("no", []))
        wanted = scales_shape(shape, block)
        if held != wanted or kind not in SCALE_TYPES:
            said = f"{list(block)}: {wanted} scales of floating point"
            _misfit(folder, f"{kind} scales {held} for {name}", "weight_block_size", said)


def _check_packed(
    folder: Path, tensors: Mapping[str, tuple[str, list[int]]], facts: ModelFacts
) -> None:
    """Packed INT4 weights are announced by config.json, and each group of them has its scale."""
    group = packed_group(facts.config)
    for name, (dtype, shape) in tensors.items():
        if not name.endswith(".weight" + PACKED_SUFFIX):
            continue
        plain = name.removesuffix(PACKED_SUFFIX)
        if group is None or dtype != "I32" or plain + ZERO_SUFFIX in tensors:
            said = f"symmetric INT4 in groups of {group}" if group else "nothing of INT4"
            _misfit(folder, f"{dtype} packed weights ({name})", "quantization_config", said)
        kind, held = tensors.get(plain + GROUP_SUFFIX, ("no", []))
        wanted = [shape[0], -(-shape[1] * PER_WORD // group)]
        if held != wanted or kind not in SCALE_TYPES:
            said = f"{group}: {wanted} scales of floating point"
            _misfit(folder, f"{kind} scales {held} for {plain}", "group_size", said)


def _check_experts(
    folder: Path, tensors: Mapping[str, tuple[str, list[int]]], facts: ModelFacts
) -> None:
    """Every expert that is loaded is FP8; what is not leaves no way to keep the others so."""
    for name, (dtype, _) in tensors.items():
        found = _LAYER.search(name)
        is_loaded = found and int(found[1]) < facts.num_layers
        if is_loaded and _EXPERT.search(name) and dtype != "F8_E4M3":
            raise UserError(
                f"model.path={str(folder)!r} holds {name} in {dtype}, and experts that stay FP8 "
                "must all be FP8 there; set model.expert_weights=dequantized (twice the memory)."
            )


def _names(folder: Path) -> list[str]:
    """Files that hold the weights: those that the index names, or all there are."""
    index = folder / INDEX
    if not index.is_file():
        return sorted(path.name for path in folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model.path={str(folder)!r} has an {INDEX} that cannot be read; download it again."
        ) from error
    for name in names:
        if not (folder / Path(name).name).is_file():
            raise UserError(
                f"model.path={str(folder)!r} lacks {name}, which {INDEX} names; copy the missing "
                "file."
            )
    return names


def _tensors(folder: Path, name: str) -> Mapping[str, tuple[str, list[int]]]:
    """Type and shape of each tensor in one file, after its bytes were found to be all there."""
    path = folder / Path(name).name
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size).ljust(_LENGTH.size, b"\xff"))
            if length > size_bytes:
                _damaged(path, f"{size_bytes} bytes are no safetensors file")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        tensors = {n: (str(facts["dtype"]), list(facts["shape"])) for n, facts in header.items()}
    except OSError as error:
        _damaged(path, error.strerror or str(error))
    except (ValueError, KeyError, TypeError, AttributeError):
        _damaged(path, "its header cannot be read")
    whole = _LENGTH.size + length + max(ends, default=0)
    if size_bytes != whole:
        _damaged(path, f"{size_bytes} of {whole} bytes are there")
    return tensors


def _damaged(path: Path, why: str) -> NoReturn:
    raise UserError(
        f"model.path={str(path.parent)!r} has a damaged {path.name} ({why}); copy it again."
    )


def _misfit(folder: Path, held: str, setting: str, said: object) -> NoReturn:
    raise UserError(
        f"model.path={str(folder)!r} holds {held}, but its config.json says {said} for {setting}; "
        "give the config.json that belongs to these weights."
    )
