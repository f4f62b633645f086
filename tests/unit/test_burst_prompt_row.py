"""A prompt whose last chunk is one row gives it to its captures, though a burst could run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.request import Capture
from tests import tiny
from tests.reference_decoder import ReferenceDecoder

READ = (
    Capture(layers=(1,), tokens="prompt[-1]"),
    Capture(layers=(1,), tokens="prompt", reduction="mean"),
    Capture(layers=(1,), tokens="prompt", reduction="moments", moments_key="x"),
)


@pytest.mark.parametrize("read", READ, ids=lambda c: c.reduction)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("new", [0, 5])
def test_a_last_prompt_row_in_a_chunk_of_its_own_is_read(
    read: Capture, count: int, new: int, tmp_path: Path
) -> None:
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_tokens=24)
    engine.goes_ahead = True
    # alone: 24 + 1 rows. Two: 12 and 12 + 1 rows, so that the burst *follows* with a known row.
    lengths = (25,) if count == 1 else (12, 13)
    asked = [
        tiny.ask(
            i,
            range(3 + 30 * i, 3 + 30 * i + n),
            5 if i + 1 < count else new,
            capture=(read,),
            ignore_eos=True,
        )
        for i, n in enumerate(lengths)
    ]
    alone = tiny.run(engine, asked)
    engine.fast = ReferenceDecoder(engine)
    for _ in range(2):
        ours = tiny.run(engine, asked)
        for x, y in zip(ours.results, alone.results, strict=True):
            for a, b in zip(x.captures, y.captures, strict=True):
                assert a.positions.tolist() == b.positions.tolist()
                for site, v in a.values.items():
                    assert v.shape == b.values[site].shape
                    np.testing.assert_allclose(v, b.values[site], atol=1e-4)
        assert [m.count for m in ours.moments] == [m.count for m in alone.moments]
