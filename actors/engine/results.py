"""A finished sequence becomes a result: complete, or an error with one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actors.engine.sampler import Sampled
from actors.engine.sequence import Sequence
from actors.request import (
    CaptureResult,
    Logprobs,
    Request,
    RequestError,
    Result,
    SteeringReceipt,
    Timings,
)


@dataclass(slots=True)
class Outcome:
    """What a running sequence gathers besides its tokens."""

    chosen: list[float] = field(default_factory=list)
    top_ids: list[list[int]] = field(default_factory=list)
    top: list[list[float]] = field(default_factory=list)
    named: list[list[float]] = field(default_factory=list)
    is_finite: bool = True
    first_token_s: float = 0.0
    finished_s: float = 0.0

    def take_logprobs(self, sampled: Sampled, row: int) -> None:
        """Keep one step's log-probabilities of one sequence, if any were computed."""
        if sampled.chosen_logprobs is None or sampled.top is None:
            return
        self.chosen.append(float(sampled.chosen_logprobs[row]))
        if sampled.top_ids is not None and sampled.named is not None:
            self.top_ids.append(sampled.top_ids[row].tolist())
            self.top.append(sampled.top[row].tolist())
            self.named.append(sampled.named[row].tolist())


def failed(request: Request, error: RequestError) -> Result:
    """The answer to a request that never ran."""
    return Result(
        id=request.id,
        prompt_ids=request.token_ids,
        completion_ids=(),
        finish_reason="error",
        error=error,
    )


def _logprobs(request: Request, outcome: Outcome) -> Logprobs | None:
    if not (request.num_top_logprobs or request.logprob_token_ids):
        return None
    count, most, named = len(outcome.chosen), request.num_top_logprobs, request.logprob_token_ids

    def table(rows: list[list[Any]], width: int, dtype: type[np.generic]) -> np.ndarray:
        cut = np.asarray([r[:width] for r in rows], dtype)
        return cut.reshape(count, -1 if count else width)

    return Logprobs(
        chosen=np.asarray(outcome.chosen, dtype=np.float32),
        top_ids=table(outcome.top_ids, most, np.int32),
        top=table(outcome.top, most, np.float32),
        named=table(outcome.named, len(named), np.float32),
    )


def build_result(
    sequence: Sequence,
    outcome: Outcome,
    *,
    captures: tuple[CaptureResult, ...],
    receipts: tuple[SteeringReceipt, ...],
    num_non_finite: int,
) -> Result:
    """Assemble a finished sequence's answer; values that are not finite make it an error."""
    request = sequence.request
    error = None
    if not outcome.is_finite:
        error = RequestError(
            type="non_finite",
            message=f"request {request.id!r}: logits at position {len(sequence.tokens) - 1} are "
            "not finite; lower the steering coefficient or check the weights.",
        )
    elif num_non_finite:
        error = RequestError(
            type="non_finite",
            message=f"request {request.id!r}: {num_non_finite} captured values are not finite; "
            "lower the steering coefficient or check the weights.",
        )
    return Result(
        id=request.id,
        prompt_ids=request.token_ids,
        completion_ids=tuple(sequence.completion_ids),
        finish_reason="error" if error else (sequence.finish_reason or "error"),
        captures=() if error else captures,
        receipts=receipts,
        logprobs=_logprobs(request, outcome),
        num_non_finite=num_non_finite,
        error=error,
        timings=Timings(first_token_s=outcome.first_token_s, finished_s=outcome.finished_s),
    )
