"""What a model group is asked and what it answers: plain frozen data, numpy at most.

Nothing here imports torch or Ray: the driver, the tests and a rank share one vocabulary. Steering
and capture travel inside each request and are applied by row, so no batching decision can give one
request's vector to another. An error is an answer too: it does not take its neighbours with it.

Positions are 0-based over the whole sequence (prompt then completion). Layers are 0-based;
``resid_post`` of layer i is the output of decoder block i, before any final norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Site = Literal[
    "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "router", "mla_latent"
]
Operator = Literal["add", "add_norm_matched", "ablate", "floor", "ceiling"]
Reduction = Literal["none", "mean", "sum", "projection", "moments"]
FinishReason = Literal["eos", "stop", "length", "error"]

STEERING_SITES: tuple[Site, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
CAPTURE_SITES: tuple[Site, ...] = (*STEERING_SITES, "router", "mla_latent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. The draw depends on (seed, request id, position) alone."""

    temperature: float = 0.0
    """0 is greedy; otherwise logits are divided by it."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the most likely one; 0 drops none."""
    repetition_penalty: float = 1.0
    """Divide positive (multiply negative) logits of tokens already present; 1 changes nothing."""
    seed: int = 0
    max_new_tokens: int = 64
    """Completion tokens at most; 0 only reads the given tokens (capture of known text)."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the completion, besides the model's own end-of-sequence ids."""
    stop_strings: tuple[str, ...] = ()
    """The completion ends as soon as its decoded text contains one of these."""
    ignore_eos: bool = False
    """True lets the completion run past the model's end-of-sequence ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """One intervention: at one layer and site, with one vector, on chosen positions."""

    layer: int
    vector: str
    """Key into ``Bundle.vectors``."""
    coefficient: float
    """``add``: multiplies the vector as stored. ``floor``/``ceiling``: the bound on the projection.
    ``add_norm_matched``: multiplies the row's own L2 norm (arXiv:2512.15674). ``ablate``: fraction
    of the component that is removed; 1 removes it all (arXiv:2406.11717)."""
    site: Site = "resid_post"
    operator: Operator = "add"
    positions: str = "all"
    """``all``, ``prompt``, ``response`` (completion tokens only), ``from:K`` (positions >= K; a
    negative K counts from the end of the prompt, so ``from:-1`` starts at its last token) or
    ``at:1,5,9``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One reading: which sites of which layers, at which tokens, reduced how."""

    layers: tuple[int, ...]
    sites: tuple[Site, ...] = ("resid_post",)
    tokens: str = "response[:]"
    """``frame[slice]`` with frame prompt, response or all and Python slice rules inside the frame:
    ``prompt[-1]``, ``response[:5]``, ``response[:]``; a bare ``all`` is ``all[:]``. A row is what
    the model makes of that token when it reads it; the last generated token is run for it too."""
    reduction: Reduction = "none"
    """``none``: every row. ``mean``: mean over the rows. ``sum``: sum and sum of squares.
    ``projection``: row . vector for each vector of ``bank``, per token. ``moments``: accumulated
    into the bundle's running class moments under ``moments_key``; the request returns counts."""
    bank: tuple[str, ...] = ()
    """``projection`` only: keys into ``Bundle.vectors``; applied at the layers captured."""
    moments_key: str = ""
    """``moments`` only: requests with the same key share one accumulator per layer and site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sequence to run."""

    id: str
    """Unique within the bundle; part of the sampling key, so it must not depend on batching."""
    token_ids: tuple[int, ...]
    """The prompt, or prompt and known completion when ``num_prompt_tokens`` is smaller."""
    num_prompt_tokens: int | None = None
    """Tokens of ``token_ids`` that are prompt; the rest count as response. None: all of them."""
    sampling: Sampling = field(default_factory=Sampling)
    steering: tuple[Steering, ...] = ()
    capture: tuple[Capture, ...] = ()
    num_top_logprobs: int = 0
    """Per completion token, this many most likely (id, log-probability) pairs; at most 20."""
    logprob_token_ids: tuple[int, ...] = ()
    """Named tokens whose log-probability is returned at every completion position."""

    @property
    def prompt_length(self) -> int:
        """Tokens that count as prompt."""
        return len(self.token_ids) if self.num_prompt_tokens is None else self.num_prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Requests that are scheduled together: the unit of retry, fixed by the plan."""

    id: str
    requests: tuple[Request, ...]
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Vector key -> float32 ``[width of the site]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringReceipt:
    """What one steering entry really did."""

    layer: int
    site: Site
    operator: Operator
    vector: str
    vector_sha256: str
    """Of the float32 little-endian bytes that the engine used."""
    coefficient: float
    num_rows: int
    """Token rows to which the operator was applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureResult:
    """One reading's values.

    ``values[site]`` is, with L layers, N selected tokens and D the site's width:
    ``none`` -> ``[L, N, D]`` in the model's dtype (bfloat16 as uint16 bit patterns); ``mean`` ->
    float32 ``[L, D]``; ``sum`` -> float32 ``[L, 2, D]`` (sum, sum of squares); ``projection`` ->
    float32 ``[L, N, V]``; ``moments`` -> empty. ``router`` gives three arrays: ``router`` (logits),
    ``router_experts`` (int32) and ``router_weights``.
    """

    layers: tuple[int, ...]
    tokens: str
    reduction: Reduction
    positions: NDArray[np.int32]
    """Positions of the N selected tokens."""
    values: dict[str, NDArray[np.generic]]
    dtype: str = "float32"
    """``bfloat16`` when ``values`` hold bit patterns."""
    held: tuple[int, ...] | None = None  # layers in ``values`` where ranks share rows; None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """Log-softmax(logits / temperature; 1 when greedy) at each of C completion positions, uncut."""

    chosen: NDArray[np.float32]
    """``[C]``"""
    top_ids: NDArray[np.int32]
    """``[C, K]``, most likely first."""
    top: NDArray[np.float32]
    """``[C, K]``"""
    named: NDArray[np.float32]
    """``[C, num logprob_token_ids]``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestError:
    """Why one request has no answer, in one sentence that names the field."""

    type: str
    """``invalid``, ``non_finite``, ``too_long`` or ``internal``."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds on the rank's clock since the bundle was received; never stored beside results."""

    first_token_s: float = 0.0
    finished_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One request's answer."""

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """Includes the end-of-sequence or stop token that ended it."""
    finish_reason: FinishReason
    captures: tuple[CaptureResult, ...] = ()
    receipts: tuple[SteeringReceipt, ...] = ()
    logprobs: Logprobs | None = None
    num_non_finite: int = 0
    """Captured values that were not finite; above 0 the result is an error."""
    error: RequestError | None = None
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMoments:
    """Running float64 moments of the rows collected under one ``moments_key``, layer and site."""

    key: str
    layer: int
    site: Site
    count: int
    mean: NDArray[np.float64]
    """``[D]``"""
    m2: NDArray[np.float64]
    """``[D]``, sum of squared deviations from the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole bundle's answer. Every rank computes it; rank 0 returns it, others the digest."""

    bundle_id: str
    results: tuple[Result, ...]
    """In the order of the bundle's requests."""
    moments: tuple[ClassMoments, ...] = ()
    digest: str = ""
    """sha256 over schedule steps and token ids; equal on all ranks or the bundle fails."""
    num_steps: int = 0
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One streamed token of one request."""

    request_id: str
    index: int
    """0-based within the completion."""
    token_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Everything that decides what a rank loads and how much memory it takes."""

    model_path: str
    """Folder with config.json (and safetensors unless ``weights`` is random)."""
    weights: Literal["checkpoint", "random"] = "checkpoint"
    random_seed: int = 0
    """``random`` only: the same seed gives the same whole model at any tensor-parallel size."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    expert_weights: Literal["auto", "fp8", "dequantized"] = "auto"  # of an FP8 checkpoint
    device: Literal["cpu", "cuda"] = "cpu"
    tensor_parallel_size: int = 1
    max_batch_tokens: int = 2048
    """Prompt tokens in one forward at most: longer prompts are prefilled in chunks of this. Decode
    rows come on top."""
    max_batch_requests: int = 256
    """Sequences decoded together at most."""
    page_size: int = 16
    """Tokens in one KV-cache page."""
    kv_cache_bytes: int | None = None
    """Per rank; None: 512 MiB on CPU, what is left of the GPU's memory otherwise."""
    max_sequence_tokens: int | None = None
    """Refuse longer sequences; None: the model's own limit."""
    cuda_graphs: bool = True
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Facts of a loaded model that the driver plans with."""

    model_type: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    max_position: int
    eos_ids: tuple[int, ...]
    dtype: str
    model_digest: str
    """sha256 over config and weight files' digests (or the random seed)."""
    num_pages: int
    page_size: int
    weight_bytes: int  # on this rank
