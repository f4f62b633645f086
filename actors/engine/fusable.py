"""What one fused decode step must know of a sequence, or that it cannot serve it."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine.bank import Bank
from actors.engine.capture import Capturer
from actors.engine.fast_state import BANK_SLOTS, MAX_EOS
from actors.engine.reading import Reading
from actors.engine.sequence import Sequence
from actors.engine.steer import Entry, Plan
from actors.request import Request

_FAR = 2**31 - 1


@dataclass(slots=True)
class Row:
    """A running sequence as a row of a burst."""

    sequence: Sequence
    entries: list[Entry]
    pooled: Reading | None
    """Summed on the device between ``first`` and ``stop``."""
    raw: Reading | None
    """Kept row by row."""
    first: int = 0
    stop: int = 0
    ahead: int = 0
    """1: its newest token is on the device only, and what the host knows is one token older."""


def fusable_row(
    sequence: Sequence,
    plan: Plan,
    capturer: Capturer,
    bank: Bank,
    eos_ids: tuple[int, ...],
    *,
    ahead: int = 0,
) -> Row | None:
    """The row of a sequence that lacks one token, or None when only the general step serves it.

    With ``ahead`` 1 that token is about to be chosen: the sequence lacks none that is known.
    """
    request, s = sequence.request, sequence.request.sampling
    plain = not (s.top_k or s.top_p < 1 or s.min_p or s.stop_strings)
    if sequence.num_missing != 1 - ahead or not plain or s.repetition_penalty != 1.0:
        return None
    if request.num_top_logprobs or request.logprob_token_ids:
        return None
    if len(s.stop_ids) + len(eos_ids) > MAX_EOS or len(bank.slot_of) >= BANK_SLOTS:
        return None
    position = sequence.num_computed
    entries = _entries_from(plan.entries.get(request.id, []), position)
    if entries is None:
        return None
    if _reads_prompt(capturer, request, position):
        return None
    if not request.capture:
        return Row(sequence, entries, None, None, ahead=ahead)
    live = [r for r in capturer.readings(request) if _reads_after(r, sequence, position)]
    pooled, raw = [r for r in live if is_pooled(r)], [r for r in live if is_kept(r)]
    if len(pooled) > 1 or len(raw) > 1 or len(pooled) + len(raw) < len(live):
        return None
    row = Row(sequence, entries, next(iter(pooled), None), next(iter(raw), None), ahead=ahead)
    if row.pooled is not None:
        selector = row.pooled.selector
        base = request.prompt_length if selector.frame == "response" else 0
        row.first = max(base + (selector.start or 0), sequence.num_captured)
        row.stop = _FAR if selector.stop is None else base + selector.stop
    return row


def tokens_left(sequence: Sequence) -> int:
    """Tokens that the sequence may still choose."""
    if sequence.finish_reason:
        return 0
    return sequence.longest - len(sequence.tokens)


def _entries_from(entries: list[Entry], position: int) -> list[Entry] | None:
    """Entries that touch every row from ``position`` on; None when one touches only some."""
    found, layers = [], set()
    for entry in entries:
        where = entry.where
        if entry.is_idle:
            continue
        if where.explicit is not None:
            if max(where.explicit) >= position:
                return None
            continue
        if where.stop is not None and where.stop <= position:
            continue
        layer = entry.steering.layer
        if where.stop is not None or where.start > position or layer in layers:
            return None
        if entry.steering.site != "resid_post":
            return None
        layers.add(layer)
        found.append(entry)
    return found


def _reads_prompt(capturer: Capturer, request: Request, position: int) -> bool:
    """True when a row of the prompt is left (its last chunk may be one row) that is to be read."""
    length = request.prompt_length
    return position < length and any(
        r.selector.frame == "prompt" and bool(r.selector.readable(position, length, length))
        for r in capturer.readings(request)
    )


def _reads_after(reading: Reading, sequence: Sequence, position: int) -> bool:
    selector = reading.selector
    if selector.frame == "prompt":
        return False
    if selector.is_open or selector.stop is None:
        return True
    base = sequence.request.prompt_length if selector.frame == "response" else 0
    return base + selector.stop > position


def is_pooled(reading: Reading) -> bool:
    """True when a fused step can sum what the reading reads."""
    capture = reading.capture
    return reading.streams and capture.reduction == "mean" and capture.sites == ("resid_post",)


def is_kept(reading: Reading) -> bool:
    """True when a fused step can keep the rows that the reading reads."""
    capture = reading.capture
    return capture.reduction == "none" and capture.sites == ("resid_post",)
