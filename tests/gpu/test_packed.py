"""Packed INT4 experts are unpacked on a GPU to the bit, and answer as the weights meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import int4
from tests.gpu.test_fp8 import load, small_checkpoint
from tests.tiny import ask, run

pytestmark = pytest.mark.gpu


def test_a_packed_checkpoint_loads_and_answers_as_the_weights_meant(tmp_path: Path) -> None:
    packed, meant = (load(path) for path in int4.write(small_checkpoint(tmp_path), tmp_path, 32))
    wanted = dict(meant.model.module.named_parameters())
    for name, tensor in packed.model.module.named_parameters():
        assert torch.equal(tensor, wanted.pop(name)), name
    assert not wanted
    asked = [ask(i, range(3 + 9 * i, 40 + 11 * i), 12, ignore_eos=True) for i in range(8)]
    ours, theirs = (run(engine, asked).results for engine in (packed, meant))
    assert [r.completion_ids for r in ours] == [r.completion_ids for r in theirs]
    assert len({t for r in ours for t in r.completion_ids}) > 10
