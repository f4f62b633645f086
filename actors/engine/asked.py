"""What ranks compare before they run anything together."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from actors.engine.bank import Bank
from actors.engine.pages import packed
from actors.engine.sequence import Span
from actors.request import Request


def asked(requests: Sequence[Request], bank: Bank) -> bytes:
    """What decides tokens and rows, as a digest that equal bundles have on every rank."""
    found = hashlib.sha256(repr(sorted(bank.marks.items())).encode())
    numbers: dict[Hashable, int] = {}  # most requests of a bundle share these
    for r in requests:
        shared = (r.sampling, r.capture, r.num_top_logprobs, r.logprob_token_ids)
        number = numbers.get(shared)
        if number is None:
            number = numbers[shared] = len(numbers)
            found.update(repr(shared).encode())
        steering = [(s.layer, s.site, s.operator, s.vector, s.coefficient, s.positions)
                    for s in r.steering]  # fmt: skip
        mine = (r.id, r.prompt_length, len(r.token_ids), steering, number)
        found.update(repr(mine).encode() + packed(r.token_ids))
    return found.digest()


def rows_of_spans(spans: Sequence[Span]) -> list[tuple[int, int, int]]:
    """(sequence, first, last + 1) of a forward's runs of rows."""
    return [(s.sequence.index, s.start, s.stop) for s in spans]
