"""Weights and cache are known to the byte from config.json alone, and agree with what is loaded."""

from __future__ import annotations

import dataclasses
import json

import pytest

from actors.engine.cache import cache_shape
from actors.engine.engine import CPU_CACHE_BYTES as ENGINE_CACHE_BYTES
from actors.model.family import read_model_facts
from actors.model.load import load_model
from actors.model.memory import (
    CPU_CACHE_BYTES,
    ITEM_BYTES,
    RankWeights,
    cache_values_per_token,
    rank_weights,
)
from actors.model.quantized import ExpertBlocks
from actors.request import EngineSpec
from tests.benchmarks.shapes import write_shape


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("model", ["toy_mla_path", "toy_gqa_path"])
def test_counted_weights_and_cache_are_those_that_a_rank_loads(model, size, request):
    path = str(request.getfixturevalue(model))
    facts = read_model_facts(path)
    spec = EngineSpec(model_path=path, tensor_parallel_size=size)
    local = load_model(spec, rank=0, world_size=size)
    item = ITEM_BYTES[spec.dtype]
    assert rank_weights(facts, size).total * item == local.weight_bytes
    in_engine = cache_shape(local).bytes_per_token(len(local.layers), item)
    assert cache_values_per_token(facts, size) * item == in_engine


DENSE = {
    "model_type": "qwen3",
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "vocab_size": 100,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"attention_bias": True}])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
def test_dense_models_are_counted_too(kind, changes, tmp_path):
    config = DENSE | changes | {"model_type": kind}
    if kind != "qwen3":
        config.pop("attention_bias", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = read_model_facts(str(tmp_path))
    spec = EngineSpec(model_path=str(tmp_path), weights="random")
    assert rank_weights(facts, 1).total * 4 == load_model(spec, rank=0, world_size=1).weight_bytes


def test_queries_without_a_latent_are_counted_too(toy_mla_path, tmp_path):
    config = json.loads((toy_mla_path / "config.json").read_text()) | {"q_lora_rank": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = read_model_facts(str(tmp_path))
    spec = EngineSpec(model_path=str(tmp_path), weights="random")
    assert rank_weights(facts, 1).total * 4 == load_model(spec, rank=0, world_size=1).weight_bytes


def test_a_large_batch_reads_all_experts_and_one_row_only_its_own():
    weights = RankWeights(embedding=7, shared=100, experts=800, active_share=0.25)
    assert weights.total == 907
    assert weights.read(1) == weights.per_token == 300
    assert weights.read(2) == 100 + 800 * (1 - 0.75**2)
    assert weights.read(100) == pytest.approx(900)


def test_a_shared_expert_beside_fp8_experts_is_read_once(tmp_path):
    """Its plain copy is held for what reads modules one by one, but no decode step reads it."""
    weights = RankWeights(
        embedding=7, shared=100, experts=800, active_share=0.25, fp8_bytes=900, unread=30
    )
    assert weights.held_bytes(2) == 2 * 107 + 900
    assert weights.read_bytes(1, 2) == 2 * 70 + 900 * 0.25
    path = write_shape("kimi_k2", tmp_path, 3)
    facts, blocks = read_model_facts(str(path)), ExpertBlocks((128, 128), (128, 128))
    for number, copies in ((1, 1), (2, 0)):
        config = {**facts.config, "n_shared_experts": number}
        found = rank_weights(dataclasses.replace(facts, config=config), 4, blocks)
        assert found.unread == 2 * copies * 3 * 7168 * 2048 // 4  # the first layer is dense


def test_kimi_k2_is_a_trillion_parameters_and_fits_sixteen_gpus_in_bfloat16(tmp_path):
    """1.03T parameters as published; 16 ranks hold 130 GB each, 8 would need twice that."""
    config = {
        "model_type": "kimi_k2",
        "num_hidden_layers": 61,
        "hidden_size": 7168,
        "vocab_size": 163840,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 384,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = read_model_facts(str(tmp_path))
    assert rank_weights(facts, 1).total == pytest.approx(1.026e12, rel=1e-3)
    assert rank_weights(facts, 1).per_token == pytest.approx(32.5e9, rel=0.03)
    assert rank_weights(facts, 16).total * 2 == pytest.approx(130e9, rel=0.02)
    assert cache_values_per_token(facts, 8) == 61 * 576


def test_the_engine_and_the_dry_run_agree_on_the_cache_of_a_cpu_rank():
    assert CPU_CACHE_BYTES == ENGINE_CACHE_BYTES
