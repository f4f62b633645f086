"""A request that could not be answered is refused by name before its bundle starts.

The others run unharmed. Every check is a pure function of the bundle and the loaded model, so all
ranks refuse the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from actors.engine.positions import parse_steering, parse_tokens
from actors.engine.sampler import MAX_CANDIDATES, MAX_TOP_LOGPROBS
from actors.engine.steer import OPERATORS
from actors.request import (
    CAPTURE_SITES,
    STEERING_SITES,
    Bundle,
    Capture,
    Request,
    RequestError,
    Steering,
)

MIN_TEMPERATURE = 1e-4
"""Logits divided by less overflow float32; 0 says greedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the loaded model and cache can take."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    max_tokens: int
    """Tokens of one sequence at most: the model's context or the whole cache."""
    router_layers: frozenset[int]
    is_mla: bool
    can_decode_text: bool
    """False without a tokenizer: stop strings cannot be seen."""


class _Refused(Exception):  # noqa: N818  never leaves this module
    pass


@np.errstate(over="ignore")  # of squared vectors; entered once, for it costs as much as a product
def check_bundle(bundle: Bundle, limits: Limits) -> dict[str, RequestError]:
    """Requests of the bundle that must not run, by id, each with one sentence."""
    errors: dict[str, RequestError] = {}
    seen: set[str] = set()
    passed: set[Hashable] = set()
    """What other requests have alike, and was found good there."""
    for request in bundle.requests:
        try:
            _check_id(request, seen)
            _check_tokens(request, limits)
            asked = (request.sampling, request.num_top_logprobs, request.logprob_token_ids)
            if asked not in passed:
                _check_sampling(request, limits)
                passed.add(asked)
            for entry in request.steering:
                _check_steering(request, entry, bundle, limits, passed)
            for capture in request.capture:
                if capture not in passed:
                    _check_capture(capture, bundle, limits)
                    passed.add(capture)
        except (_Refused, ValueError) as error:
            kind = "too_long" if "tokens at most" in str(error) else "invalid"
            message = f"request {request.id!r}: {error}."
            errors[request.id] = RequestError(type=kind, message=message)
    return errors


def _check_id(request: Request, seen: set[str]) -> None:
    if request.id in seen:
        raise _Refused("id is used twice in the bundle; give every request its own")
    seen.add(request.id)


def _check_tokens(request: Request, limits: Limits) -> None:
    if not request.token_ids:
        raise _Refused("token_ids is empty; give at least one token")
    if not 0 <= min(request.token_ids) <= max(request.token_ids) < limits.vocab_size:
        outside = [t for t in request.token_ids if not 0 <= t < limits.vocab_size]
        raise _Refused(
            f"token_ids holds {outside[0]}, outside the vocabulary of {limits.vocab_size}; "
            "tokenize with this model's own tokenizer"
        )
    total = len(request.token_ids) + request.sampling.max_new_tokens
    if total > limits.max_tokens:
        raise _Refused(
            f"{len(request.token_ids)} prompt and {request.sampling.max_new_tokens} new tokens are "
            f"{total}, but this engine holds {limits.max_tokens} tokens at most; shorten one"
        )
    if not 0 <= request.prompt_length <= len(request.token_ids):
        raise _Refused(
            f"num_prompt_tokens={request.num_prompt_tokens} is outside the "
            f"{len(request.token_ids)} tokens given"
        )


def _check_sampling(request: Request, limits: Limits) -> None:
    s = request.sampling
    ranges = {
        "temperature": (
            s.temperature,
            s.temperature == 0 or s.temperature >= MIN_TEMPERATURE,
            f"0 (greedy) or at least {MIN_TEMPERATURE}",
        ),
        "top_k": (s.top_k, 0 <= s.top_k <= MAX_CANDIDATES, f"0 (all) to {MAX_CANDIDATES}"),
        "top_p": (s.top_p, 0 < s.top_p <= 1, "above 0 and at most 1"),
        "min_p": (s.min_p, 0 <= s.min_p <= 1, "between 0 and 1"),
        "repetition_penalty": (s.repetition_penalty, s.repetition_penalty > 0, "above 0"),
        "max_new_tokens": (s.max_new_tokens, s.max_new_tokens >= 0, "0 or more"),
    }
    for name, (value, is_good, way_out) in ranges.items():
        if not (is_good and math.isfinite(value)):
            raise _Refused(f"sampling.{name}={value} must be {way_out}")
    if s.stop_strings and not limits.can_decode_text:
        raise _Refused("sampling.stop_strings needs a tokenizer and the model folder has none")
    if "" in s.stop_strings:
        raise _Refused("sampling.stop_strings holds an empty string, which every text contains")
    if not 0 <= request.num_top_logprobs <= MAX_TOP_LOGPROBS:
        raise _Refused(
            f"num_top_logprobs={request.num_top_logprobs} must be 0 to {MAX_TOP_LOGPROBS}"
        )
    outside = [t for t in request.logprob_token_ids if not 0 <= t < limits.vocab_size]
    if outside:
        raise _Refused(
            f"logprob_token_ids holds {outside[0]}, outside the vocabulary of {limits.vocab_size}"
        )


