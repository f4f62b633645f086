"""Two small languages for token positions, the same for every rank: where to steer, what to read.

Steering: ``all``, ``prompt``, ``response``, ``from:K``, ``at:1,5,9``. Capture: ``frame[slice]``.
A capture slice with a negative bound inside ``response`` depends on the final length, so it is kept
open until the sequence ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

_TOKENS = re.compile(r"(prompt|response|all)(?:\[(-?\d+)?(?:(:)(-?\d+)?)?\])?")


@dataclass(frozen=True, slots=True)
class Where:
    """Positions that one steering entry touches."""

    start: int
    stop: int | None
    """Exclusive; None is open-ended."""
    explicit: frozenset[int] | None = None

    def __contains__(self, position: int) -> bool:
        if self.explicit is not None:
            return position in self.explicit
        return position >= self.start and (self.stop is None or position < self.stop)

    def within(self, start: int, stop: int) -> Sequence[int]:
        """Touched positions in ``[start, stop)``."""
        if self.explicit is not None:
            return sorted(p for p in self.explicit if start <= p < stop)
        first = self.start if self.start > start else start
        last = stop if self.stop is None or self.stop > stop else self.stop
        return range(first, last if last > first else first)

    def touches_before(self, position: int) -> bool:
        """True when some position below ``position`` is touched."""
        if self.explicit is not None:
            return any(p < position for p in self.explicit)
        return self.start < position and (self.stop is None or self.stop > self.start)


@lru_cache(maxsize=4096)
def parse_steering(text: str, prompt_length: int, limit: int) -> Where:
    """Positions of a steering entry.

    Args:
        text: See the module's first lines.
        prompt_length: Tokens of the prompt.
        limit: Tokens that the sequence can have at most.

    Raises:
        ValueError: Unknown text, or a position outside the sequence; one sentence.
    """
    if text == "all":
        return Where(0, None)
    if text == "prompt":
        return Where(0, prompt_length)
    if text == "response":
        return Where(prompt_length, None)
    kind, _, rest = text.partition(":")
    try:
        numbers = [int(part) for part in rest.split(",")]
    except ValueError:
        numbers = []
    if kind == "from" and len(numbers) == 1:
        start = numbers[0] + (prompt_length if numbers[0] < 0 else 0)
        if not 0 <= start < limit:
            raise ValueError(
                f"positions={text!r} starts outside the sequence of at most {limit} tokens"
            )
        return Where(start, None)
    if kind == "at" and numbers:
        outside = [n for n in numbers if not 0 <= n < limit]
        if outside:
            raise ValueError(
                f"positions={text!r} names {outside[0]}, outside the sequence of at most "
                f"{limit} tokens"
            )
        return Where(min(numbers), None, frozenset(numbers))
    raise ValueError(f"positions={text!r} is not one of all, prompt, response, from:K, at:1,5,9")


@dataclass(frozen=True, slots=True)
class Selector:
    """Token positions that a capture reads: a Python slice inside a frame."""

    frame: str
    start: int | None
    stop: int | None
    is_open: bool = field(init=False)
    """True when membership depends on the sequence's final length."""

    def __post_init__(self) -> None:
        negative = (self.start or 0) < 0 or (self.stop or 0) < 0
        object.__setattr__(self, "is_open", negative and self.frame != "prompt")

    def resolve(self, prompt_length: int, length: int) -> range:
        """Positions once the sequence has ``length`` tokens."""
        first, last = {
            "prompt": (0, prompt_length),
            "response": (prompt_length, length),
            "all": (0, length),
        }[self.frame]
        start, stop, _ = slice(self.start, self.stop).indices(max(last - first, 0))
        return range(first + start, first + max(stop, start))

    def readable(self, start: int, stop: int, prompt_length: int) -> range:
        """Positions in ``[start, stop)`` that are, or may turn out to be, selected."""
        if self.frame == "prompt":
            frame = self.resolve(prompt_length, prompt_length)
            low, high = frame.start, frame.stop
        else:
            first = prompt_length if self.frame == "response" else 0
            is_open = self.is_open
            low = first if is_open else first + (self.start or 0)
            high = stop if is_open or self.stop is None else first + self.stop
        low = low if low > start else start
        high = high if high < stop else stop
        return range(low, high if high > low else low)

    def may_read(self, position: int, prompt_length: int) -> bool:
        """True when the position is, or may turn out to be, selected."""
        return bool(self.readable(position, position + 1, prompt_length))


@lru_cache(maxsize=4096)
def parse_tokens(text: str) -> Selector:
    """Read a capture's token selector.

    Raises:
        ValueError: Not of the grammar; one sentence.
    """
    match = _TOKENS.fullmatch(text.strip())
    if not match or (text.strip().endswith("]") and match[2] is match[3] is None):
        raise ValueError(
            f"tokens={text!r} is not of the form prompt[-1], response[:5], response[:] or all"
        )
    frame, first, colon, last = match.groups()
    if first is None and colon is None:
        return Selector(frame, None, None)
    if colon is None:
        index = int(first)
        return Selector(frame, index, index + 1 if index != -1 else None)
    return Selector(frame, int(first) if first else None, int(last) if last else None)
