"""Reads, of each checkpoint tensor, only the part that is asked for; safetensors only.

FP8 and INT4 weights come as the numbers that they stand for (``actors.model.block_scales``,
``actors.model.packed_ints``).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from actors.model.block_scales import FP8, Matrix, dequantize, local_scales, scales_part
from actors.model.packed_ints import unpack, words_part
from actors.model.quantized import GROUP_SUFFIX, PACKED_SUFFIX, PER_WORD, SCALE_SUFFIX
from actors.model.shard import Slice
from conf.errors import UserError


class Checkpoint:
    """Slices of safetensors files, opened once and lazily."""

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        block: tuple[int, int] | None = None,
        group: int | None = None,
    ) -> None:
        self.folder = folder
        self._block = block
        """Rows and columns that share a scale, in a checkpoint with FP8 weights."""
        self._group = group
        """Columns that share a scale, in a checkpoint with packed INT4 weights."""
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
        return name in self._file_of or self._is_packed(name)

    def _is_packed(self, name: str) -> bool:
        return name not in self._file_of and name + PACKED_SUFFIX in self._file_of

    def get(self, name: str) -> Any:
        """A lazy slice of tensor ``name``."""
        file = self._file_of.get(name)
        if file is None:
            raise UserError(
                f"model.path={str(self.folder)!r} lacks the tensor {name!r}; "
                "the checkpoint does not match its config.json."
            )
        if Path(file).name != file:
            raise UserError(f"model.path={str(self.folder)!r} names a weight file {file!r}.")
        if file not in self._open:
            handle = safe_open(self.folder / file, framework="pt")
            self._open[file] = self._stack.enter_context(handle)
        return self._open[file].get_slice(name)

    def copy(self, name: str, part: Slice | None, out: Tensor) -> None:
        """Copy the part of tensor ``name`` into ``out``, converting the dtype."""
        if self._is_packed(name):
            got = self._unpacked(name, part, out)
            self._fits(name, got, out)
            out.copy_(got)
            return
        got, start = self._part(name, part)
        self._keep(name, got, out, start)

    def _part(self, name: str, part: Slice | None) -> tuple[Tensor, tuple[int, int]]:
        """A part of a tensor, and the row and column that it begins at."""
        lazy = self.get(name)
        if part is None:
            return lazy[:], (0, 0)
        if part.dim == 0:
            return lazy[part.start : part.stop], (part.start, 0)
        return lazy[:, part.start : part.stop], (0, part.start)

    def _keep(
        self,
        name: str,
        got: Tensor,
        out: Tensor,
        start: tuple[int, int],
        expert: int | None = None,
    ) -> None:
        self._fits(name, got, out)
        if got.dtype == FP8:
            got = self._numbers(name, got.to(out.device), start, expert)
        out.copy_(got)

    def _fits(self, name: str, got: Tensor, out: Tensor) -> None:
        if got.shape != out.shape:
            raise UserError(
                f"model.path={str(self.folder)!r} has {name!r} with {tuple(got.shape)} values for "
                f"{tuple(out.shape)}; the checkpoint does not match its config.json."
            )

    def _numbers(
        self, name: str, got: Tensor, start: tuple[int, int], expert: int | None
    ) -> Tensor:
        """What FP8 rows and columns from ``start`` on stand for, float32."""
        if self._block is None:
            raise UserError(
                f"model.path={str(self.folder)!r} holds FP8 weights ({name}), of which its "
                "config.json says nothing; give the config.json that belongs to these weights."
            )
        scales = self._scales(name, (got.shape[0], got.shape[1]), start, expert)
        return dequantize(got, scales.to(got.device), start, self._block)

    def _scales(
        self, name: str, shape: tuple[int, int], start: tuple[int, int], expert: int | None
    ) -> Tensor:
        """Scales of the blocks that a part touches; ``expert`` is its place in a fused tensor."""
        if self._block is None:
            raise ValueError("there are no scales without blocks")
        rows, columns = (
            scales_part(first, length, size)
            for first, length, size in zip(start, shape, self._block, strict=True)
        )
        lazy = self.get(name + SCALE_SUFFIX)
        found: Tensor = (
            lazy[rows, columns] if expert is None else lazy[expert : expert + 1, rows, columns][0]
        )
        return found

    def _unpacked(self, name: str, part: Slice | None, out: Tensor) -> Tensor:
        """What a part of packed integers stands for, float32, where ``out`` is."""
        if self._group is None:
            raise UserError(
                f"model.path={str(self.folder)!r} holds packed weights ({name}), of which its "
                "config.json says nothing; give the config.json that belongs to these weights."
            )
        rows, columns = self.shape(name)
        over_rows = slice(part.start, part.stop) if part and part.dim == 0 else slice(0, rows)
        first, stop = (part.start, part.stop) if part and part.dim == 1 else (0, columns)
        words = self.get(name + PACKED_SUFFIX)[over_rows, words_part(first, stop - first)]
        groups = slice(first // self._group, -(-stop // self._group))
        scales = self.get(name + GROUP_SUFFIX)[over_rows, groups]
        at = out.device
        return unpack(words.to(at), scales.to(at), first, stop - first, self._group)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        if self._is_packed(name):
            rows, words = self.get(name + PACKED_SUFFIX).get_shape()
            return rows, words * PER_WORD
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
        got, start = self._of_fused(name, index, rank, world_size)
        self._keep(name, got, out, start, index[0])

    def _of_fused(
        self, name: str, index: tuple[int, int], rank: int, world_size: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """One rank's part of one expert in a fused tensor, and where it begins in that expert."""
        expert, half = index
        lazy = self.get(name)
        if half >= 0:
            width = lazy.get_shape()[1] // 2
            first = half * width + rank * (width // world_size)
            got = lazy[expert : expert + 1, first : first + width // world_size]
            return got[0], (first, 0)
        width = lazy.get_shape()[2] // world_size
        got = lazy[expert : expert + 1, :, rank * width : (rank + 1) * width]
        return got[0], (0, rank * width)

    def copy_fp8(
        self, prefix: str, matrix: Matrix, part: Slice | None, *, rank: int, world_size: int
    ) -> None:
        """Copy FP8 numbers as they are stored, and the scales of a rank's own blocks.

        Args:
            prefix: Module of the experts; a checkpoint may hold them in one tensor of its own.
            matrix: What to fill.
            part: This rank's rows or columns of an expert that has a tensor of its own.
            rank: 0-based.
            world_size: Tensor-parallel size.
        """
        name, expert = matrix.name, None
        fused = f"{prefix}.{'down' if matrix.half < 0 else 'gate_up'}_proj"
        if name not in self and fused in self:
            name, expert = fused, matrix.expert
            index = (matrix.expert, matrix.half)
            got, start = self._of_fused(name, index, rank, world_size)
        else:
            got, start = self._part(name, part)
        if got.dtype != FP8 or self._block is None:
            raise UserError(
                f"model.path={str(self.folder)!r} has {name!r} in {got.dtype}, and experts that "
                "stay FP8 must all be FP8 there; set model.expert_weights=dequantized."
            )
        self._fits(name, got, matrix.values)
        shape = (got.shape[0], got.shape[1])
        scales = self._scales(name, shape, start, expert)
        matrix.values.copy_(got)
        matrix.scales.copy_(local_scales(scales, start, shape, self._block, matrix.block))
