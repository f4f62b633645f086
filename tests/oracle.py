"""Stock transformers with plain hooks: every site of a layer read, and changed by a formula.

Nothing here knows the engine. One sequence runs at a time, without a cache of ours, in float32 and
eager attention; steering is written from the formulas of the papers, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.request import Request, Result, Steering

Change = Any
"""Callable[[str, int, Tensor], None]: may edit ``[N, D]`` rows of (site, layer) in place."""


def steered_positions(entry: Steering, prompt_length: int, length: int) -> list[int]:
    """Positions that an entry touches, by the words of its documentation."""
    kind, _, rest = entry.positions.partition(":")
    if kind == "all":
        return list(range(length))
    if kind == "prompt":
        return list(range(min(prompt_length, length)))
    if kind == "response":
        return list(range(prompt_length, length))
    if kind == "from":
        start = int(rest) if int(rest) >= 0 else prompt_length + int(rest)
        return list(range(start, length))
    return [int(p) for p in rest.split(",") if int(p) < length]


def steer_row(h: np.ndarray, entry: Steering, vector: np.ndarray) -> np.ndarray:
    """One row after one operator, float64."""
    h, v, c = h.astype(np.float64), vector.astype(np.float64), entry.coefficient
    unit = v / np.linalg.norm(v)
    along = float(h @ unit)
    if entry.operator == "add":
        return h + c * v
    if entry.operator == "add_norm_matched":
        return h + c * np.linalg.norm(h) * v
    if entry.operator == "ablate":
        return h - c * along * unit
    if entry.operator == "floor":
        return h + (max(along, c) - along) * unit
    return h + (min(along, c) - along) * unit


class _Steer:
    """Applies a request's entries in order wherever stock offers their place."""

    def __init__(self, request: Request, vectors: dict[str, np.ndarray]) -> None:
        self.request, self.vectors = request, vectors

    def __call__(self, site: str, layer: int, rows_ND: Tensor) -> None:
        for entry in self.request.steering:
            if (entry.site, entry.layer) != (site, layer):
                continue
            length = rows_ND.shape[0]
            for p in steered_positions(entry, self.request.prompt_length, length):
                changed = steer_row(rows_ND[p].numpy(), entry, self.vectors[entry.vector])
                rows_ND[p] = torch.from_numpy(changed).float()


@contextmanager
def hooks(model: Any, change: Change, read: Change):
    """Offer every place of every layer to ``change`` (in place), then to ``read``."""

    def at(site: str, layer: int, rows: Tensor) -> None:
        if change is not None:
            change(site, layer, rows)
        read(site, layer, rows)

    with ExitStack() as stack:

        def pre(module: Any, site: str, layer: int) -> None:
            def hook(_module: Any, args: Any, kwargs: Any) -> None:
                at(site, layer, (args[0] if args else kwargs["hidden_states"])[0])

            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

        def post(module: Any, site: str, layer: int) -> None:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                at(site, layer, (output[0] if isinstance(output, tuple) else output)[0])

            stack.callback(module.register_forward_hook(hook).remove)

        def router(module: Any, layer: int) -> None:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                for site, value in zip(
                    ("router", "router_weights", "router_experts"), output, strict=True
                ):
                    read(site, layer, value)

            stack.callback(module.register_forward_hook(hook).remove)

        for number, layer in enumerate(model.model.layers):
            pre(layer, "resid_pre", number)
            post(layer.self_attn, "attn_out", number)
            pre(layer.post_attention_layernorm, "resid_mid", number)
            post(layer.mlp, "mlp_out", number)
            post(layer, "resid_post", number)
            if hasattr(layer.mlp, "gate"):
                router(layer.mlp.gate, number)
        yield


@torch.inference_mode()
def forward(
    model: Any,
    ids: Sequence[int],
    request: Request | None = None,
    vectors: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """One whole sequence: (logits ``[N, V]``, every place's rows ``[N, D]``), steered as asked."""
    seen: dict[tuple[str, int], np.ndarray] = {}

    def read(site: str, layer: int, rows: Tensor) -> None:
        seen[site, layer] = rows.clone().numpy()

    change = _Steer(request, vectors or {}) if request and request.steering else None
    with hooks(model, change, read):
        output = model(torch.tensor([list(ids)]), use_cache=True)
    if hasattr(model.config, "kv_lora_rank"):  # stock caches the latents themselves
        for number, cached in enumerate(output.past_key_values.layers):
            both = torch.cat((cached.keys[0, 0], cached.values[0, 0]), dim=-1)
            seen["mla_latent", number] = both.numpy()
    return output.logits[0].numpy(), seen


@torch.inference_mode()
def generate(model: Any, ids: Sequence[int], count: int, **options: Any) -> tuple[int, ...]:
    """Stock greedy ``generate()`` of one prompt."""
    got = model.generate(
        torch.tensor([list(ids)]), max_new_tokens=count, do_sample=False, **options
    )
    return tuple(got[0, len(ids) :].tolist())


def greedy_continuation(logits: np.ndarray, prompt_length: int) -> tuple[int, ...]:
    """What greedy decoding chooses after each row from the prompt's last one.

    If it equals the completion that the logits were computed from, that completion is, token by
    token, what stock greedy decoding writes.
    """
    return tuple(int(t) for t in logits[prompt_length - 1 : -1].argmax(-1))


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest value."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-9))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the flattened arrays."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def worst_site(
    result: Result, seen: dict[tuple[str, int], np.ndarray]
) -> tuple[float, str, int, int]:
    """(largest relative error, its site and layer, places compared) of a result's kept rows.

    The order of a row's chosen experts has no meaning.
    """
    errors = []
    for reading in result.captures:
        for site, block in reading.values.items():
            for got, layer in zip(block, reading.layers, strict=True):
                want = seen[site, layer][reading.positions]
                if site.startswith("router_"):
                    got, want = np.sort(got, axis=1), np.sort(want, axis=1)
                errors.append((relative_error(got, want), site, layer))
    return (*max(errors), len(errors))
