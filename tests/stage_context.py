"""A context over a real run folder, with the stand-in model and the lexicon judge."""

from __future__ import annotations

from pathlib import Path

from actors.judges.lexicon import LexiconJudge
from actors.model.family import read_model_facts
from actors.request import Bundle
from conf.schema import PairConfig, TraitConfig
from jobs.finished import Finished
from jobs.prompting import Encoder
from jobs.task import Task
from jobs.work import Context
from storage.manifest import Run
from tests.standin import TRAIT, answer, make_model_folder


def open_context(folder: Path) -> Context:
    model = make_model_folder(folder / "standin")
    run = Run.open(folder / "run")
    return Context(
        run=run,
        model_name="standin",
        model_digest="d" * 64,
        facts=read_model_facts(str(model)),
        encoder=Encoder.load(model),
        judge=LexiconJudge(),
        provenance={"model": "standin"},
        finished=Finished(run),
    )


def anxiety(num_pairs: int = 12, num_questions: int = 3) -> TraitConfig:
    return TraitConfig(
        name="anxiety",
        definition=TRAIT["definition"],
        rubric=TRAIT["rubric"],
        pairs=[PairConfig(**pair) for pair in TRAIT["pairs"][:num_pairs]],
        questions=TRAIT["questions"][:num_questions],
    )


def task(name: str, kind: str) -> Task:
    return Task(name, kind, name, {"name": name})


def run_group_work(work, context: Context) -> None:
    """Ask the stand-in, write the answer, commit."""
    asked = work.ask(context)
    bundle = Bundle(id="b", requests=asked.requests, vectors=asked.vectors)
    results = [answer(request, bundle) for request in asked.requests]
    assert len(results) == work.num_requests
    context.commit(work.task, work.answer(context, results))


def run_cpu_work(work, context: Context) -> None:
    context.commit(work.task, work.compute(context))
