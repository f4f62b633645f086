"""A composed configuration becomes a frozen request, or one sentence that says why not.

Everything that can be refused without the model's files is refused here, before Ray starts:
values outside their range, settings that contradict each other, empty selections.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.checks import check_groups, check_stages, one_of
from conf.errors import UserError
from conf.limits import check_ranges
from conf.schema import JOBS, METHODS, JobConfig, ModelConfig, TraitConfig

PROJECT = Path(__file__).resolve().parent.parent
LARGEST = 3e38
"""Coefficients above are infinite in float32."""
STEERS_NOTHING = ("extract", "capture", "project", "calibrate")
NEEDS_TRAIT = ("extract", "steer", "project", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One point of a sweep, checked; what the plan is made from."""

    job: str
    config: JobConfig
    """All settings, after checks; not modified any more."""
    traits: tuple[TraitConfig, ...]
    layers: tuple[int, ...] | Literal["all"] | None
    """As asked; None lets the job choose."""
    coefficients: tuple[float, ...] | None
    """None: ratios of each layer's residual norm."""
    methods: tuple[str, ...]
    model_path: Path
    model_name: str
    """Slug of the result folders."""
    run_dir: Path
    overrides: tuple[str, ...] = ()
    """What was typed, for the record of the point."""


def resolve(composed: DictConfig, overrides: Sequence[str] = ()) -> JobRequest:
    """Check a composed configuration and freeze it.

    Raises:
        UserError: A value is missing, outside its range or at odds with another.
    """
    try:
        config = cast("JobConfig", OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        if "missing mandatory value" in str(error):
            raise UserError(f"{error.full_key} has no value; give it one.") from error
        first = str(error).splitlines()[0]
        raise UserError(f"{error.full_key}: {first}; give it another value.") from error
    one_of("job", config.job, JOBS)
    check_ranges(config)
    check_groups(config)
    check_stages(config)
    traits = tuple(_checked_trait(t, config) for t in config.traits.values())
    layers = _layers(config.layer)
    methods = tuple(str(m) for m in _many(config.method, ("mean_difference", "probe")))
    if not methods:
        raise UserError(f"method=[] selects nothing; use one of {', '.join(METHODS)}.")
    for method in methods:
        one_of("method", method, METHODS)
    coefficients = _coefficients(config)
    if config.job in NEEDS_TRAIT and not traits:
        raise UserError(f"trait=[]: jobs.{config.job} needs at least one; use trait=anxiety.")
    _check_steering(config, layers, coefficients)
    path = _model_path(config.model)
    return JobRequest(
        job=config.job,
        config=config,
        traits=traits,
        layers=layers,
        coefficients=coefficients,
        methods=methods,
        model_path=path,
        model_name=_model_name(config.model, path),
        run_dir=_home("run_dir", config.run_dir),
        overrides=tuple(overrides),
    )


def _check_steering(config: JobConfig, layers: object, coefficients: object) -> None:
    """Refuse a coefficient that would do nothing, and steering without a place or a length."""
    if coefficients is not None and (config.job in STEERS_NOTHING or not config.traits):
        way_out = "use jobs.steer, or leave it out"
        if config.job == "generate":
            way_out = "add trait=anxiety and layer=3, or leave it out"
        raise UserError(
            f"coefficient={config.coefficient}: jobs.{config.job} steers nothing as asked; "
            f"{way_out}."
        )
    if config.job == "generate" and config.traits and (layers is None or coefficients is None):
        raise UserError(
            "layer=null or coefficient=null: steered generation needs both; "
            "add layer=3 coefficient=2, or leave trait out."
        )


def extraction_request(request: JobRequest) -> JobRequest | None:
    """The same request to the model in which directions are found, when that is another one.

    Raises:
        UserError: That model has no weights here.
    """
    model = request.config.extract_model
    if model is None:
        return None
    path = _model_path(model, "extract_model")
    return replace(
        request,
        config=replace(request.config, model=model, extract_model=None),
        model_path=path,
        model_name=_model_name(model, path),
    )


def _checked_trait(trait: TraitConfig, config: JobConfig) -> TraitConfig:
    """The trait cut to the pairs and questions asked for."""
    if trait.sign not in (1, -1):
        raise UserError(
            f"traits.{trait.name}.sign={trait.sign}: use 1 (steering raises the trait) or -1 "
            "(steering lowers it)."
        )
    pairs, questions = config.extraction.num_pairs, config.steering.num_questions
    for name, asked, there in (
        ("extraction.num_pairs", pairs, len(trait.pairs)),
        ("steering.num_questions", questions, len(trait.questions)),
    ):
        if asked is not None and not 1 <= asked <= there:
            raise UserError(f"{name}={asked}: trait={trait.name} has {there}; use 1 to {there}.")
    most, least = len(trait.pairs[:pairs]) * config.extraction.samples, config.extraction.min_passed
    if config.job != "generate" and least > most:
        raise UserError(
            f"extraction.min_passed={least}: trait={trait.name} has {most} responses on a side; "
            f"use 1 to {most}, or more extraction.samples."
        )
    if config.job != "generate" and len(trait.pairs[:pairs]) < 4:
        raise UserError(
            f"extraction.num_pairs={len(trait.pairs[:pairs])}: trait={trait.name} needs at least "
            "4 pairs, so that some can be held out."
        )
    return TraitConfig(
        name=trait.name,
        definition=" ".join(trait.definition.split()),
        rubric={key: " ".join(text.split()) for key, text in trait.rubric.items()},
        sign=trait.sign,
        pairs=trait.pairs[:pairs],
        questions=trait.questions[:questions],
    )


def _layers(asked: object) -> tuple[int, ...] | Literal["all"] | None:
    if asked is None or asked == "all":
        return asked
    if asked == ["all"]:
        return "all"
    layers: list[int] = []
    for item in _many(asked, ()):
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise UserError(
                f"layer={item} is not a layer; use a number from 0, a list such as [2,3], or all."
            )
        layers.append(item)
    if not layers:
        raise UserError("layer=[] selects nothing; use a number, a list such as [2,3], or all.")
    return tuple(sorted(set(layers)))


def _coefficients(config: JobConfig) -> tuple[float, ...] | None:
    if config.coefficient is None:
        return None
    found: list[float] = []
    for item in _many(config.coefficient, ()):
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
            raise UserError(
                f"coefficient={item} is not a number; use a length such as 2.5, or a list [1,2]."
            )
        if abs(item) > LARGEST:
            raise UserError(f"coefficient={item} is beyond float32; use one below {LARGEST:.0e}.")
        found.append(float(item))
    if not found:
        raise UserError("coefficient=[] selects nothing; use a number or a list such as [1,2].")
    return tuple(dict.fromkeys(found))


def _model_path(model: ModelConfig, place: str = "model") -> Path:
    if model.path is not None:
        if not model.path.strip():
            raise UserError(f"{place}.path is empty; give a folder with config.json.")
        return _home(f"{place}.path", model.path)
    if model.shipped is None:
        download = f"download {model.source} and " if model.source else ""
        raise UserError(
            f"{place}={model.name} has no weights here: {download}add {place}.path=DIR."
        )
    return PROJECT / model.shipped


def _home(field: str, folder: str) -> Path:
    """The folder, with ~ and ~user as the home they name."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{field}={folder} names the home of a user that is not here; write the path in full."
        ) from error


def _model_name(model: ModelConfig, path: Path) -> str:
    """The slug: the config's own name, unless a shipped model was replaced by a folder."""
    replaced = model.shipped is not None and model.path is not None
    name = path.name if replaced else model.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "model"


def _many(asked: object, default: Sequence[Any]) -> Sequence[Any]:
    if asked is None:
        return default
    return list(asked) if isinstance(asked, list | tuple) else [asked]
