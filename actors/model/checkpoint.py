"""Reads, of each checkpoint tensor, only the part that is asked for; safetensors only.

FP8 weights come as the numbers that they stand for (``actors.model.block_scales``).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from actors.model.block_scales import FP8, dequantize, scales_part
from actors.model.quantized import SCALE_SUFFIX
from actors.model.shard import Slice
from conf.errors import UserError


class Checkpoint:
    """Slices of safetensors files, opened once and lazily."""

    def __init__(
        self, folder: Path, stack: ExitStack, block: tuple[int, int] | None = None
    ) -> None:
        self._folder = folder
        self._block = block
        """Rows and columns that share a scale, in a checkpoint with FP8 weights."""
        self._stack = stack
        self._open: dict[str, Any] = {}
        index = folder / "model.safetensors.index.json"
        self._file_of: dict[str, str] = {}
        if index.is_file():
            self._file_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            for path in sorted(folder.glob("*.safetensors")):
                with safe_open(path, framework="pt") as handle:
                    self._file_of.update(dict.fromkeys(handle.keys(), path.name))

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def get(self, name: str) -> Any:
        """A lazy slice of tensor ``name``."""
        file = self._file_of.get(name)
        if file is None:
            raise UserError(
                f"model.path={str(self._folder)!r} lacks the tensor {name!r}; "
                "the checkpoint does not match its config.json."
            )
        if Path(file).name != file:
            raise UserError(f"model.path={str(self._folder)!r} names a weight file {file!r}.")
        if file not in self._open:
            handle = safe_open(self._folder / file, framework="pt")
            self._open[file] = self._stack.enter_context(handle)
        return self._open[file].get_slice(name)

    def copy(self, name: str, part: Slice | None, out: Tensor) -> None:
        """Copy the part of tensor ``name`` into ``out``, converting the dtype."""
        lazy, start = self.get(name), (0, 0)
        if part is None:
            got = lazy[:]
        elif part.dim == 0:
            got, start = lazy[part.start : part.stop], (part.start, 0)
        else:
            got, start = lazy[:, part.start : part.stop], (0, part.start)
        self._keep(name, got, out, start)

    def _keep(
        self,
        name: str,
        got: Tensor,
        out: Tensor,
        start: tuple[int, int],
        expert: int | None = None,
    ) -> None:
        if got.shape != out.shape:
            raise UserError(
                f"model.path={str(self._folder)!r} has {name!r} with {tuple(got.shape)} values for "
                f"{tuple(out.shape)}; the checkpoint does not match its config.json."
            )
        if got.dtype == FP8:
            got = self._numbers(name, got.to(out.device), start, expert)
        out.copy_(got)

    def _numbers(
        self, name: str, got: Tensor, start: tuple[int, int], expert: int | None
    ) -> Tensor:
        """What FP8 rows and columns from ``start`` on stand for, float32."""
        if self._block is None:
            raise UserError(
                f"model.path={str(self._folder)!r} holds FP8 weights ({name}), of which its "
                "config.json says nothing; give the config.json that belongs to these weights."
            )
        rows, columns = (
            scales_part(first, length, size)
            for first, length, size in zip(start, got.shape, self._block, strict=True)
        )
        lazy = self.get(name + SCALE_SUFFIX)
        if expert is None:
            scales = lazy[rows, columns]
        else:
            scales = lazy[expert : expert + 1, rows, columns][0]
        return dequantize(got, scales.to(got.device), start, self._block)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        return tuple(self.get(name).get_shape())

    def copy_expert(
        self, name: str, index: tuple[int, int], out: Tensor, *, rank: int, world_size: int
    ) -> None:
        """Copy one expert's slice from a fused ``[experts, ...]`` tensor.

        Args:
            name: The fused tensor.
            index: (expert, half): half 0 is gate, 1 is up, -1 the down projection.
            out: This rank's ``[rows, columns]``.
            rank: 0-based.
            world_size: Tensor-parallel size.
        """
        expert, half = index
        lazy = self.get(name)
        if half >= 0:
            width = lazy.get_shape()[1] // 2
            first = half * width + rank * (width // world_size)
            got, start = lazy[expert : expert + 1, first : first + width // world_size], (first, 0)
        else:
            width = lazy.get_shape()[2] // world_size
            got, start = (
                lazy[expert : expert + 1, :, rank * width : (rank + 1) * width],
                (0, rank * width),
            )
        self._keep(name, got[0], out, start, expert)
