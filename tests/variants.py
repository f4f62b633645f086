"""What real checkpoints of the five families vary: rotary scaling, routing, biases, head sizes.

Each is a tiny model as in ``tests.tiny``, saved as checkpoints of its kind are: config.json files
that were written before transformers 5 say ``rope_scaling`` and ``rope_theta``, and Kimi K2's says
a model type of its own.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from transformers import (
    DeepseekV3Config,
    DeepseekV32Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from actors.request import STEERING_SITES, Capture
from tests import tiny

WIDE: dict[str, Any] = {**tiny.COMMON, "hidden_size": 96}
LATENT: dict[str, Any] = {
    **tiny.COMMON,
    "num_key_value_heads": 8,
    "moe_intermediate_size": 40,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 28,
    "kv_lora_rank": 20,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "num_mtp_layers": 0,
}
ROUTED: dict[str, Any] = {
    **tiny.COMMON,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
}
KIMI_YARN: dict[str, Any] = {
    "type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 1.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN: dict[str, Any] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LEGACY: dict[str, tuple[float, dict[str, Any]]] = {
    "kimi_k2": (50_000.0, KIMI_YARN),
    "llama3_rope": (500_000.0, LLAMA3),
    "qwen3_yarn": (1_000_000.0, YARN),
    "llama_linear": (10_000.0, {"type": "linear", "factor": 4.0}),
}
"""Written with ``rope_theta`` and ``rope_scaling``."""


def _rope(name: str) -> dict[str, Any]:
    """The same scaling as transformers 5 writes it."""
    theta, scaling = LEGACY[name]
    rest = {k: v for k, v in scaling.items() if k != "type"}
    kind = scaling.get("rope_type") or scaling["type"]
    return {"rope_parameters": {**rest, "rope_type": kind, "rope_theta": theta}}


def configs() -> dict[str, Any]:
    """One config of each variant."""
    return {
        "kimi_k2": DeepseekV3Config(
            **{**LATENT, "routed_scaling_factor": 2.827, **_rope("kimi_k2")}
        ),
        "deepseek_groups_of_groups": DeepseekV3Config(
            **{
                **LATENT,
                "n_group": 4,
                "topk_group": 2,
                "norm_topk_prob": False,
                "n_shared_experts": 2,
                "attention_bias": True,
            }
        ),
        # No sequence of the tests is longer than what the indexer may choose.
        "deepseek_v32": DeepseekV32Config(
            **{**LATENT, "n_group": 4, "topk_group": 2},
            index_topk=256,
            index_n_heads=4,
            index_head_dim=16,
        ),
        "deepseek_halves": DeepseekV3Config(
            **{
                **LATENT,
                "rope_interleave": False,
                "first_k_dense_replace": 2,
                "q_lora_rank": None,
                "v_head_dim": 24,
                "tie_word_embeddings": True,
            }
        ),
        "qwen3_moe_mixed": Qwen3MoeConfig(
            **{**ROUTED, "norm_topk_prob": False, "attention_bias": True},
            mlp_only_layers=[1],
            tie_word_embeddings=True,
        ),
        "qwen3_moe_stepped": Qwen3MoeConfig(
            **{**ROUTED, "num_key_value_heads": 1, "norm_topk_prob": True},
            decoder_sparse_step=2,
            use_sliding_window=True,
            sliding_window=9,
        ),
        "qwen3_yarn": Qwen3Config(
            **tiny.COMMON,
            num_key_value_heads=2,
            head_dim=16,
            attention_bias=True,
            **_rope("qwen3_yarn"),
        ),
        "llama3_rope": LlamaConfig(
            **WIDE, num_key_value_heads=4, head_dim=16, **_rope("llama3_rope")
        ),
        "llama_linear": LlamaConfig(
            **WIDE, num_key_value_heads=1, tie_word_embeddings=True, **_rope("llama_linear")
        ),
        "mistral_whole": MistralConfig(
            **WIDE, num_key_value_heads=2, head_dim=10, sliding_window=None
        ),
        "mistral_short": MistralConfig(
            **WIDE, num_key_value_heads=8, sliding_window=3, tie_word_embeddings=True
        ),
    }


VARIANTS = tuple(configs())


def save(name: str, folder: Path) -> Path:
    """Save a variant under ``folder/name`` (once) and return its path."""
    path = folder / name
    if not path.exists():
        tiny.save_config(configs()[name], path)
        if name in LEGACY:
            _make_old(path, name)
    return path


def _make_old(path: Path, name: str) -> None:
    config = json.loads((path / "config.json").read_text())
    del config["rope_parameters"]
    config["rope_theta"], config["rope_scaling"] = LEGACY[name]
    if name == "kimi_k2":
        config["model_type"] = name
        config["auto_map"] = {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}
    (path / "config.json").write_text(json.dumps(config))


def model_path(name: str) -> Path:
    """The checkpoint of a variant in this process's scratch folder."""
    return save(name, tiny.folder())


@functools.cache
def stock_of(name: str) -> Any:
    """Stock model of a variant, told its config in transformers' own words."""
    return tiny.stock(model_path(name), configs()[name])


ROUTED_LAYERS: dict[str, tuple[int, ...]] = {
    "kimi_k2": (1, 2),
    "deepseek_groups_of_groups": (1, 2),
    "deepseek_v32": (1, 2),
    "deepseek_halves": (2,),
    "qwen3_moe_mixed": (0, 2),
    "qwen3_moe_stepped": (1,),
}


def is_latent(name: str) -> bool:
    """True where keys and values are cached as latents."""
    return hasattr(configs()[name], "kv_lora_rank")


def all_sites(name: str) -> tuple[Capture, ...]:
    """Captures of all that a variant offers, at all tokens."""
    found = [Capture(layers=(0, 1, 2), sites=STEERING_SITES, tokens="all")]
    if is_latent(name):
        found.append(Capture(layers=(0, 1, 2), sites=("mla_latent",), tokens="all"))
    if name in ROUTED_LAYERS:
        found.append(Capture(layers=ROUTED_LAYERS[name], sites=("router",), tokens="all"))
    return tuple(found)


def num_places(name: str) -> int:
    """Arrays of rows that ``all_sites`` gives."""
    routers = 3 * len(ROUTED_LAYERS.get(name, ()))
    return 3 * len(STEERING_SITES) + 3 * is_latent(name) + routers
