"""Tiny random models of every family, saved as real checkpoints, and one-rank or gloo engines."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from actors.engine.engine import Engine
from actors.request import Bundle, EngineSpec, Reply, Request, Sampling

COMMON: dict[str, Any] = {
    "vocab_size": 161,  # does not divide by 2, 4 or 8
    "hidden_size": 72,
    "intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.12,
}


def _yarn() -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    }


def configs() -> dict[str, Any]:
    """One small config of each family, with sizes that are odd where the family allows it."""
    mla = {
        "num_key_value_heads": 8,
        "moe_intermediate_size": 40,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 28,
        "kv_lora_rank": 20,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 12,
        "v_head_dim": 10,
        "routed_scaling_factor": 2.5,
        "num_mtp_layers": 0,
    }
    return {
        "deepseek_v3": DeepseekV3Config(**COMMON, **mla),
        "deepseek_v3_groups": DeepseekV3Config(
            **{**COMMON, **mla, "n_group": 2, "topk_group": 1, "q_lora_rank": None}
        ),
        "qwen3_moe": Qwen3MoeConfig(
            **COMMON,
            num_key_value_heads=2,
            head_dim=12,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=40,
            norm_topk_prob=True,
        ),
        "qwen3": Qwen3Config(
            **COMMON, num_key_value_heads=4, head_dim=12, tie_word_embeddings=True
        ),
        "llama": LlamaConfig(**{**COMMON, "hidden_size": 96}, num_key_value_heads=2),
        "mistral": MistralConfig(
            **{**COMMON, "hidden_size": 96}, num_key_value_heads=4, sliding_window=19
        ),
        # What real checkpoints of the same families add: long-context rotary, biases, mixed layers.
        "deepseek_v3_yarn": DeepseekV3Config(**COMMON, **mla, rope_parameters=_yarn()),
        "llama_biased": LlamaConfig(
            **{**COMMON, "hidden_size": 96},
            num_key_value_heads=4,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        ),
        "qwen3_windows": Qwen3Config(
            **COMMON,
            num_key_value_heads=8,
            head_dim=12,
            use_sliding_window=True,
            sliding_window=11,
            max_window_layers=1,
        ),
    }


FAMILIES = tuple(configs())
ROUTED = ("deepseek_v3", "deepseek_v3_groups", "deepseek_v3_yarn", "qwen3_moe")
LATENT = ("deepseek_v3", "deepseek_v3_groups", "deepseek_v3_yarn")


def save(name: str, folder: Path) -> Path:
    """Save a tiny model under ``folder/name`` (once) and return its path."""
    path = folder / name
    if not path.exists():
        save_config(configs()[name], path)
    return path


def save_config(config: Any, path: Path) -> None:
    """Save the seeded random model of a config."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if key.endswith("norm.weight"):
                tensor.copy_(1 + 0.2 * torch.randn_like(tensor))
            if key.endswith("bias"):
                tensor.copy_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(path)


@functools.cache
def folder() -> Path:
    """One scratch folder for the process, removed when it ends."""
    path = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def model_path(name: str) -> Path:
    """The checkpoint of a family in this process's scratch folder."""
    return save(name, folder())


def prompts(count: int, longest: int, seed: int = 1, shortest: int = 1) -> list[tuple[int, ...]]:
    """Random prompts without special tokens, lengths from ``shortest`` to ``longest``, both met."""
    draw = random.Random(seed)
    lengths = [shortest, longest, *(draw.randint(shortest, longest) for _ in range(count - 2))]
    return [tuple(draw.randrange(3, 161) for _ in range(n)) for n in lengths[:count]]


def ask(request_id: object, token_ids: Any, new: int = 8, **fields: Any) -> Request:
    """A request; sampling fields may be given beside the request's own."""
    names = {n for n in Sampling.__dataclass_fields__ if n in fields}
    sampling = Sampling(max_new_tokens=new, **{n: fields.pop(n) for n in names})
    return Request(id=str(request_id), token_ids=tuple(token_ids), sampling=sampling, **fields)


def run(an_engine: Engine, requests: Any, vectors: Any = None, on_token: Any = None) -> Reply:
    """Answer requests as one bundle."""
    bundle = Bundle(id="bundle", requests=tuple(requests), vectors=vectors or {})
    return an_engine.run(bundle, on_token)


@functools.cache
def stock_of(name: str) -> Any:
    """Stock model of a family, loaded once per process."""
    return stock(model_path(name))


def stock(path: Path, config: Any = None) -> Any:
    """The same checkpoint as plain transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(
        path, config=config, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def spec(path: Path, **changes: Any) -> EngineSpec:
    """An engine for a tiny model: small pages, small batches."""
    options: dict[str, Any] = {"page_size": 4, "kv_cache_bytes": 8 << 20, "max_batch_tokens": 256}
    return EngineSpec(model_path=str(path), **{**options, **changes})


def engine(path: Path, **changes: Any) -> Engine:
    """A one-rank engine in this process."""
    decode = changes.pop("decode", None)
    return Engine.load(
        spec(path, **changes), rank=0, world_size=1, process_group=None, decode=decode
    )


def _rank(rank: int, size: int, store: str, work: Callable[..., Any], args: Any, out: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    result = work(rank, size, *args)
    torch.save(result, f"{out}.{rank}")  # noqa: TID251  a test's own scratch file
    dist.destroy_process_group()


def run_ranks(size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Run ``work(rank, size, *args)`` in ``size`` gloo processes; their results in order.

    Ranks are forked from a server that has imported torch once: seconds less for each of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        processes = [
            context.Process(target=_rank, args=(r, size, f"{folder}/store", work, args, out))
            for r in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0, f"a rank ended with {process.exitcode}"
        return [torch.load(f"{out}.{r}", weights_only=False) for r in range(size)]
