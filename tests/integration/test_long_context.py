"""One request of 33,000 tokens, read in chunks over paged keys, is what stock makes of it whole."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig

from actors.engine.engine import Engine
from actors.request import Capture, Reply, Steering
from tests import oracle, tiny, variants
from tests.tiny import ask

LENGTH, NEW = 33_000, 4
SMALL: dict[str, Any] = {
    **tiny.COMMON,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40_000,
}
SITES = ("resid_mid", "resid_post", "attn_out")
ROWS = "all[-1500:]"
"""Of several chunks, the last of them cut short, and of the new tokens."""
STEERING = (Steering(layer=0, vector="v", coefficient=1.5, positions=f"from:{LENGTH - 700}"),)
VECTORS = {"v": np.random.default_rng(3).normal(size=32).astype("f4")}


def _config(name: str) -> Any:
    if name == "llama":  # rotary angles of a long-context checkpoint
        scaling = {**variants.LLAMA3, "rope_theta": 500_000.0}
        return LlamaConfig(**SMALL, num_key_value_heads=1, head_dim=8, rope_parameters=scaling)
    latent = {**variants.LATENT, **SMALL, "kv_lora_rank": 8, "num_key_value_heads": 2}
    return DeepseekV3Config(
        # As wide as a key, or stock would write down all scores at once: 9 GB.
        **{**latent, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    )


@functools.cache
def _prompt() -> tuple[int, ...]:
    draw = random.Random(2)
    return tuple(draw.randrange(3, 161) for _ in range(LENGTH))


@functools.cache
def _path(name: str) -> Any:
    path = tiny.folder() / f"long-{name}"
    tiny.save_config(_config(name), path)
    return path


@functools.cache
def _engine(name: str) -> Engine:
    return tiny.engine(_path(name), page_size=64, kv_cache_bytes=24 << 20, max_batch_tokens=1024)


@functools.cache
def _reply(name: str) -> Reply:
    """The long request beside short ones that decode while it is read."""
    read = Capture(layers=(0, 1), sites=SITES, tokens=ROWS)
    requests = [ask(f"short{i}", p, 40, ignore_eos=True) for i, p in enumerate(tiny.prompts(3, 20))]
    requests.insert(
        1, ask("long", _prompt(), NEW, ignore_eos=True, capture=(read,), steering=STEERING)
    )
    return tiny.run(_engine(name), requests, VECTORS)


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama", "deepseek_v3"])
def test_33000_tokens_in_one_request_equal_stock_at_every_captured_row(name: str) -> None:
    reply = _reply(name)
    result = next(r for r in reply.results if r.id == "long")
    assert (result.error, len(result.completion_ids)) == (None, NEW)
    assert reply.num_steps > LENGTH // 1024
    stock = AutoModelForCausalLM.from_pretrained(
        _path(name), dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    request = ask("long", _prompt(), NEW, steering=STEERING)
    logits, seen = oracle.forward(stock, _prompt() + result.completion_ids, request, VECTORS)
    assert oracle.greedy_continuation(logits, LENGTH) == result.completion_ids
    assert result.captures[0].positions.tolist() == [*range(LENGTH + NEW - 1500, LENGTH + NEW)]
    error, site, layer, count = oracle.worst_site(result, seen)
    assert error <= 1e-4, (site, layer)
    assert count == 2 * len(SITES)
    assert result.receipts[0].num_rows == 700 + NEW
    for short in (r for r in reply.results if r.id != "long"):
        logits, _ = oracle.forward(stock, short.prompt_ids + short.completion_ids)
        want = oracle.greedy_continuation(logits, len(short.prompt_ids))
        assert (len(want), want) == (40, short.completion_ids)
