"""Packed INT4 experts load as the weights that they stand for, whatever the rank's slice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.model.family import check_model, read_model_facts
from actors.model.load import load_model
from actors.model.packed_ints import unpack, words_part
from actors.model.quantized import packed_group
from conf.errors import UserError
from jobs.weight_files import check_weight_files
from tests import fp8, int4, tiny

EXPERT = "model.layers.1.mlp.experts.2.down_proj.weight"


@pytest.mark.parametrize(("start", "length"), [(0, 40), (0, 5), (5, 5), (7, 1), (8, 16), (13, 27)])
@pytest.mark.parametrize("group", [4, 12, 32])
def test_a_part_is_what_float64_makes_of_it(start, length, group):
    rng = np.random.default_rng(3)
    numbers = rng.integers(-8, 8, (6, 40))
    scales = torch.from_numpy(rng.random((6, -(-40 // group))) + 0.1).bfloat16()
    words = torch.from_numpy(int4.pack(numbers))[:, words_part(start, length)]
    groups = scales[:, start // group : -(-(start + length) // group)]
    got = unpack(words, groups, start, length, group)
    assert got.dtype == torch.float32
    spread = np.repeat(scales.double().numpy(), group, axis=1)[:, :40]
    want = (numbers * spread)[:, start : start + length]
    np.testing.assert_array_equal(got.numpy(), want)


def test_numbers_are_packed_as_published():
    """compressed-tensors 0.20 makes these words of these numbers (``pack_to_int32``)."""
    numbers = np.array([[-8, -7, -1, 0, 1, 6, 7, -8, 3, -3, 5, 2, -6, 4, -2, -4]])
    assert int4.pack(numbers).tolist() == [[266962704, 1187163483]]


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_moe"])
@pytest.mark.parametrize("group", [8, 12, 32])
def test_every_rank_holds_its_part_of_the_weights_meant(name, group, tmp_path):
    packed, meant = int4.write(tiny.model_path(name), tmp_path, group)
    for world in (1, 2, 8):
        for rank in range(world):
            got, want = (
                load_model(tiny.spec(p, tensor_parallel_size=world), rank=rank, world_size=world)
                for p in (packed, meant)
            )
            wanted = dict(want.module.named_parameters())
            for key, tensor in got.module.named_parameters():
                assert torch.equal(tensor, wanted.pop(key)), (key, rank, world)
            assert not wanted


def test_a_packed_checkpoint_says_what_stock_says_of_the_weights_meant(tmp_path):
    packed, meant = int4.write(tiny.model_path("deepseek_v3"), tmp_path, 32)
    check_weight_files(str(packed), read_model_facts(str(packed)))
    check_model(tiny.spec(packed))
    fp8.assert_answers_as_stock(packed, meant)


@pytest.fixture
def packed(tmp_path):
    """A packed checkpoint that a test may spoil."""
    return int4.write(tiny.model_path("deepseek_v3"), tmp_path, 32)[0]


def _spoil(folder, change):
    tensors = load_file(folder / fp8.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / fp8.WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        check_weight_files(str(folder), read_model_facts(str(folder)))
    return str(caught.value)


def test_missing_and_misshapen_scales_are_named_before_any_rank_starts(packed):
    scale = f"{EXPERT}_scale"
    cut = _spoil(packed, lambda t: t.update({scale: t[scale][:, :1].clone()}))
    assert f"holds BF16 scales [72, 1] for {EXPERT}" in cut
    assert "32: [72, 2] scales of floating point for group_size" in cut
    missing = _spoil(packed, lambda t: t.pop(scale))
    assert f"holds no scales [] for {EXPERT}" in missing


def test_integers_with_a_zero_of_their_own_are_refused(packed):
    zeros = {f"{EXPERT}_zero_point": torch.zeros(9, 2, dtype=torch.int32)}
    assert "says symmetric INT4 in groups of 32" in _spoil(packed, lambda t: t.update(zeros))


def test_packed_weights_that_config_json_does_not_announce_are_named(packed):
    path = packed / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    assert "says nothing of INT4 for quantization_config" in _spoil(packed, lambda _: None)
    with pytest.raises(UserError, match=r"holds packed weights .* of which its config"):
        load_model(tiny.spec(packed), rank=0, world_size=1)


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("weights", {"num_bits": 8}),
        ("weights", {"symmetric": False}),
        ("weights", {"type": "float"}),
        ("weights", {"strategy": "channel"}),
        ("weights", {"actorder": "group"}),
        ("weights", {"group_size": 0}),
        ("group", {"input_activations": {"num_bits": 8}}),
        ("group", {"format": "int-quantized"}),
        ("group", {"weights": None}),
        ("all", {"format": "marlin-24"}),
        ("all", {"kv_cache_scheme": {"num_bits": 8}}),
        ("all", {"sparsity_config": {"format": "sparse-24-bitmask"}}),
        ("all", {"config_groups": {}}),
        ("all", {"quant_method": "gptq"}),
    ],
)
def test_other_kinds_are_refused_by_name(where, changes, packed):
    path = packed / "config.json"
    config = json.loads(path.read_text())
    quant = config["quantization_config"]
    group = quant["config_groups"]["group_0"]
    assert packed_group(config) == 32
    {"weights": group["weights"], "group": group, "all": quant}[where].update(changes)
    path.write_text(json.dumps(config))
    assert packed_group(config) is None
    with pytest.raises(UserError, match=r"quantized as (compressed-tensors|gptq), which are not"):
        check_model(tiny.spec(packed))
