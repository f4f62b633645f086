"""Experts that stay FP8 in memory stand for the same weights and answer alike, on any rank."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.model.block_scales import FP8
from actors.model.family import (
    check_model,
    kept_blocks,
    read_model_digest,
    read_model_facts,
)
from actors.model.fp8_experts import block_scaled
from actors.model.load import load_model
from actors.model.memory import RankWeights, rank_weights
from actors.model.quantized import SCALE_SUFFIX, expert_blocks
from conf.errors import UserError
from jobs.weight_files import check_weight_files
from tests import fp8, oracle, tiny
from tests.tiny import ask

ROUTED = ("deepseek_v3", "qwen3_moe")
BLOCK = (96, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Family -> (FP8 checkpoint, the weights meant); experts are a block and a third wide."""
    made = {}
    for name in ROUTED:
        config = tiny.configs()[name]
        config.moe_intermediate_size = 128
        folder = tmp_path_factory.mktemp(name)
        tiny.save_config(config, folder / "plain")
        made[name] = fp8.write(folder / "plain", folder, BLOCK)
    return made


def _numbers(experts, name):
    """Every expert's matrix, float32."""
    matrix = block_scaled(experts)[0 if name == "gate_up" else 1]
    return [matrix.expert(n, torch.float32) for n in range(matrix.shape[0])]


def _compare(quantized, meant, rank, world, **changes):
    got, want = (
        load_model(
            tiny.spec(path, tensor_parallel_size=world, expert_weights=kind, **changes),
            rank=rank,
            world_size=world,
        )
        for path, kind in ((quantized, "fp8"), (meant, "dequantized"))
    )
    seen = 0
    for ours, theirs in zip(got.layers, want.layers, strict=True):
        if not hasattr(ours.mlp, "experts"):
            continue
        assert ours.mlp.experts.gate_up_proj.dtype == FP8
        for name in ("gate_up", "down"):
            numbers = _numbers(ours.mlp.experts, name)
            for mine, whole in zip(
                numbers, getattr(theirs.mlp.experts, f"{name}_proj"), strict=False
            ):  # one more, if shared
                assert torch.equal(mine, whole), (name, rank, world)
                seen += 1
        if hasattr(theirs.mlp, "shared_experts"):
            shared = theirs.mlp.shared_experts
            both = torch.cat([shared.gate_proj.weight, shared.up_proj.weight])
            assert torch.equal(_numbers(ours.mlp.experts, "gate_up")[-1], both)
            down = _numbers(ours.mlp.experts, "down")
            assert torch.equal(down[-1], shared.down_proj.weight)
            assert torch.equal(ours.mlp.shared_experts.down_proj.weight, down[-1])
    assert seen >= 24
    return got


@pytest.mark.parametrize("name", ROUTED)
def test_every_rank_keeps_what_stands_for_its_part_of_the_weights(name, folders):
    for world in (1, 2, 4):
        for rank in range(world):
            held = _compare(*folders[name], rank, world)
            facts = held.facts
            spec = tiny.spec(folders[name][0], expert_weights="fp8")
            counted = rank_weights(facts, world, kept_blocks(spec, facts, world))
            assert counted.held_bytes(4) == held.weight_bytes
            assert counted.read_bytes(1, 4) < counted.read_bytes(9, 4) < counted.held_bytes(4)


def test_blocks_are_as_small_as_the_ranks_parts(folders):
    config = read_model_facts(str(folders["qwen3_moe"][0])).config
    assert expert_blocks(config, 128) == ((32, 64), (96, 64))
    assert expert_blocks(config, 32) == ((32, 64), (96, 32))
    assert expert_blocks(config, 16) is None  # columns of 16 are too few
    assert expert_blocks(config, 0) is None
    skipped = {**config["quantization_config"], "modules_to_not_convert": ["mlp.experts"]}
    assert expert_blocks({**config, "quantization_config": skipped}, 128) is None
    kimi = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert expert_blocks({"quantization_config": kimi}, 256) == ((128, 128), (128, 128))
    assert expert_blocks({"quantization_config": kimi}, 192) == ((64, 128), (128, 64))
    assert expert_blocks({}, 192) is None


def test_experts_in_one_tensor_are_kept_too(folders, tmp_path):
    plain = folders["qwen3_moe"][0].parent / "plain"
    quantized, meant = fp8.write(plain, tmp_path, (32, 64))  # no block is gate's and up's
    fused = tmp_path / "fused"
    fused.mkdir()
    (fused / "config.json").write_text((quantized / "config.json").read_text())
    tensors = load_file(quantized / fp8.WEIGHTS)
    for layer in {n.split(".mlp.")[0] for n in tensors if ".experts." in n}:
        for target, kinds in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
            for suffix in ("", SCALE_SUFFIX):
                parts = [
                    torch.cat(
                        [
                            tensors.pop(f"{layer}.mlp.experts.{e}.{k}_proj.weight{suffix}")
                            for k in kinds
                        ]
                    )
                    for e in range(6)
                ]
                tensors[f"{layer}.mlp.experts.{target}{suffix}"] = torch.stack(parts)
    save_file(tensors, fused / fp8.WEIGHTS, metadata={"format": "pt"})
    for rank in range(2):
        _compare(fused, meant, rank, 2)


