"""Experts that stay FP8 on a GPU answer as those of the weights that they stand for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from actors.engine.engine import Engine
from actors.kernels.route import Routing, route_rows
from actors.model.block_scales import FP8
from actors.model.fp8_experts import block_scaled
from actors.model.memory import rank_weights
from actors.model.quantized import ExpertBlocks
from actors.request import Bundle, Capture, EngineSpec, Reply
from tests import fp8
from tests.benchmarks.shapes import FP8 as ANNOUNCED
from tests.benchmarks.shapes import write_shape
from tests.gpu.test_fast import SMALL, agreement, bundle

pytestmark = pytest.mark.gpu
EVERY = {
    # All experts chosen: no near-tie of a router can send a token elsewhere.
    "kimi_k2": SMALL["kimi_k2, all experts"],
    "deepseek_v3": {**SMALL["kimi_k2, all experts"], "n_group": 2, "topk_group": 2},
    "qwen3_30b_a3b": {"num_experts": 8, "vocab_size": 20001},
}


def load(path: Path, **changes: Any) -> Engine:
    options: dict[str, Any] = {
        "dtype": "bfloat16", "device": "cuda", "kv_cache_bytes": 1 << 30, "max_batch_requests": 64,
    }  # fmt: skip
    spec = EngineSpec(model_path=str(path), **{**options, **changes})
    return Engine.load(spec, rank=0, world_size=1, process_group=None)


def in_every_way(engine: Engine, work: Bundle) -> dict[str, Reply]:
    """Answers in fused steps, in fused forwards alone, and by transformers' own modules."""
    found = {"steps": engine.run(work)}
    engine.fast = None
    found["rows"] = engine.run(work)
    engine.rows_forward = engine.forward
    found["modules"] = engine.run(work)
    return found


@pytest.mark.parametrize("name", EVERY)
def test_fp8_experts_agree_with_dequantized_ones(name: str, tmp_path: Path) -> None:
    path = write_shape(name, tmp_path, 4, quantization_config=ANNOUNCED, **EVERY[name])
    kept = load(path, weights="random")
    assert kept.fast is not None
    assert kept.model.layers[3].mlp.experts.down_proj.dtype == FP8
    work = bundle(kept.info.hidden_size)
    got = in_every_way(kept, work)
    del kept
    torch.cuda.empty_cache()
    wide = load(path, weights="random", expert_weights="dequantized")
    assert wide.model.layers[3].mlp.experts.down_proj.dtype == torch.bfloat16
    want = in_every_way(wide, work)
    # Rounding alone moves that many of a random model's near-ties, with one and the same weights.
    alike = min(agreement(want[way], want["steps"])[0] for way in ("rows", "modules"))
    for way in want:
        share, cosines = agreement(got[way], want[way])
        sys.stderr.write(
            f"{name} {way}: {cosines[:3]} of {len(cosines)}, {share:.3f} of tokens, {alike:.3f} "
            "of dequantized ones in another way\n"
        )
        assert len(cosines) > 12
        assert cosines[0] > 0.9998, (way, cosines)
        assert share > 0.8 * alike > 0.4, (way, share)


def test_a_forward_that_reads_routers_runs_fp8_experts(tmp_path: Path) -> None:
    changes = {**EVERY["kimi_k2"], "quantization_config": ANNOUNCED}
    engine = load(write_shape("kimi_k2", tmp_path, 3, **changes), weights="random")
    work = bundle(engine.info.hidden_size)
    both = (
        Capture(layers=(0, 1, 2), tokens="prompt[:]", reduction="mean"),
        Capture(layers=(1, 2), sites=("router",), tokens="prompt[-1]"),
    )
    asked = [replace(r, steering=(), capture=both[:1]) for r in work.requests]
    fused = engine.run(replace(work, requests=tuple(asked)))
    asked = [replace(r, capture=both) for r in asked]
    plain = engine.run(replace(work, requests=tuple(asked)))
    for a, b in zip(fused.results, plain.results, strict=True):
        u, v = (torch.from_numpy(r.captures[0].values["resid_post"]) for r in (a, b))
        assert torch.cosine_similarity(u, v, dim=-1).min() > 0.999
        assert b.captures[1].values["router_experts"].shape == (2, 1, 8)


def small_checkpoint(folder: Path) -> Path:
    """Three layers of the Kimi shape, much narrower, with float32 weights."""
    changes = {
        **EVERY["kimi_k2"], "hidden_size": 512, "intermediate_size": 1024, "vocab_size": 4001,
        "moe_intermediate_size": 256,
    }  # fmt: skip
    config = AutoConfig.from_pretrained(write_shape("kimi_k2", folder, 3, **changes))
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder / "plain")
    return folder / "plain"


def test_an_fp8_checkpoint_loads_and_answers_as_the_weights_meant(tmp_path: Path) -> None:
    quantized, meant = fp8.write(small_checkpoint(tmp_path), tmp_path, (128, 128))
    kept, want = load(quantized), load(meant)
    ours, theirs = (e.model.layers[2].mlp.experts for e in (kept, want))
    for number in (0, 7):
        numbers = block_scaled(ours)[1].expert(number, torch.bfloat16)
        assert torch.equal(numbers, theirs.down_proj[number])
    for engine, blocks in ((kept, ((128, 128), (128, 128))), (want, None)):
        counted = rank_weights(engine.model.facts, 1, blocks and ExpertBlocks(*blocks))
        assert engine.info.weight_bytes == counted.held_bytes(2)
    work = bundle(512)
    asked = [replace(r, token_ids=tuple(t % 4001 for t in r.token_ids),
                     capture=(replace(r.capture[0], layers=(0, 1, 2)),),
                     steering=tuple(replace(s, layer=s.layer % 3) for s in r.steering))
             for r in work.requests]  # fmt: skip
    work = replace(work, requests=tuple(asked))
    share, cosines = agreement(kept.run(work), want.run(work))
    sys.stderr.write(f"checkpoint: {cosines[:3]} of {len(cosines)}, {share:.3f} of tokens\n")
    assert cosines[0] > 0.9998
    assert share > 0.5


@pytest.mark.parametrize("rows", [1, 300])
def test_groups_of_experts_are_chosen_as_transformers_chooses_them(rows: int) -> None:
    config = DeepseekV3Config(  # DeepSeek-V3 as published
        n_routed_experts=256, n_group=8, topk_group=4, num_experts_per_tok=8, hidden_size=64,
        routed_scaling_factor=2.5,
    )  # fmt: skip
    torch.manual_seed(rows)
    router = DeepseekV3TopkRouter(config).cuda()
    torch.nn.init.normal_(router.weight)
    torch.nn.init.normal_(router.e_score_correction_bias, std=0.3)
    with torch.no_grad():
        logits, want, chosen = router(torch.randn(rows, 64, device="cuda"))
    bias = router.e_score_correction_bias
    ids, weights = route_rows(logits, bias, Routing(8, True, True, 2.5, 0, 8, 4))
    ours, theirs = ids.sort(dim=-1), chosen.sort(dim=-1)
    assert torch.equal(ours.values.long(), theirs.values)
    torch.testing.assert_close(
        weights.gather(-1, ours.indices), want.gather(-1, theirs.indices), rtol=1e-5, atol=1e-6
    )
