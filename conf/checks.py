"""Settings that contradict each other, or select nothing, are refused by name before Ray starts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from conf.describe import did_you_mean
from conf.errors import UserError
from conf.schema import ClusterConfig, JobConfig

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
OPERATORS = ("add", "add_norm_matched", "ablate")
_TOKENS = re.compile(r"^(prompt|response|all)(\[(-?\d+|(-?\d+)?:(-?\d+)?)\])?$")
_POSITIONS = re.compile(r"^(all|prompt|response|from:-?\d+|at:\d+(,\d+)*)$")
READS_PROMPTS = ("capture", "project", "calibrate", "pipeline")
ANY_LENGTH = 10**9
"""Tokens of a prompt, before any is read."""


def check_groups(config: JobConfig) -> None:
    """Refuse choices of model, cluster, judge, storage and prompts that cannot be met together.

    Raises:
        UserError: Names the setting, the value and the way out.
    """
    cluster, model = config.cluster, config.model
    for place, one in (("model", model), ("extract_model", config.extract_model or model)):
        one_of(f"{place}.dtype", one.dtype, ("float32", "bfloat16"))
        one_of(f"{place}.expert_weights", one.expert_weights, ("auto", "fp8", "dequantized"))
        one_of(f"{place}.weights", one.weights, ("checkpoint", "random"))
    one_of("cluster.device", cluster.device, ("cpu", "cuda"))
    one_of("cluster.backend", cluster.backend, ("gloo", "nccl"))
    one_of("judge.kind", config.judge.kind, ("lexicon", "endpoint", "local_model"))
    one_of("judge.scale", config.judge.scale, ("hundred", "digit"))
    one_of("storage.kind", config.storage.kind, ("local", "s3"))
    if cluster.device == "cuda" and cluster.gpus_per_rank == 0:
        raise UserError(
            "cluster.device=cuda with cluster.gpus_per_rank=0 leaves the ranks no GPU; use "
            "cluster.gpus_per_rank=1 cluster.backend=nccl, or cluster=h200x8."
        )
    if cluster.backend == "nccl" and cluster.device == "cpu":
        raise UserError("cluster.backend=nccl needs GPUs; use cluster.backend=gloo on the CPU.")
    _check_groups_of_ranks(cluster)
    if config.judge.kind == "endpoint" and not config.judge.url:
        raise UserError(
            "judge.url=null: judge=endpoint needs its address; add judge.url=https://..."
        )
    if config.storage.kind == "s3" and not config.storage.bucket:
        raise UserError("storage.bucket=null: storage.kind=s3 needs it; add storage.bucket=NAME.")
    if not config.run_dir.strip():
        raise UserError("run_dir is empty; give a folder, such as run_dir=runs/first.")
    _check_prompts(config)


def _check_prompts(config: JobConfig) -> None:
    typed = config.generate.prompt
    if typed is not None and not typed.strip():
        raise UserError("generate.prompt is empty; write a prompt, or leave it out for a set.")
    is_read = config.job in READS_PROMPTS or (config.job == "generate" and typed is None)
    if is_read and not config.prompts.prompts:
        raise UserError(
            f"prompts.prompts=[]: jobs.{config.job} needs at least one; use prompts=everyday."
        )
    seen: set[str] = set()
    for item in config.prompts.prompts:
        if not item.text.strip() or not item.id.strip():
            raise UserError(
                f"prompts={config.prompts.name} has a prompt {item.id!r} with an empty "
                f"{'text' if item.id.strip() else 'id'}; write one, or leave the prompt out."
            )
        if item.id in seen:
            raise UserError(
                f"prompts={config.prompts.name} has two prompts {item.id!r}; rename one."
            )
        seen.add(item.id)


def _check_groups_of_ranks(cluster: ClusterConfig) -> None:
    if cluster.max_groups is not None and cluster.max_groups < cluster.groups:
        raise UserError(
            f"cluster.max_groups={cluster.max_groups} is below cluster.groups={cluster.groups}; "
            "raise it, or leave it out."
        )
    if cluster.resident and (cluster.max_groups or cluster.groups) > 1:
        raise UserError(
            "cluster.resident=true is one group that is loaded already; leave cluster.groups and "
            "cluster.max_groups out, or set cluster.resident=false."
        )


def check_stages(config: JobConfig) -> None:
    """Refuse settings of the stages that name nothing or select nothing.

    Raises:
        UserError: Names the setting, the value and the way out.
    """
    found, steer = config.extraction, config.steering
    _matches("extraction.tokens", found.tokens, _TOKENS, "response[:5]")
    _matches("capture.tokens", config.capture.tokens, _TOKENS, "all")
    _selects("extraction", found.tokens, found.max_new_tokens)
    _selects("capture", config.capture.tokens, config.capture.max_new_tokens)
    _matches("steering.positions", steer.positions, _POSITIONS, "all")
    one_of("extraction.site", found.site, SITES)
    one_of("steering.operator", steer.operator, OPERATORS)
    if not config.capture.sites:
        raise UserError("capture.sites=[] selects nothing; use a list such as [resid_post].")
    for site in config.capture.sites:
        one_of("capture.sites", site, SITES)
    for control in steer.controls:
        one_of("steering.controls", control, ("negated", "random"))
    if not 0.0 < found.held_out < 1.0:
        raise UserError(
            f"extraction.held_out={found.held_out:g} is no share of the pairs; use a number "
            "between 0 and 1, such as 0.25."
        )
    for ratio in steer.coefficient_ratios:
        if not (math.isfinite(ratio) and ratio > 0):
            raise UserError(f"steering.coefficient_ratios has {ratio}; ratios are above 0.")
    if not steer.coefficient_ratios and config.coefficient is None:
        raise UserError("steering.coefficient_ratios=[] leaves no coefficient; give coefficient=X.")


def one_of(field: str, value: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among those known."""
    if value not in known:
        raise UserError(f"{field}={value} does not exist; {did_you_mean(value, known)}")


def _selects(section: str, tokens: str, num_new: int) -> None:
    """Refuse a selector that can take no token, whatever is written."""
    frame, _, part = tokens.rstrip("]").partition("[")
    length = num_new if frame == "response" else ANY_LENGTH
    if ":" in part:
        low, high = (int(end) if end else None for end in part.split(":"))
        is_empty = not range(length)[low:high]
    else:
        place = int(part) if part else 0
        is_empty = not -length <= place < length
    if is_empty:
        raise UserError(
            f"{section}.tokens={tokens} selects none of the tokens that {section}.max_new_tokens="
            f"{num_new} leaves; use response[:5], or more tokens."
        )


def _matches(field: str, value: str, pattern: re.Pattern[str], example: str) -> None:
    if not pattern.match(value):
        raise UserError(f"{field}={value} cannot be read; write it like {example}.")