@pytest.mark.parametrize("name", ROUTED)
def test_fp8_experts_say_what_stock_says_of_the_weights_meant(name, folders):
    quantized, meant = folders[name]
    requests = [ask(i, p, 24) for i, p in enumerate(tiny.prompts(6, 40))]
    got = tiny.run(tiny.engine(quantized, expert_weights="fp8"), requests).results
    stock = tiny.stock(meant)
    for request, result in zip(requests, got, strict=True):
        want = oracle.generate(stock, request.token_ids, 24)
        assert result.completion_ids == want[: len(result.completion_ids)]
        assert len(result.completion_ids) == 24 or result.completion_ids[-1] == 2


def _random(folder, rank, world, kind):
    spec = tiny.spec(
        folder, weights="random", expert_weights=kind, tensor_parallel_size=world, random_seed=3
    )
    return load_model(spec, rank=rank, world_size=world)


@pytest.mark.parametrize("name", ROUTED)
def test_random_experts_are_the_same_model_in_fp8_or_not(name, folders):
    """1, 2 and 4 ranks hold parts of the same weights, whether or not they keep them in FP8."""
    whole = _random(folders[name][0], 0, 1, "dequantized")
    layer = len(whole.layers) - 1
    want = whole.layers[layer].mlp.experts
    assert len(want.down_proj.unique()) < 256  # FP8 numbers
    for world in (1, 2, 4):
        width = 128 // world
        for rank in range(world):
            held = _random(folders[name][0], rank, world, "fp8").layers[layer].mlp
            mine = slice(rank * width, (rank + 1) * width)
            parts = [_numbers(held.experts, n) for n in ("gate_up", "down")]
            for e in range(6):
                gate, up = want.gate_up_proj[e].chunk(2)
                assert torch.equal(parts[0][e], torch.cat([gate[mine], up[mine]]))
                assert torch.equal(parts[1][e], want.down_proj[e][:, mine])
            if name == "deepseek_v3":
                shared = whole.layers[layer].mlp.shared_experts.down_proj.weight[:, mine]
                assert torch.equal(parts[1][6], shared)


def test_by_itself_a_gpu_keeps_fp8_experts_and_a_cpu_does_not(folders):
    path = folders["deepseek_v3"][0]
    facts = read_model_facts(str(path))
    on_gpu = tiny.spec(path, device="cuda", dtype="bfloat16")
    assert kept_blocks(on_gpu, facts, 4) == ((32, 64), (96, 32))
    assert kept_blocks(on_gpu, facts, 8) is None  # 16 columns
    assert kept_blocks(tiny.spec(path, device="cuda"), facts, 1) is None  # float32
    assert kept_blocks(tiny.spec(path), facts, 1) is None
    widened = tiny.spec(path, device="cuda", dtype="bfloat16", expert_weights="dequantized")
    assert kept_blocks(widened, facts, 1) is None


def test_what_cannot_be_kept_is_refused_by_name(folders):
    quantized, meant = folders["qwen3_moe"]
    with pytest.raises(UserError, match=r"expert_weights=fp8 does not fit .* 8 ranks could share"):
        check_model(tiny.spec(quantized, tensor_parallel_size=8, expert_weights="fp8"))
    with pytest.raises(UserError, match="announces no FP8 experts"):
        check_model(tiny.spec(meant, expert_weights="fp8"))
    check_model(tiny.spec(quantized, tensor_parallel_size=2, expert_weights="fp8"))


