"""Settings of the stages: what is read, fitted, steered, captured, and how work is cut up.

Sections of ``conf.schema.JobConfig``; every job has all of them and uses those of its stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ExtractionConfig:
    """How directions are found."""

    num_pairs: int | None = None
    """Use the first so many scenario pairs of each trait; None: all."""
    samples: int = 1
    """Completions of each prefix."""
    max_new_tokens: int = 16
    """Length of a completion; the judge reads all of it."""
    temperature: float = 0.0
    """0 is greedy."""
    tokens: str = "response[:5]"
    """Which tokens' activations are averaged: frame[slice], frame prompt, response or all."""
    site: str = "resid_post"
    """Place in the layer that is read and later steered."""
    held_out: float = 0.25
    """Share of the pairs kept from fitting, for evaluation."""
    vetting: bool = True
    """True lets the judge drop responses that do not show their side of the pair."""
    positive_min: float = 60.0
    """Vetting: lowest trait score that a positive response needs, 0 to 100."""
    negative_max: float = 40.0
    """Vetting: highest trait score that a negative response may have, 0 to 100."""
    min_passed: int = 6
    """Fewer usable training responses on either side fail the trait."""


@dataclass
class SteeringConfig:
    """How directions are tried out."""

    coefficient_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 1.25])
    """Used when ``coefficient`` is null: multiples of the layer's mean residual norm."""
    controls: list[str] = field(default_factory=lambda: ["negated", "random"])
    """Run beside the trait vector: its negative, and a random vector of the same norm."""
    num_questions: int | None = None
    """Use the first so many steering questions of each trait; None: all."""
    samples: int = 4
    """Answers to each question."""
    max_new_tokens: int = 24
    """Length of an answer."""
    temperature: float = 0.8
    """0 is greedy; samples then differ in nothing."""
    operator: str = "add"
    """add, add_norm_matched or ablate."""
    positions: str = "all"
    """Token rows that are steered: all, prompt, response, from:K or at:1,5."""
    coherence_gate: float = 70.0
    """A cell whose mean coherence is lower cannot be the best, 0 to 100."""


@dataclass
class CaptureConfig:
    """What is read while a prompt set is answered."""

    sites: list[str] = field(default_factory=lambda: ["resid_post"])
    """Places in each layer."""
    tokens: str = "all"
    """Which tokens: frame[slice], or all."""
    max_new_tokens: int = 24
    """Length of the answers; 0 reads the prompts only."""
    temperature: float = 0.0
    """0 is greedy."""
    num_prompts: int | None = None
    """Use the first so many prompts of the set; None: all."""


@dataclass
class GenerateConfig:
    """What ``jobs.generate`` writes."""

    prompt: str | None = None
    """One prompt instead of the prompt set."""
    max_new_tokens: int = 64
    """Length of a completion."""
    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus sampling; 1 keeps all tokens."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    samples: int = 1
    """Completions of each prompt."""


@dataclass
class ScheduleConfig:
    """How work is cut up and what is tried again."""

    bundle_requests: int = 256
    """Requests in one bundle, the unit of retry."""
    cpu_workers: int = 2
    """Threads that judge, fit and write while the group generates."""
    max_unwritten: int = 64
    """Answered tasks that wait to be written; the groups pause above this."""
    max_unwritten_bytes: int = 4 * 1024**3
    """Captured values of answered tasks that wait to be written; the groups pause above this."""
    group_attempts: int = 2
    """Model groups a bundle may lose before it is split, and a single task before it is skipped."""
    bundles_per_group: int = 4
    """More ready bundles than this per group start another one, up to ``cluster.max_groups``."""
    idle_group_s: float = 60.0
    """A group beyond ``cluster.groups`` ends after so long without work."""
    judge_attempts: int = 3
    """Tries of one judge task."""
    progress_s: float = 5.0
    """Seconds between progress lines."""
    priority: int = 0
    """Of this job where a resident group serves several; higher goes first."""
