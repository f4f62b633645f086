"""Packed INT4 experts are unpacked on a GPU to the bit, and answer as the weights meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests import int4
from tests.benchmarks.shapes import write_shape
from tests.gpu.test_fp8 import EVERY, load
from tests.tiny import ask, run

pytestmark = pytest.mark.gpu


def test_a_packed_checkpoint_loads_and_answers_as_the_weights_meant(tmp_path: Path) -> None:
    changes = {
        **EVERY["kimi_k2"], "hidden_size": 512, "intermediate_size": 1024, "vocab_size": 4001,
        "moe_intermediate_size": 256,
    }  # fmt: skip
    config = AutoConfig.from_pretrained(write_shape("kimi_k2", tmp_path, 3, **changes))
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "plain")
    packed, meant = (load(path) for path in int4.write(tmp_path / "plain", tmp_path, 32))
    wanted = dict(meant.model.module.named_parameters())
    for name, tensor in packed.model.module.named_parameters():
        assert torch.equal(tensor, wanted.pop(name)), name
    assert not wanted
    asked = [ask(i, range(3 + 9 * i, 40 + 11 * i), 12, ignore_eos=True) for i in range(8)]
    ours, theirs = (run(engine, asked).results for engine in (packed, meant))
    assert [r.completion_ids for r in ours] == [r.completion_ids for r in theirs]
    assert len({t for r in ours for t in r.completion_ids}) > 10
