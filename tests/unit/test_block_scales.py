"""FP8 checkpoints load as the weights that they stand for, whatever the rank's slice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from actors.model.block_scales import dequantize, scales_part
from actors.model.family import check_model, read_model_facts
from actors.model.load import load_model
from actors.model.quantized import SCALE_SUFFIX
from conf.errors import UserError
from jobs.weight_files import check_weight_files
from tests import fp8, tiny

FAMILIES = ("deepseek_v3", "qwen3_moe", "llama")


@pytest.mark.parametrize("start", [(0, 0), (5, 0), (0, 9), (3, 13), (16, 8), (17, 20)])
def test_a_part_is_what_float64_makes_of_it(start):
    block = (8, 6)
    generator = torch.Generator().manual_seed(3)
    whole = torch.randn(37, 41, generator=generator).to(torch.float8_e4m3fn)
    scales = torch.rand(5, 7, generator=generator) + 0.1
    a, b = start
    part = whole[a : a + 11, b : b + 20]
    here = scales[scales_part(a, part.shape[0], 8), scales_part(b, part.shape[1], 6)]
    got = dequantize(part, here, start, block)
    assert got.dtype == torch.float32
    spread = np.kron(scales.double().numpy(), np.ones(block))[:37, :41]
    want = (whole.double().numpy() * spread)[a : a + 11, b : b + 20]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-7)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("block", [(16, 12), (128, 128)])
def test_every_rank_holds_its_part_of_the_weights_meant(name, block, tmp_path):
    quantized, meant = fp8.write(tiny.model_path(name), tmp_path, block)
    for world in (1, 2, 8):
        for rank in range(world):
            _are_equal(quantized, meant, rank, world)


def _are_equal(quantized, meant, rank, world):
    """A rank holds, bit for bit, what it holds of a checkpoint of the weights meant."""
    got, want = (
        load_model(tiny.spec(path, tensor_parallel_size=world), rank=rank, world_size=world)
        for path in (quantized, meant)
    )
    wanted = dict(want.module.named_parameters())
    assert wanted.keys() == dict(got.module.named_parameters()).keys()
    for key, tensor in got.module.named_parameters():
        assert torch.equal(tensor, wanted[key]), (key, rank, world)
    assert torch.equal(got.head_VD, want.head_VD)


def _fuse(tensors, layer, target, kinds):
    """Put the experts of one layer into one tensor, as transformers 5 holds them."""
    prefix = f"{layer}.mlp.experts"
    for suffix in ("", SCALE_SUFFIX):
        names = [[f"{prefix}.{e}.{kind}.weight{suffix}" for kind in kinds] for e in range(6)]
        if names[0][0] in tensors:
            parts = [torch.cat([tensors.pop(name) for name in expert]) for expert in names]
            tensors[f"{prefix}.{target}{suffix}"] = torch.stack(parts)


def test_experts_in_one_tensor_are_read_with_their_scales(tmp_path):
    folders = fp8.write(tiny.model_path("qwen3_moe"), tmp_path, (8, 12))  # 40 rows: 5 blocks each
    for folder in folders:
        tensors = load_file(folder / fp8.WEIGHTS)
        for layer in {n.split(".mlp.")[0] for n in tensors if ".experts." in n}:
            _fuse(tensors, layer, "gate_up_proj", ("gate_proj", "up_proj"))
            _fuse(tensors, layer, "down_proj", ("down_proj",))
        save_file(tensors, folder / fp8.WEIGHTS, metadata={"format": "pt"})
    for rank in range(4):
        _are_equal(*folders, rank, 4)


def test_the_weights_are_those_of_stock_where_its_blocks_divide_them(tmp_path):
    quantized, _ = fp8.write(tiny.model_path("deepseek_v3"), tmp_path, (4, 4))
    tensors = load_file(quantized / fp8.WEIGHTS)
    stock = Fp8Dequantize(None)
    model = load_model(tiny.spec(quantized), rank=0, world_size=1).module
    seen = 0
    for name, tensor in model.named_parameters():
        if name + SCALE_SUFFIX in tensors:
            want = stock._dequantize_one(tensors[name], tensors[name + SCALE_SUFFIX])
            assert torch.equal(tensor, want), name
            seen += 1
    assert seen > 10


def test_an_fp8_checkpoint_says_what_stock_says_of_the_weights_meant(tmp_path):
    quantized, meant = fp8.write(tiny.model_path("deepseek_v3"), tmp_path, (16, 12))
    fp8.assert_answers_as_stock(quantized, meant)


def test_bfloat16_weights_are_rounded_once(tmp_path):
    quantized, meant = fp8.write(tiny.model_path("llama"), tmp_path, (16, 16))
    got, want = (
        dict(load_model(tiny.spec(p, dtype=d), rank=0, world_size=1).module.named_parameters())
        for p, d in ((quantized, "bfloat16"), (meant, "float32"))
    )
    for name, tensor in got.items():
        assert torch.equal(tensor, want[name].bfloat16()), name


def _change(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"].update(changes)
    path.write_text(json.dumps(config))


@pytest.fixture
def quantized(tmp_path):
    """A llama in FP8 that a test may spoil."""
    return fp8.write(tiny.model_path("llama"), tmp_path, (16, 16))[0]


def _refusal(folder):
    with pytest.raises(UserError) as caught:
        check_weight_files(str(folder), read_model_facts(str(folder)))
    return str(caught.value)


def _spoil(folder, change):
    tensors = load_file(folder / fp8.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / fp8.WEIGHTS, metadata={"format": "pt"})


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def test_a_whole_fp8_checkpoint_is_let_in(quantized):
    check_weight_files(str(quantized), read_model_facts(str(quantized)))
    assert check_model(tiny.spec(quantized)).num_layers == 3


def test_missing_and_misshapen_scales_are_named_before_any_rank_starts(quantized):
    scales = Q_PROJ + SCALE_SUFFIX
    _spoil(quantized, lambda tensors: tensors.update({scales: tensors[scales][:-1].clone()}))
    said = _refusal(quantized)
    assert f"holds F32 scales [5, 6] for {Q_PROJ}" in said
    assert "[16, 16]: [6, 6] scales of floating point for weight_block_size" in said
    _spoil(quantized, lambda tensors: tensors.update({scales: torch.ones(6, 6, dtype=torch.uint8)}))
    assert f"holds U8 scales [6, 6] for {Q_PROJ}" in _refusal(quantized)
    _spoil(quantized, lambda tensors: tensors.pop(scales))
    assert f"holds no scales [] for {Q_PROJ}" in _refusal(quantized)


def test_fp8_weights_that_config_json_does_not_announce_are_named(quantized):
    path = quantized / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    assert "holds F8_E4M3 weights (model.layers." in _refusal(quantized)
    with pytest.raises(UserError, match="of which its config"):
        load_model(tiny.spec(quantized), rank=0, world_size=1)


def test_another_kind_of_fp8_is_named(quantized):
    _spoil(quantized, lambda t: t.update({Q_PROJ: t[Q_PROJ].float().to(torch.float8_e5m2)}))
    assert f"holds F8_E5M2 weights ({Q_PROJ})" in _refusal(quantized)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"weight_block_size": None}, "fp8 without weight_block_size"),
        ({"weight_block_size": [128]}, "fp8 without weight_block_size"),
        ({"weight_block_size": [128, 0]}, "fp8 without weight_block_size"),
        ({"weight_block_size": "128"}, "fp8 without weight_block_size"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    ],
)
def test_other_quantized_weights_are_refused_by_name(quantized, changes, kind):
    _change(quantized, **changes)
    with pytest.raises(UserError, match=f"holds weights quantized as {kind}, which are not"):
        check_model(tiny.spec(quantized))
    assert check_model(tiny.spec(quantized, weights="random")).num_layers == 3
