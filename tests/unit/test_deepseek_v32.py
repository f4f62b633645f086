"""DeepSeek-V3.2 is V3 as long as its indexer chooses every token; longer sequences are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from actors.engine.engine import Engine
from actors.model.family import check_model, read_model_facts
from conf.errors import UserError
from tests import oracle, tiny, variants
from tests.tiny import ask

CHOSEN = 24


def narrow(folder: Path, **changes: Any) -> Path:
    """The variant with an indexer that chooses few tokens."""
    path = folder / "narrow"
    shutil.copytree(variants.model_path("deepseek_v32"), path)
    config = json.loads((path / "config.json").read_text()) | {"index_topk": CHOSEN} | changes
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_sequence_of_as_many_tokens_as_are_chosen_equals_stock(tmp_path: Path) -> None:
    path = narrow(tmp_path)
    engine, stock = tiny.engine(path), tiny.stock(path)
    assert engine.info.max_position == CHOSEN
    prompts = [p[: CHOSEN - 6] for p in tiny.prompts(8, 40, seed=6)]
    reply = tiny.run(engine, [ask(i, p, 6) for i, p in enumerate(prompts)])
    for prompt, result in zip(prompts, reply.results, strict=True):
        assert list(result.completion_ids) == list(oracle.generate(stock, prompt, 6))
    assert max(len(r.prompt_ids) + len(r.completion_ids) for r in reply.results) == CHOSEN


def test_a_longer_one_is_refused_for_stock_would_answer_otherwise(tmp_path: Path) -> None:
    path = narrow(tmp_path)
    prompt = next(p for p in tiny.prompts(40, 200, seed=7) if len(p) > 4 * CHOSEN)
    refused = tiny.run(tiny.engine(path), [ask("long", prompt, 1)]).results[0].error
    assert refused is not None
    assert (refused.type, f"holds {CHOSEN} tokens at most" in refused.message) == ("too_long", True)
    sparse, _ = oracle.forward(tiny.stock(path), prompt)
    whole, _ = oracle.forward(variants.stock_of("deepseek_v32"), prompt)
    apart = np.abs(sparse - whole).max(axis=-1)
    assert apart[:CHOSEN].max() < 1e-5
    assert np.median(apart[CHOSEN:]) > 1e-2


def answer(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path), tensor_parallel_size=size),
        rank=rank,
        world_size=size,
        process_group=dist.group.WORLD,
    )
    return tiny.run(engine, [ask(i, p, 8) for i, p in enumerate(tiny.prompts(6, 60))])


def test_ranks_leave_the_indexer_out_and_agree() -> None:
    path = variants.model_path("deepseek_v32")
    alone = tiny.run(tiny.engine(path), [ask(i, p, 8) for i, p in enumerate(tiny.prompts(6, 60))])
    for reply in tiny.run_ranks(2, answer, str(path)):
        assert [r.completion_ids for r in reply.results] == [
            r.completion_ids for r in alone.results
        ]


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, CHOSEN),
        ({"index_topk": None}, 512),
        ({"index_topk": 4096, "max_position_embeddings": 1024}, 1024),
        ({"model_type": "deepseek_v3"}, 512),
    ],
)
def test_how_long_a_sequence_may_be(changes: Any, longest: int, tmp_path: Path) -> None:
    assert read_model_facts(str(narrow(tmp_path, **changes))).max_position == longest


def test_dense_layers_anywhere_but_in_front_are_refused(tmp_path: Path) -> None:
    path = narrow(tmp_path, mlp_layer_types=["dense", "sparse", "dense"])
    with pytest.raises(UserError, match="mlp_layer_types other than 1 dense layers"):
        check_model(tiny.spec(path))
    check_model(tiny.spec(variants.model_path("deepseek_v32")))
