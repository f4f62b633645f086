"""What can be known to fail before Ray starts is refused here, from small files alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from actors.group_spec import Backend, GroupSpec
from actors.model.family import ModelFacts, check_model, kept_blocks, read_model_digest
from actors.request import EngineSpec
from conf.errors import UserError
from conf.resolve import JobRequest, extraction_request
from jobs.assemble import Identity
from jobs.layers import check_layers
from jobs.prompting import tokenizer_digest
from jobs.weight_files import check_weight_files
from jobs.work import EXTRACTED, MAIN


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model as several points may share it."""

    spec: EngineSpec
    facts: ModelFacts
    digest: str


def engine_spec(request: JobRequest) -> EngineSpec:
    """What a rank of this point's group loads."""
    model, cluster = request.config.model, request.config.cluster
    return EngineSpec(
        model_path=str(request.model_path.absolute()),
        weights=cast('Literal["checkpoint", "random"]', model.weights),
        random_seed=model.random_seed,
        dtype=cast('Literal["float32", "bfloat16"]', model.dtype),
        expert_weights=cast('Literal["auto", "fp8", "dequantized"]', model.expert_weights),
        device=cast('Literal["cpu", "cuda"]', cluster.device),
        tensor_parallel_size=cluster.tensor_parallel_size,
        max_batch_tokens=cluster.max_batch_tokens,
        max_batch_requests=cluster.max_batch_requests,
        page_size=cluster.page_size,
        kv_cache_bytes=cluster.kv_cache_bytes,
        max_sequence_tokens=cluster.max_sequence_tokens,
        cuda_graphs=cluster.cuda_graphs,
        trust_remote_code=model.trust_remote_code,
    )


def group_spec(request: JobRequest) -> GroupSpec:
    """Placement and time limits of this point's group."""
    cluster = request.config.cluster
    return GroupSpec(
        name=request.model_name,
        backend=cast("Backend", cluster.backend),
        cpus_per_rank=cluster.cpus_per_rank,
        gpus_per_rank=cluster.gpus_per_rank,
        threads_per_rank=cluster.threads_per_rank,
        one_node=cluster.one_node,
        autoscaling=cluster.autoscaling,
        place_timeout_s=cluster.place_timeout_s,
        start_timeout_s=cluster.start_timeout_s,
        load_timeout_s=cluster.load_timeout_s,
        straggler_timeout_s=cluster.straggler_timeout_s,
        stall_timeout_s=cluster.stall_timeout_s,
    )


def read_model(request: JobRequest) -> Model:
    """Check the model's folder against the request.

    Raises:
        UserError: The folder, the tensor-parallel size, a layer or a length does not fit.
    """
    spec = engine_spec(request)
    facts = check_model(spec)
    if spec.weights == "checkpoint":
        keeps = kept_blocks(spec, facts, spec.tensor_parallel_size) is not None
        check_weight_files(spec.model_path, facts, keeps_fp8=keeps)
    check_layers(request, facts.num_layers)
    config = request.config
    longest = most_tokens(facts, spec)
    for name, wanted in (
        ("extraction.max_new_tokens", config.extraction.max_new_tokens),
        ("steering.max_new_tokens", config.steering.max_new_tokens),
        ("capture.max_new_tokens", config.capture.max_new_tokens),
        ("generate.max_new_tokens", config.generate.max_new_tokens),
    ):
        if wanted >= longest:
            raise UserError(
                f"{name}={wanted} leaves no room for a prompt: model={request.model_name} holds "
                f"{longest} tokens; use fewer."
            )
    return Model(spec=spec, facts=facts, digest=read_model_digest(spec))


def most_tokens(facts: ModelFacts, spec: EngineSpec) -> int:
    """Tokens that one sequence may have, its answer included."""
    return min(facts.max_position, spec.max_sequence_tokens or facts.max_position)


def read_models(request: JobRequest) -> dict[str, Model]:
    """The models of a point by role; one, unless directions come from another model.

    Raises:
        UserError: A model does not fit the request, or the two do not fit each other.
    """
    models = {MAIN: read_model(request)}
    source = extraction_request(request)
    if source is None:
        return models
    other = read_model(source)
    for name, theirs, ours in (
        ("hidden_size", other.facts.hidden_size, models[MAIN].facts.hidden_size),
        ("num_layers", other.facts.num_layers, models[MAIN].facts.num_layers),
    ):
        if theirs != ours:
            raise UserError(
                f"extract_model={source.model_name} has {name} {theirs} and "
                f"model={request.model_name} has {ours}: a direction of one means nothing in the "
                "other; use two checkpoints of the same shape."
            )
    if other.digest != models[MAIN].digest or other.spec != models[MAIN].spec:
        models[EXTRACTED] = other
    return models


def experts_held(model: Model) -> str | None:
    """What the ranks' experts are held in: fp8 or the model's dtype; None for a dense model."""
    if not model.facts.num_experts:
        return None
    spec = model.spec
    blocks = kept_blocks(spec, model.facts, spec.tensor_parallel_size)
    return "fp8" if blocks else spec.dtype


def identity(request: JobRequest, model: Model, judge: str) -> Identity:
    """What the answers to this point depend on besides its settings."""
    return Identity(
        model_digest=model.digest,
        dtype=model.spec.dtype,
        experts=experts_held(model),
        tokenizer_digest=tokenizer_digest(request.model_path),
        num_layers=model.facts.num_layers,
        judge=judge,
    )