def test_experts_that_are_not_fp8_in_the_file_are_named(folders, tmp_path):
    quantized, meant = folders["qwen3_moe"]
    (tmp_path / "config.json").write_text((quantized / "config.json").read_text())
    tensors = load_file(meant / fp8.WEIGHTS)
    save_file(tensors, tmp_path / fp8.WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        load_model(tiny.spec(tmp_path, expert_weights="fp8"), rank=0, world_size=1)
    assert "mlp.experts.0.gate_proj.weight' in torch.float32" in str(caught.value)
    assert "set model.expert_weights=dequantized" in str(caught.value)


def test_an_expert_of_another_shape_is_named(folders, tmp_path):
    quantized, _ = folders["qwen3_moe"]
    config = json.loads((quantized / "config.json").read_text())
    config["moe_intermediate_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(load_file(quantized / fp8.WEIGHTS), tmp_path / fp8.WEIGHTS)
    with pytest.raises(UserError, match=r"with \(128, 72\) values for \(64, 72\)"):
        load_model(tiny.spec(tmp_path, expert_weights="fp8"), rank=0, world_size=1)


def test_weights_that_are_not_numbers_are_named(folders, tmp_path):
    quantized, _ = folders["qwen3_moe"]
    (tmp_path / "config.json").write_text((quantized / "config.json").read_text())
    tensors = load_file(quantized / fp8.WEIGHTS)
    name = "model.layers.1.mlp.experts.3.down_proj.weight"
    tensors[name].view(torch.uint8)[70, 127] = 0xFF
    save_file(tensors, tmp_path / fp8.WEIGHTS)
    load_model(
        tiny.spec(tmp_path, expert_weights="fp8", tensor_parallel_size=2), rank=0, world_size=2
    )
    with pytest.raises(UserError, match=r"in model\.layers\.1\.mlp\.experts that are not numbers"):
        load_model(
            tiny.spec(tmp_path, expert_weights="fp8", tensor_parallel_size=2), rank=1, world_size=2
        )


@pytest.mark.parametrize(
    ("entries", "is_kept"),
    [
        (["lm_head", "model.layers.1.mlp.gate", "gate", "model.layers.0"], True),
        (["model.layers.2"], False),
        (["model.layers.2.mlp"], False),
        (["mlp.shared_experts"], False),
        (["model.layers.1.mlp.experts"], False),
    ],
)
def test_a_layer_that_was_left_out_of_fp8_is_dequantized_with_the_rest(folders, entries, is_kept):
    facts = read_model_facts(str(folders["deepseek_v3"][0]))
    quant = {**facts.config["quantization_config"], "modules_to_not_convert": entries}
    config = {**facts.config, "quantization_config": quant}
    assert (expert_blocks(config, 128) is not None) == is_kept


def test_experts_that_are_not_all_fp8_are_refused_before_any_rank_starts(folders, tmp_path):
    quantized, meant = folders["deepseek_v3"]
    (tmp_path / "config.json").write_text((quantized / "config.json").read_text())
    tensors, plain = load_file(quantized / fp8.WEIGHTS), load_file(meant / fp8.WEIGHTS)
    name = "model.layers.2.mlp.shared_experts.up_proj.weight"
    tensors[name] = plain[name].bfloat16()
    beyond = "model.layers.3.mlp.experts.0.up_proj.weight"  # of no layer that is loaded
    tensors[beyond] = tensors[name].clone()
    del tensors[name + SCALE_SUFFIX]
    save_file(tensors, tmp_path / fp8.WEIGHTS, metadata={"format": "pt"})
    facts = read_model_facts(str(tmp_path))
    check_weight_files(str(tmp_path), facts)
    with pytest.raises(UserError) as caught:
        check_weight_files(str(tmp_path), facts, keeps_fp8=True)
    assert f"holds {name} in BF16" in str(caught.value)
    assert "set model.expert_weights=dequantized" in str(caught.value)
    check_weight_files(str(quantized), facts, keeps_fp8=True)


def test_a_gpu_that_knows_no_fp8_is_refused_by_name(folders, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    spec = tiny.spec(folders["qwen3_moe"][0], device="cuda", dtype="bfloat16")
    with pytest.raises(UserError, match=r"NVIDIA A100 cannot read; set model\.expert_weights"):
        load_model(spec, rank=0, world_size=1)


def test_random_experts_of_an_fp8_model_have_a_digest_of_their_own(folders):
    quantized, meant = folders["qwen3_moe"]
    spec = tiny.spec(quantized, weights="random")
    whole = hashlib.sha256((quantized / "config.json").read_bytes())
    whole.update(b"random/0/0.02/fp8")
    assert read_model_digest(spec) == whole.hexdigest()
    whole = hashlib.sha256((meant / "config.json").read_bytes())
    whole.update(b"random/0/0.02")
    assert read_model_digest(tiny.spec(meant, weights="random")) == whole.hexdigest()


def test_bytes_of_fp8_experts_by_hand():
    weights = RankWeights(embedding=7, shared=100, experts=800, active_share=0.25, fp8_bytes=900)
    assert weights.held_bytes(2) == 2 * 107 + 900
    assert weights.read_bytes(1, 2) == 2 * 100 + 225
    assert weights.read_bytes(2, 2) == 2 * 100 + 900 * (1 - 0.75**2)
    plain = replace(weights, fp8_bytes=0)
    assert (plain.held_bytes(2), plain.read_bytes(1, 2)) == (2 * 907, 2 * 300)
