"""Stock transformers under tensor parallelism with random weights: what ours is measured against.

Weights are drawn per rank, so the model as a whole is not the engine's; speed does not depend on
it. Stock runs as its documentation says: ``DistributedConfig``, sdpa, grouped experts.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.distributed import DistributedConfig

STEPS = (8, 40)
PROMPT = 64


def build_stock(path: Path, device: torch.device) -> Any:
    """The shape in ``path`` as a stock bfloat16 model, sharded over all ranks."""
    from torch.distributed.tensor import DTensor

    config = AutoConfig.from_pretrained(path)
    options = {"experts_implementation": "grouped_mm"} if "moe_intermediate_size" in config else {}
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa", **options
        )
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world > 1:
        kind = type(model)
        plan, _, mesh = kind.prepare_distribute_model(DistributedConfig(tp_size=world))
        model = kind.maybe_distribute_model(model, plan, mesh)
    model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter.data
            _draw(local)
            if world > 1 and not isinstance(parameter, DTensor):
                dist.broadcast(local, 0)
        for name, buffer in model.named_buffers():
            if "inv_freq" not in name:
                buffer.zero_()
    _fill_rotary(model, config, device)
    return model.eval()


def _draw(local: Tensor) -> None:
    """Norms are one, everything else normal(0, 0.02), a slice at a time where it is large."""
    if local.ndim == 1:
        local.fill_(1.0)
        return
    for part in local if local.numel() > 1 << 30 else [local]:
        part.normal_(0, 0.02)


def _fill_rotary(model: nn.Module, config: Any, device: torch.device) -> None:
    """Rotary frequencies, which ``to_empty`` lost."""
    for module in model.modules():
        compute: Any = getattr(module, "compute_default_rope_parameters", None)
        if compute is not None and hasattr(module, "inv_freq"):
            module.inv_freq = compute(config, device=device)[0].to(device)
            module.original_inv_freq = module.inv_freq


def _prompts(model: Any, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, model.config.vocab_size, (count, PROMPT), generator=generator)


def _wait() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
    return time.perf_counter()


@torch.inference_mode()
def generate_ms(model: Any, rows: int) -> float:
    """Milliseconds per step of ``generate()``: a long call minus a short one."""
    ids = _prompts(model, rows).to(model.device)

    def seconds(steps: int) -> float:
        began = _wait()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        return _wait() - began

    seconds(4)
    short, long = seconds(STEPS[0]), seconds(STEPS[1])
    return 1e3 * (long - short) / (STEPS[1] - STEPS[0])


@torch.no_grad()  # its own thread writes tensors made here, which inference mode forbids
def continuous_s(model: Any, count: int = 256, new: int = 64) -> float | str:
    """Seconds of ``generate_batch`` for ``count`` prompts of 64 tokens; why not, where it fails."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    config = GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    found = 0.0
    try:
        for _ in range(2):  # the first call compiles
            batching = ContinuousBatchingConfig(
                max_batch_tokens=2048,
                max_requests_per_batch=256,
                max_memory_percent=0.4,
                use_cuda_graph=torch.cuda.is_available(),
            )
            began = _wait()
            out = model.generate_batch(
                _prompts(model, count).tolist(),
                generation_config=config,
                continuous_batching_config=batching,
            )
            found = _wait() - began
    except Exception as error:  # noqa: BLE001 - whatever stops stock is the finding
        return f"{type(error).__name__}: {str(error)[:120]}"
    made = sum(len(answer.generated_tokens) for answer in out.values())
    return found if made == count * new else f"made {made} of {count * new} tokens"
