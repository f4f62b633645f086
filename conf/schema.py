"""Every setting exists once, here, with its type, its default, its unit and its meaning.

The YAML files choose between these settings and never add one. A default is written here or, where
jobs differ, in the job's root config, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from conf.stages import (
    CaptureConfig,
    ExtractionConfig,
    GenerateConfig,
    ScheduleConfig,
    SteeringConfig,
)

JOBS = ("extract", "steer", "capture", "project", "generate", "calibrate", "pipeline")
METHODS = (
    "mean_difference",
    "paired_mean_difference",
    "normalised_mean_difference",
    "probe",
    "random",
)
GROUPS = ("model", "trait", "prompts", "cluster", "storage", "judge")


@dataclass
class ModelConfig:
    """Which weights, and in which arithmetic."""

    name: str = MISSING
    """Names the result folders; the weights' digest, not this, identifies results."""
    path: str | None = None
    """Folder with config.json, *.safetensors and the tokenizer. Overrides ``shipped``."""
    shipped: str | None = None
    """Folder inside this project, for models that come with it."""
    source: str = ""
    """Where the weights can be had; quoted when ``path`` is missing."""
    dtype: str = "bfloat16"
    """float32 or bfloat16: arithmetic of the forward pass."""
    expert_weights: str = "auto"
    """Experts of an FP8 checkpoint: fp8 keeps them so in memory, dequantized turns them into
    ``dtype`` as they are read (twice the memory). auto: fp8 on GPUs in bfloat16, where all experts
    are FP8 and the ranks' parts fit their blocks; GPUs before Ada and Hopper need dequantized."""
    weights: str = "checkpoint"
    """checkpoint, or random: random weights of this shape, to try a cluster without a download."""
    random_seed: int = 0
    """Seed of random weights."""
    trust_remote_code: bool = False
    """True lets the tokenizer run code from the model's folder."""


@dataclass
class ClusterConfig:
    """Where the model runs, and the limits of one model group."""

    name: str = MISSING
    """Names the group in the dashboard."""
    tensor_parallel_size: int = 1
    """Ranks that share one copy of the model; must divide its attention heads."""
    groups: int = 1
    """Copies of the model, each on ranks of its own, that work on one plan at once."""
    max_groups: int | None = None
    """More groups than ``groups``, up to so many, are started while the queue is long
    (``schedule.bundles_per_group``) and the cluster has room; None: no more than ``groups``."""
    device: str = "cpu"
    """cpu or cuda."""
    backend: str = "gloo"
    """gloo on CPU, nccl on GPUs."""
    resident: bool = False
    """True uses a group that stays loaded on the cluster (``traitmill group up``)."""
    idle_timeout_s: float = 1800.0
    """A resident group ends after so long without work; starting counts as work."""
    dashboard: bool = True
    """True serves the Ray dashboard on the loopback address while the job runs."""
    num_cpus: int | None = None
    """CPUs that a Ray started by the job offers; None: all of the machine's."""
    cpus_per_rank: float = 0.1
    """Ray CPUs reserved for each rank."""
    gpus_per_rank: int = 0
    """GPUs reserved for each rank; 1 with cuda."""
    threads_per_rank: int = 1
    """torch threads inside one rank."""
    one_node: bool = True
    """True packs the ranks on one node; False lets a group span nodes."""
    autoscaling: bool = False
    """True waits for nodes that are not up yet; False refuses at once."""
    place_timeout_s: float = 60.0
    """Seconds to wait for free resources."""
    start_timeout_s: float = 120.0
    """Seconds for the rank processes to come up and join."""
    load_timeout_s: float = 3600.0
    """Seconds for the weights."""
    straggler_timeout_s: float = 5.0
    """Seconds for which ranks may be late after the first, or all wait in collectives."""
    stall_timeout_s: float = 20.0
    """Seconds without progress on any rank before the group counts as hung."""
    max_batch_tokens: int = 2048
    """Prompt tokens in one forward at most; rows that decode come on top."""
    max_batch_requests: int = 256
    """Sequences decoded together at most."""
    page_size: int = 16
    """Tokens in one page of the KV cache."""
    kv_cache_bytes: int | None = None
    """KV cache per rank; None: 512 MiB on CPU, what is left of a GPU's memory."""
    max_sequence_tokens: int | None = None
    """Longer sequences are refused; None: the model's own limit."""
    cuda_graphs: bool = True
    """Replay captured decode steps on GPUs."""
    device_memory_bytes: int | None = None
    """Memory of one GPU, for the dry run; None asks this machine's GPUs, if it has any."""
    price_per_gpu_hour: float | None = None
    """Dollars for one GPU and hour, for the dry run and the report; None: no dollars are shown."""


