"""One checked point becomes the tasks it needs, in order; equal tasks of two points are one task.

What a stage builds on enters its question as task ids, so a change anywhere upstream gives new ids
downstream and nothing stale is ever taken for current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from actors.request import Site
from conf.resolve import JobRequest
from conf.schema import PromptItem, TraitConfig
from jobs.assemble_prompts import (
    calibrate_work,
    capture_works,
    chosen_prompts,
    completion_work,
)
from jobs.assemble_steering import project_work, steered_works
from jobs.layers import check_layers, middle_layers
from jobs.sources import dataset_digest, prompts_digest, sources
from jobs.stages import responses, steering
from jobs.stages.fitting import FitWork
from jobs.stages.judging import JudgeWork, VettingWork
from jobs.stages.projecting import Target
from jobs.stages.summary import SummaryWork
from jobs.task import NUMERICS, Json, make_task
from jobs.traits.sides import split_groups
from jobs.work import EXTRACTED, MAIN, Work


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What answers depend on besides the settings."""

    model_digest: str
    dtype: str
    tokenizer_digest: str
    num_layers: int
    judge: str
    """Name and version."""
    experts: str | None = None
    """fp8, ``dtype``, or None for a dense model."""

    @property
    def model(self) -> dict[str, Json]:
        """The part of every question that the model answers."""
        asked: dict[str, Json] = {
            "model": self.model_digest,
            "dtype": self.dtype,
            "tokenizer": self.tokenizer_digest,
            "engine": NUMERICS["engine"],
        }
        # Left out where experts are like the rest, so that this changes no other answer's name.
        return asked | ({"experts": self.experts} if self.experts == "fp8" else {})


def assemble(request: JobRequest, identity: Identity, source: Identity | None = None) -> list[Work]:
    """All work of one point, every task after those it waits for.

    Args:
        request: The point.
        identity: Of the model that is steered and read.
        source: Of the model that directions are found in; None: the same.
    """
    return _Assembly(request, identity, source).build()


