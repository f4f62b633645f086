"""Rows of one burst that are kept one by one: where they go, and who reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from actors.engine.capture import Capturer
from actors.engine.fast_state import MAX_RAW_BURST, Features
from actors.engine.fusable import Row
from actors.engine.gather import find_home
from actors.engine.homes import Move, send
from actors.engine.landing import Landing, Piece, land
from actors.engine.reading import Reading

if TYPE_CHECKING:
    from actors.engine.fast import FastDecoder


@dataclass(slots=True)
class BurstRows:
    """The kept rows of one burst, on their way to the host."""

    capturer: Capturer
    landings: list[tuple[Landing | None, Landing | None]] = field(default_factory=list)
    """Of each ``MAX_RAW_BURST`` steps: the rows that went home, and ``[row, held layer, step, D]``
    where some have no home."""

    def land(self, fast: FastDecoder, rows: list[Row], stop: int, features: Features) -> None:
        """Start to bring the newest steps' kept rows to the host."""
        kept = fast.kept(features)
        if kept is None:
            return
        start = (stop - 1) // MAX_RAW_BURST * MAX_RAW_BURST
        # A copy: the next step writes where the rows lie.
        staging = fast.staging(features)
        block = staging.copy(kept[: stop - start, :, : len(rows)].permute(2, 1, 0, 3))
        # What is not finite at a layer stays so above it.
        good = block[:, -1].isfinite().all(dim=-1)
        moves: list[Move] = []
        on_foot = [not self._send_home(row, block[i], start, moves) for i, row in enumerate(rows)]
        sent = send(moves, block, good) if moves else None
        landed = land(block, good) if any(on_foot) else None
        staging.leaves()
        self.landings.append((sent, landed))

    def _send_home(self, row: Row, block_LSD: Tensor, first_step: int, moves: list[Move]) -> bool:
        """Add the move of a row's steps, if it needs any; False when it has no home to go to."""
        reading, sequence = row.raw, row.sequence
        if reading is None:
            return True
        places = self.capturer.places(reading)
        mine = block_LSD if places is None else block_LSD[places]
        home = find_home(reading, "resid_post", mine, self.capturer.shelf)
        if home is None:
            return False
        first = sequence.num_computed + first_step
        wanted = reading.selector.readable(
            max(first, sequence.num_captured), first + mine.shape[1], sequence.request.prompt_length
        )
        stop = min(wanted.stop, reading.positions_at_most.stop)
        if stop > wanted.start:
            moves.append(Move(home, wanted.start, mine[:, wanted.start - first : stop - first]))
        return True

    def note(self, reading: Reading, row: int, steps: range) -> None:
        """Book a reading's steps of one row in the landings that bring them."""
        places = self.capturer.places(reading) if self.landings else None
        for number, (sent, landed) in enumerate(self.landings):
            landing = sent if "resid_post" in reading.homes else landed
            base = number * MAX_RAW_BURST
            first, stop = max(steps.start - base, 0), min(steps.stop - base, MAX_RAW_BURST)
            if landing is not None and first < stop:
                piece = Piece(landing, row, places, first, stop)
                reading.pieces.setdefault("resid_post", []).append(piece)