@dataclass
class StorageConfig:
    """Where result files go besides ``run_dir``."""

    name: str = MISSING
    """Names the choice."""
    kind: str = "local"
    """local: nothing but ``run_dir``. s3: also a bucket (S3, R2 and others with that API)."""
    endpoint_url: str | None = None
    """Address of the bucket's API; None: AWS's own."""
    bucket: str | None = None
    """Bucket name."""
    prefix: str = ""
    """Key prefix in the bucket, without a leading slash."""
    region: str | None = None
    """Region name; R2 wants auto."""
    max_pending_bytes: int = 8 * 1024**3
    """Files written but not uploaded; writing waits above this."""
    upload_timeout_s: float = 600.0
    """Seconds for one file to reach the bucket, retries included."""


@dataclass
class JudgeConfig:
    """Who scores texts from 0 to 100."""

    name: str = MISSING
    """Names the judge in results."""
    kind: str = "lexicon"
    """lexicon (word lists, offline), endpoint (OpenAI-compatible) or local_model."""
    model: str | None = None
    """endpoint: model name. local_model: None uses the loaded model."""
    url: str | None = None
    """endpoint: base address, such as https://api.openai.com/v1."""
    scale: str = "hundred"
    """endpoint: hundred, or digit for servers whose tokenizer splits numbers into digits."""
    api_key_env: str = "TRAITMILL_JUDGE_API_KEY"
    """endpoint: environment variable that holds the key; the key itself is never a setting."""
    max_concurrency: int = 8
    """Calls under way at once."""
    requests_per_minute: float = 0.0
    """Rate limit; 0 sets none."""
    timeout_s: float = 60.0
    """Seconds for one call."""
    max_attempts: int = 4
    """Tries of one call before its score is null."""
    max_answer_chars: int = 2000
    """Longer texts are cut before judging."""
    usd_per_million_prompt_tokens: float = 0.0
    """Price, for the cost report."""
    usd_per_million_completion_tokens: float = 0.0
    """Price, for the cost report."""


@dataclass
class PairConfig:
    """Two first-person prefixes that differ in the trait, cut just before it shows."""

    positive: str = MISSING
    """The continuation shows the trait."""
    negative: str = MISSING
    """The continuation shows its absence."""


@dataclass
class TraitConfig:
    """One trait as data."""

    name: str = MISSING
    """Flat id, as the file is called."""
    definition: str = MISSING
    """What counts as the trait; the judge reads it."""
    rubric: dict[str, str] = field(default_factory=dict)
    """Judge's scale: high, mid, low, and what decides."""
    sign: int = 1
    """1: a positive coefficient raises the trait; -1: it lowers it, by steering against the
    direction from negative to positive, and the best cell is the one that lowers it most."""
    pairs: list[PairConfig] = field(default_factory=list)
    """Scenario pairs from which the direction is found."""
    questions: list[str] = field(default_factory=list)
    """Neutral questions answered under steering."""


@dataclass
class PromptItem:
    """One prompt of a set."""

    id: str = MISSING
    """Unique within the set."""
    text: str = MISSING
    """What the user says."""


@dataclass
class PromptsConfig:
    """A named prompt set, for capture, projection and calibration."""

    name: str = MISSING
    """Names the set in results."""
    description: str = ""
    """What the set is for."""
    chat: bool = True
    """True wraps each prompt in the model's chat template, if it has one."""
    prompts: list[PromptItem] = field(default_factory=list)
    """The prompts, in order."""


@dataclass
class JobConfig:
    """One command."""

    job: str = MISSING
    """Which job; set by the root config."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Group model."""
    extract_model: ModelConfig | None = None
    """Another choice of the group model: directions are found in it and used in ``model``; null
    finds them in ``model``."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Group cluster."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Group storage."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Group judge."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    """Group prompts."""
    traits: dict[str, TraitConfig] = field(default_factory=dict)
    """Filled by the group trait: ``trait=anxiety`` or ``trait=[anxiety,guilt]``."""
    layer: Any = None
    """Decoder layer, 0-based: one, a list, or all; null lets the job choose."""
    coefficient: Any = None
    """Length added to the residual stream along the unit direction: one or a list; null tries
    ``steering.coefficient_ratios`` of each layer's mean residual norm."""
    method: Any = None
    """mean_difference, paired_mean_difference or probe: one or a list; null: the first and last."""
    run_dir: str = "runs/default"
    """Folder of the results; all points of a sweep share it."""
    seed: int = 0
    """Seed of sampling, splits and random directions."""
    stream: bool = False
    """True prints each completion as it is written (generate only)."""
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    """How directions are found."""
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    """How directions are tried out."""
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    """What is read while a prompt set is answered."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """What jobs.generate writes."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How work is cut up and what is tried again."""


def register() -> None:
    """Put the schema where the root configs' defaults lists find it; safe to call twice."""
    ConfigStore.instance().store(name="job_schema", node=JobConfig)