class _Assembly:
    """Builds one point's work; each method returns the ids that later stages wait for."""

    def __init__(self, request: JobRequest, identity: Identity, source: Identity | None) -> None:
        self.request, self.identity = request, identity
        self.source = source or identity
        self.found_in = MAIN if source is None else EXTRACTED
        self.config = request.config
        self.all_layers = tuple(range(identity.num_layers))
        self.works: dict[str, Work] = {}

    def build(self) -> list[Work]:
        job = self.request.job
        check_layers(self.request, self.identity.num_layers)
        if job == "generate":
            self._generate()
        elif job in ("capture", "calibrate"):
            captures = self._capture(self._layers(self.all_layers))
            if job == "calibrate":
                self._calibrate(captures, self._layers(self.all_layers))
        else:
            self._traits()
        return list(self.works.values())

    def _traits(self) -> None:
        job = self.request.job
        steered = self._layers(middle_layers(self.identity.num_layers))
        fitted = steered if job == "steer" else self._layers(self.all_layers)
        if job == "pipeline":
            fitted = self.all_layers
        fits = {trait.name: self._extract(trait, fitted) for trait in self.request.traits}
        captures = self._capture(fitted) if job in ("pipeline", "project") else ()
        summaries: dict[str, str] = {}
        if job in ("pipeline", "steer"):
            for trait in self.request.traits:
                summaries[trait.name] = self._steer(trait, steered, fits[trait.name])
        if job in ("pipeline", "project"):
            for trait in self.request.traits:
                self._project(trait, fits[trait.name], captures, summaries.get(trait.name))

    def _layers(self, default: tuple[int, ...]) -> tuple[int, ...]:
        asked = self.request.layers
        if asked == "all":
            return self.all_layers
        return default if asked is None else asked

    def _add(self, work: Work, role: str = MAIN, data: Mapping[str, str] | None = None) -> str:
        before = [self.works[task].task for task in work.after]
        task = replace(work.task, sources=sources(work.task, before, data or {}))
        self.works.setdefault(task.id, replace(work, task=task, role=role))
        return task.id

    def _extract(self, trait: TraitConfig, layers: tuple[int, ...]) -> dict[Target, str]:
        settings, seed = self.config.extraction, self.config.seed
        data = dataset_digest(trait)
        _, held_out = split_groups(range(len(trait.pairs)), settings.held_out, seed=seed)
        answered = self._respond(trait, held_out, data)
        vetted = self._vet(trait, answered) if settings.vetting else ()
        fits: dict[Target, str] = {}
        for layer in layers:
            for method in self.request.methods:
                question: Mapping[str, Json] = {
                    "responses": answered,
                    "vetting": vetted,
                    "layer": layer,
                    "method": method,
                    "min_passed": settings.min_passed,
                    "seed": seed,
                    "fit": NUMERICS["fit"],
                    "evaluate": NUMERICS["evaluate"],
                }
                work = FitWork(
                    task=make_task("fit", f"fit {trait.name} layer {layer} {method}", question),
                    after=(*answered, *vetted),
                    trait=trait,
                    settings=settings,
                    layer=layer,
                    method=method,
                    seed=seed,
                    held_out=held_out,
                    responses=answered,
                    vetting=vetted,
                    dataset_digest=data,
                )
                fits[Target(layer, method)] = self._add(work, self.found_in)
        return fits

    def _respond(self, trait: TraitConfig, held_out: frozenset[int], data: str) -> tuple[str, ...]:
        """Both sides of the trait's scenario pairs."""
        settings, seed, answered = self.config.extraction, self.config.seed, []
        for polarity in responses.POLARITIES:
            asked = responses.question(trait, polarity, settings, seed=seed)
            label = f"responses {trait.name} {polarity}"
            work = responses.ResponsesWork(
                task=make_task("responses", label, {**self.source.model, **asked}),
                trait=trait,
                polarity=polarity,
                settings=settings,
                seed=seed,
                held_out=held_out,
                dataset_digest=data,
                site=cast("Site", settings.site),
            )
            answered.append(self._add(work, self.found_in, {trait.name: data}))
        return tuple(answered)

    def _vet(self, trait: TraitConfig, answered: tuple[str, ...]) -> tuple[str, ...]:
        settings = self.config.extraction
        question: Mapping[str, Json] = {
            "responses": answered,
            "judge": self.identity.judge,
            "definition": trait.definition,
            "rubric": trait.rubric,
            "positive_min": settings.positive_min,
            "negative_max": settings.negative_max,
            "version": NUMERICS["judge"],
        }
        task = make_task("vetting", f"vetting {trait.name}", question)
        vetting = VettingWork(task=task, after=answered, trait=trait, settings=settings)
        return (self._add(vetting, self.found_in),)

    def _steer(
        self, trait: TraitConfig, layers: tuple[int, ...], fits: Mapping[Target, str]
    ) -> str:
        settings, seed = self.config.steering, self.config.seed
        site = cast("Site", self.config.extraction.site)
        asked = steering.question(trait, settings, seed=seed)
        baseline = steering.AnswersWork(
            task=make_task("baseline", f"baseline {trait.name}", {**self.identity.model, **asked}),
            trait=trait,
            settings=settings,
            site=site,
            seed=seed,
        )
        data = {trait.name: dataset_digest(trait)}
        unsteered = self._add(baseline, data=data)
        judged = [self._judge(trait, unsteered, f"baseline {trait.name}")]
        answered: list[str] = []
        methods = self.request.methods
        if self.config.method is None:
            methods = methods[:1]
        for layer in layers:
            for method in methods:
                fit = fits[Target(layer, method)]
                for work in steered_works(
                    self.request, self.identity.model, trait, settings, Target(layer, method), fit
                ):
                    answered.append(self._add(work, data=data))
                    judged.append(self._judge(trait, answered[-1], work.task.label))
        summed: Mapping[str, Json] = {"judgements": judged, **steering.sign_question(trait)}
        task = make_task("summary", f"summary {trait.name}", summed)
        summed_up = SummaryWork(
            task=task,
            after=(*judged, *answered),
            trait=trait,
            site=site,
            judged=tuple(judged),
            answered=tuple(answered),
        )
        return self._add(summed_up)

    def _judge(self, trait: TraitConfig, answered: str, label: str) -> str:
        question: Mapping[str, Json] = {
            "answers": answered,
            "judge": self.identity.judge,
            "definition": trait.definition,
            "rubric": trait.rubric,
            "version": NUMERICS["judge"],
        }
        task = make_task("judging", f"judging {label}", question)
        return self._add(JudgeWork(task=task, after=(answered,), trait=trait))

    def _capture(self, layers: tuple[int, ...]) -> tuple[str, ...]:
        works = capture_works(self.request, self.identity.model, layers)
        prompts, num_prompts = self.config.prompts, self.config.capture.num_prompts
        data = {prompts.name: prompts_digest(prompts.name, prompts.prompts[:num_prompts])}
        return tuple(self._add(work, data=data) for work in works)

    def _calibrate(self, captures: tuple[str, ...], layers: tuple[int, ...]) -> None:
        self._add(calibrate_work(self.request, captures, layers))

    def _project(
        self,
        trait: TraitConfig,
        fits: Mapping[Target, str],
        captures: tuple[str, ...],
        summary: str | None,
    ) -> None:
        self._add(project_work(self.request, trait, fits, captures, summary))

    def _generate(self) -> None:
        items = chosen_prompts(self.request)
        if self.request.traits:
            self._generate_steered(items)
        else:
            work = completion_work(self.request, self.identity.model, items)
            data = {work.set_name: prompts_digest(work.set_name, items)}
            self._add(work, data=data)

    def _generate_steered(self, items: tuple[PromptItem, ...]) -> None:
        """The prompts take the place of the trait's questions; no controls, no judge."""
        settings = self.config.generate
        asked = replace(
            self.config.steering,
            controls=[],
            samples=settings.samples,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )
        layers = self._layers(self.all_layers)
        name = "prompt" if settings.prompt is not None else self.config.prompts.name
        data = {name: prompts_digest(name, items)}
        for trait in self.request.traits:
            fits = self._extract(trait, layers)
            on_prompts = replace(trait, questions=[item.text for item in items])
            for target, fit in fits.items():
                works = steered_works(
                    self.request, self.identity.model, on_prompts, asked, target, fit
                )
                for work in works:
                    self._add(work, data=data)
