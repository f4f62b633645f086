"""Directions become tasks: answers under one of them, and projections of a prompt set onto them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from actors.request import Operator, Site
from conf.resolve import JobRequest
from conf.schema import TraitConfig
from conf.stages import SteeringConfig
from jobs.stages import steering
from jobs.stages.projecting import ProjectWork, Target
from jobs.task import NUMERICS, Json, make_task

_UNITS = {"add": "length", "add_norm_matched": "row_norm", "ablate": "fraction"}
"""What a coefficient that was asked for means, by operator."""


def steered_works(
    request: JobRequest,
    model: Mapping[str, Json],
    trait: TraitConfig,
    settings: SteeringConfig,
    target: Target,
    fit: str,
) -> list[steering.SteeredWork]:
    """One task for each coefficient of one direction."""
    config = request.config
    unit, coefficients = _UNITS[settings.operator], tuple(settings.coefficient_ratios)
    if request.coefficients is not None:
        coefficients = request.coefficients
    elif settings.operator == "add":
        unit = "residual_norm"
    works = []
    for coefficient in coefficients:
        question: Mapping[str, Json] = {
            **model,
            **steering.question(trait, settings, seed=config.seed),
            **steering.sign_question(trait),
            "fit": fit,
            "coefficient": coefficient,
            "unit": unit,
            "operator": settings.operator,
            "positions": settings.positions,
            "controls": list(settings.controls),
            "version": NUMERICS["steer"],
        }
        layer, method = target
        label = f"steering {trait.name} layer {layer} {method} {coefficient:g} {unit}"
        works.append(
            steering.SteeredWork(
                task=make_task("steering", label, question),
                after=(fit,),
                trait=trait,
                settings=settings,
                site=cast("Site", config.extraction.site),
                seed=config.seed,
                layer=layer,
                method=method,
                coefficient=coefficient,
                unit=unit,
                vector_task=fit,
                operator=cast("Operator", settings.operator),
            )
        )
    return works


def project_work(
    request: JobRequest,
    trait: TraitConfig,
    fits: Mapping[Target, str],
    captures: tuple[str, ...],
    summary: str | None,
) -> ProjectWork:
    """The captured prompt set on the best direction, or on those that were asked for."""
    config = request.config
    is_chosen = summary is not None or request.layers is None
    gate = config.steering.coherence_gate
    question: Mapping[str, Json] = {
        "prompts": config.prompts.name,
        "captures": captures,
        "fits": sorted(fits.values()),
        "summary": summary,
        "is_chosen": is_chosen,
        "gate": gate if summary else None,
        "version": NUMERICS["project"],
    }
    label = f"projection {trait.name} {config.prompts.name}"
    extra = () if summary is None else (summary,)
    return ProjectWork(
        task=make_task("projection", label, question),
        after=(*captures, *fits.values(), *extra),
        trait=trait,
        prompts=config.prompts.name,
        site=config.extraction.site,
        captures=captures,
        fits=dict(fits),
        summary=summary,
        is_chosen=is_chosen,
        coherence_gate=gate,
    )
