"""A bad request is refused by name in one sentence, and its neighbours are answered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.engine.validate import Limits, check_bundle
from actors.request import Bundle, Capture, Steering
from tests import tiny
from tests.tiny import ask

LIMITS = Limits(
    num_layers=3,
    hidden_size=4,
    vocab_size=50,
    max_tokens=30,
    router_layers=frozenset({1, 2}),
    is_mla=False,
    can_decode_text=False,
)
VECTORS = {
    "good": np.ones(4, "f4"),
    "wide": np.ones(5, "f4"),
    "flat": np.ones((4, 1), "f4"),
    "huge": np.array([1e30, 1, 0, 0], "f4"),  # its length squared is beyond float32
    "broken": np.array([1, np.nan, 0, 0], "f4"),
}
NAN, INF = float("nan"), float("inf")


def _steer(**changes):
    return {
        "steering": (Steering(**{"layer": 1, "vector": "good", "coefficient": 1.0, **changes}),)
    }


def _read(**changes):
    return {"capture": (Capture(**{"layers": (1,), **changes}),)}


REFUSED = [
    ({"ids": ()}, "token_ids is empty"),
    ({"ids": (1, 50)}, "token_ids holds 50, outside the vocabulary of 50"),
    ({"ids": (-1,)}, "token_ids holds -1, outside the vocabulary of 50"),
    ({"ids": range(25), "new": 6}, "25 prompt and 6 new tokens are 31, but this engine holds 30"),
    ({"num_prompt_tokens": 4}, "num_prompt_tokens=4 is outside the 3 tokens given"),
    ({"num_prompt_tokens": -1}, "num_prompt_tokens=-1 is outside the 3 tokens given"),
    ({"temperature": -0.1}, "sampling.temperature=-0.1 must be 0 (greedy) or at least 0.0001"),
    ({"temperature": 1e-30}, "sampling.temperature=1e-30 must be 0"),
    ({"temperature": NAN}, "sampling.temperature=nan must be 0"),
    ({"temperature": INF}, "sampling.temperature=inf must be 0"),
    ({"top_k": -1}, "sampling.top_k=-1 must be 0 (all) to 1024"),
    ({"top_k": 1025}, "sampling.top_k=1025 must be 0 (all) to 1024"),
    ({"top_p": 0.0}, "sampling.top_p=0.0 must be above 0 and at most 1"),
    ({"top_p": 1.1}, "sampling.top_p=1.1 must be above 0 and at most 1"),
    ({"min_p": 2.0}, "sampling.min_p=2.0 must be between 0 and 1"),
    ({"repetition_penalty": 0.0}, "sampling.repetition_penalty=0.0 must be above 0"),
    ({"repetition_penalty": NAN}, "sampling.repetition_penalty=nan must be above 0"),
    ({"new": -1}, "sampling.max_new_tokens=-1 must be 0 or more"),
    ({"stop_strings": ("end",)}, "sampling.stop_strings needs a tokenizer"),
    ({"num_top_logprobs": 21}, "num_top_logprobs=21 must be 0 to 20"),
    ({"num_top_logprobs": -1}, "num_top_logprobs=-1 must be 0 to 20"),
    ({"logprob_token_ids": (3, 50)}, "logprob_token_ids holds 50, outside the vocabulary of 50"),
    (_steer(layer=3), "layer=3 does not exist; this model has layers 0 to 2"),
    (_steer(layer=-1), "layer=-1 does not exist"),
    (_steer(site="router"), "site='router' cannot be steered; use resid_pre"),
    (_steer(operator="multiply"), "operator='multiply' is not one of add"),
    (_steer(coefficient=NAN), "coefficient=nan is not finite"),
    (_steer(coefficient=-INF), "coefficient=-inf is not finite"),
    (_steer(vector="other"), "vector='other' is not among the bundle's vectors"),
    (_steer(vector="wide"), "vector='wide' has shape (5,), but the residual stream is 4 wide"),
    (_steer(vector="flat"), "vector='flat' has shape (4, 1)"),
    (_steer(vector="broken"), "vector='broken' holds values that are not finite"),
    (_steer(positions="at:7"), "positions='at:7' names 7, outside the sequence of at most 7"),
    (_steer(positions="from:-4"), "positions='from:-4' starts outside the sequence"),
    (_steer(positions="sometimes"), "positions='sometimes' is not one of all, prompt"),
    (_read(layers=()), "capture names no layer or no site"),
    (_read(sites=()), "capture names no layer or no site"),
    (_read(layers=(0, 3)), "layer=3 does not exist"),
    (_read(sites=("resid_post", "head")), "site='head' does not exist; use one of resid_pre"),
    (_read(sites=("mla_latent",)), "site='mla_latent' does not exist in this model"),
    (_read(layers=(1, 0), sites=("router",)), "site='router' does not exist in layer 0, which is"),
    (_read(tokens="prompt[]"), "tokens='prompt[]' is not of the form"),
    (_read(reduction="median"), "reduction='median' does not exist"),
    (_read(reduction="projection"), "capture.bank is empty"),
    (_read(reduction="projection", bank=("wide",)), "vector='wide' has shape (5,)"),
    (_read(reduction="projection", bank=("no",)), "vector='no' is not among the bundle's"),
    (
        _read(reduction="projection", bank=("good",), sites=("router",)),
        "reduction='projection' reads residual-wide sites only",
    ),
    (_read(reduction="moments"), "capture.moments_key is empty"),
    (
        _read(reduction="moments", moments_key="k", tokens="response[-3:]"),
        "reduction='moments' adds rows as they come, but tokens='response[-3:]' counts",
    ),
    (_read(reduction="moments", moments_key="k", tokens="all[:-1]"), "tokens='all[:-1]' counts"),
]


def _request(request_id, fields):
    fields = {"ids": (3, 4, 5), "new": 4, **fields}
    return ask(request_id, fields.pop("ids"), fields.pop("new"), **fields)


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_bad_request_is_refused_in_one_sentence_that_names_the_field(fields, said):
    bundle = Bundle(
        id="b",
        requests=(_request("good", {}), _request("bad", fields), _request("also", {})),
        vectors=VECTORS,
    )
    errors = check_bundle(bundle, LIMITS)
    assert list(errors) == ["bad"]
    message = errors["bad"].message
    assert message.startswith("request 'bad': ")
    assert said in message
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "\n" not in message
    assert errors["bad"].type == ("too_long" if "new tokens" in said else "invalid")


def test_all_that_is_good_is_let_in():
    fields = [
        {},
        {"ids": range(26), "new": 4},
        {"new": 0, "num_prompt_tokens": 0},
        {"temperature": 0.0001, "top_k": 1024, "top_p": 1.0, "min_p": 1.0},
        {"num_top_logprobs": 20, "logprob_token_ids": (0, 49)},
        _steer(coefficient=1e38, operator="ceiling", site="attn_out", positions="at:0,6"),
        _steer(vector="huge"),
        _read(layers=(2, 1), sites=("router",), reduction="mean"),
        _read(reduction="moments", moments_key="k", tokens="all"),
        _read(reduction="moments", moments_key="k", tokens="prompt[-3:]"),
        _read(reduction="projection", bank=("good", "good")),
    ]
    requests = tuple(_request(str(i), f) for i, f in enumerate(fields))
    assert check_bundle(Bundle(id="b", requests=requests, vectors=VECTORS), LIMITS) == {}


def test_an_empty_stop_string_is_refused_for_it_would_end_every_completion_at_once():
    limits = dataclasses.replace(LIMITS, can_decode_text=True)
    requests = (
        _request("good", {"stop_strings": ("end",)}),
        _request("bad", {"stop_strings": ("",)}),
    )
    errors = check_bundle(Bundle(id="b", requests=requests), limits)
    assert {i: e.message for i, e in errors.items()} == {
        "bad": "request 'bad': sampling.stop_strings holds an empty string, "
        "which every text contains."
    }


def test_an_id_that_is_used_twice_is_refused_since_draws_depend_on_it():
    bundle = Bundle(id="b", requests=tuple(_request(i, {}) for i in ("a", "b", "a")))
    errors = check_bundle(bundle, LIMITS)
    assert list(errors) == ["a"]
    assert "id is used twice in the bundle" in errors["a"].message


def test_refused_requests_get_an_error_result_and_the_others_their_answers():
    engine = tiny.engine(tiny.model_path("llama"))
    prompts = tiny.prompts(6, 20)
    good = [ask(i, p, 5) for i, p in enumerate(prompts)]
    far = Steering(layer=0, vector="good", coefficient=1.0)
    bad = [
        ask("vocabulary", (3, 161), 5),
        ask("context", range(3, 103), 500),
        ask("width", (3,), 5, steering=(Steering(layer=0, vector="v", coefficient=1.0),)),
        ask("layer", (3,), 5, capture=(Capture(layers=(9,)),)),
        ask("site", (3,), 5, capture=(Capture(layers=(0,), sites=("head",)),)),
        ask("position", (3,), 5, steering=(dataclasses.replace(far, positions="at:1,6"),)),
    ]
    mixed = [r for pair in zip(good, bad, strict=True) for r in pair]
    vectors = {"v": np.ones(7, "f4"), "good": np.ones(96, "f4")}
    reply = tiny.run(engine, mixed, vectors)
    alone = tiny.run(engine, good)
    assert [r.id for r in reply.results] == [r.id for r in mixed]
    assert [r.completion_ids for r in reply.results[::2]] == [
        r.completion_ids for r in alone.results
    ]
    said = {
        "vocabulary": "token_ids holds 161",
        "context": "this engine holds 512 tokens at most",
        "width": "the residual stream is 96 wide",
        "layer": "layer=9 does not exist",
        "site": "site='head' does not exist",
        "position": "positions='at:1,6' names 6, outside the sequence of at most 6",
    }
    for result in reply.results[1::2]:
        kind = "too_long" if result.id == "context" else "invalid"
        assert (result.finish_reason, result.error.type) == ("error", kind)
        assert said[result.id] in result.error.message
        assert result.completion_ids == result.captures == result.receipts == ()


def test_a_vector_that_was_refused_is_refused_again_and_one_that_passed_passes():
    vectors = ("good", "broken", "good", "broken", "absent", "absent")
    asked = [ask(str(i), (5, 6), 2, **_steer(vector=v)) for i, v in enumerate(vectors)]
    errors = check_bundle(Bundle(id="b", requests=tuple(asked), vectors=VECTORS), LIMITS)
    assert sorted(errors) == ["1", "3", "4", "5"]
    assert "'broken' holds values that are not finite" in errors["3"].message
    assert "'absent' is not among" in errors["5"].message