def _check_layer(layer: int, limits: Limits) -> None:
    if not 0 <= layer < limits.num_layers:
        raise _Refused(
            f"layer={layer} does not exist; this model has layers 0 to {limits.num_layers - 1}"
        )


def _check_vector(key: str, bundle: Bundle, limits: Limits) -> None:
    vector = bundle.vectors.get(key)
    if vector is None:
        raise _Refused(f"vector={key!r} is not among the bundle's vectors")
    if vector.shape != (limits.hidden_size,):
        raise _Refused(
            f"vector={key!r} has shape {vector.shape}, but the residual stream is "
            f"{limits.hidden_size} wide; fit it on this model"
        )
    squared = float(np.dot(vector, vector))  # tells of most; it may be infinite where no value is
    if not (math.isfinite(squared) or np.isfinite(vector).all()):
        raise _Refused(f"vector={key!r} holds values that are not finite")


def _check_steering(
    request: Request, entry: Steering, bundle: Bundle, limits: Limits, passed: set[Hashable]
) -> None:
    _check_layer(entry.layer, limits)
    if entry.site not in STEERING_SITES:
        raise _Refused(f"site={entry.site!r} cannot be steered; use {', '.join(STEERING_SITES)}")
    if entry.operator not in OPERATORS:
        raise _Refused(f"operator={entry.operator!r} is not one of {', '.join(OPERATORS)}")
    if not math.isfinite(entry.coefficient):
        raise _Refused(f"coefficient={entry.coefficient} is not finite")
    if entry.vector not in passed:
        _check_vector(entry.vector, bundle, limits)
        passed.add(entry.vector)
    total = len(request.token_ids) + request.sampling.max_new_tokens
    parse_steering(entry.positions, request.prompt_length, total)


def _check_capture(capture: Capture, bundle: Bundle, limits: Limits) -> None:
    if not capture.layers or not capture.sites:
        raise _Refused("capture names no layer or no site")
    selector = parse_tokens(capture.tokens)
    if capture.reduction == "moments" and selector.is_open:
        raise _Refused(
            f"reduction='moments' adds rows as they come, but tokens={capture.tokens!r} counts "
            "from the end; count from the start, or keep the rows with reduction='none'"
        )
    for layer in capture.layers:
        _check_layer(layer, limits)
    for site in capture.sites:
        if site not in CAPTURE_SITES:
            raise _Refused(f"site={site!r} does not exist; use one of {', '.join(CAPTURE_SITES)}")
        if site == "mla_latent" and not limits.is_mla:
            raise _Refused("site='mla_latent' does not exist in this model (no latent attention)")
        dense = [n for n in capture.layers if n not in limits.router_layers]
        if site == "router" and dense:
            raise _Refused(f"site='router' does not exist in layer {dense[0]}, which is dense")
    if capture.reduction not in ("none", "mean", "sum", "projection", "moments"):
        raise _Refused(f"reduction={capture.reduction!r} does not exist")
    if capture.reduction == "projection" and not capture.bank:
        raise _Refused("capture.bank is empty; projection needs at least one vector")
    if capture.reduction in ("projection", "moments") and set(capture.sites) & {
        "router",
        "mla_latent",
    }:
        raise _Refused(f"reduction={capture.reduction!r} reads residual-wide sites only")
    for key in capture.bank:
        _check_vector(key, bundle, limits)
    if capture.reduction == "moments" and not capture.moments_key:
        raise _Refused("capture.moments_key is empty; moments need a class to add to")
