"""A stop string is seen the moment the whole text would hold it, at a cost that does not grow.

Only the last tokens are decoded at each step: enough for the longest stop string and for what a
tokenizer does at an edge (a stripped space, a character of several byte tokens). A hit there is
confirmed on the whole text, so the answer is always that of decoding everything.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

Decode = Callable[[SequenceOf[int]], str]
MARGIN = 16
"""Characters kept besides the longest stop string, for what the first token of a window loses and
for the replacement characters that a new token may join into one."""
_BROKEN = "\ufffd"


class StopWatch:
    """Looks for stop strings in one completion as it grows."""

    def __init__(self, stops: SequenceOf[str], decode: Decode) -> None:
        self._stops = tuple(stops)
        self._decode = decode
        self._needed = max(map(len, stops)) + MARGIN
        self._start = 0

    def hits(self, tokens: SequenceOf[int], start: int) -> bool:
        """True when the text of ``tokens[start:]`` holds a stop string.

        Args:
            tokens: Prompt and completion; at least one token more than at the last call.
            start: Index of the first completion token.
        """
        first = start + self._start
        text = self._decode(tokens[first:])
        if self._holds_stop(text):
            return self._start == 0 or self._holds_stop(self._decode(tokens[start:]))
        if len(text) > 3 * self._needed:
            self._advance(tokens, start)
        return False

    def _holds_stop(self, text: str) -> bool:
        return any(stop in text for stop in self._stops)

    def _advance(self, tokens: SequenceOf[int], start: int) -> None:
        """Drop half of the window, as long as the rest is long enough.

        A window never begins inside a character of several tokens: some decoders would not show
        the whole run of byte tokens then, now or later.
        """
        while True:
            length = len(tokens) - start - self._start
            for dropped in range((length + 1) // 2, min((length + 1) // 2 + 4, length)):
                text = self._decode(tokens[start + self._start + dropped :])
                if len(text) >= self._needed and not text.startswith(_BROKEN):
                    self._start += dropped
                    break
            else:
                return
