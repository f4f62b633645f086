"""What a run's open tasks need besides weights is asked for before any GPU is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from actors.judges.http import why_silent
from actors.judges.spec import JudgeSpec
from conf.errors import UserError
from jobs.demand import Demands, judged_texts
from jobs.execution import Batch, load_encoder
from jobs.judges import judge_spec
from jobs.points import redact
from jobs.preflight import Model, most_tokens
from jobs.work import MAIN, GroupWork
from storage.layout import COMMITS

PATIENCE_S = 10.0
SHOWN = 40
"""Characters of a text that is too long."""


def check_open_tasks(batch: Batch, done: Collection[str]) -> None:
    """Refuse what would fail once the groups are up: texts no rank can take, a judge not there.

    Args:
        batch: Points and their plan.
        done: Tasks that are committed, of which nothing is asked.

    Raises:
        UserError: Names the text or the judge's address, and the way out.
    """
    check_texts(batch, done)
    works = (work for task, work in batch.plan.works.items() if task not in done)
    if any(judged_texts(work, batch.plan) for work in works):
        check_judge_answers(judge_spec(batch.points[0].config.judge))


def committed(batch: Batch) -> set[str]:
    """Tasks of the plan that the run folder has already."""
    folder = batch.run_dir / COMMITS
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.glob("*.json")} & set(batch.plan.works)


def check_texts(batch: Batch, done: Collection[str]) -> None:
    """Refuse a text that no rank could take; the tokenizer is kept with the batch.

    Raises:
        UserError: Names the first such text.
    """
    works = [work for task, work in batch.plan.works.items() if task not in done]
    for role, model in batch.models.items():
        mine = [work for work in works if isinstance(work, GroupWork) and work.role == role]
        known = batch.encoder if role == MAIN else None
        if mine:
            request = batch.request(role)
            encoder = known or load_encoder(request)
            demands = Demands(model.facts, model.spec.dtype, encoder)
            check_lengths(mine, demands, model, request.model_name)
            if role == MAIN:
                batch.encoder = encoder


def check_lengths(
    works: Iterable[GroupWork], demands: Demands, model: Model, model_name: str
) -> None:
    """Refuse a text that leaves no room for its answer.

    Raises:
        UserError: Names the first such text.
    """
    most = most_tokens(model.facts, model.spec)
    for work in works:
        found = demands.longest(work)
        if found.tokens + found.new_tokens > most:
            start = " ".join(found.text.split())[:SHOWN]
            raise UserError(
                f"{work.task.kind}: the text that begins {start!r} has {found.tokens} tokens, and "
                f"{found.new_tokens} new ones make more than the {most} that a sequence of "
                f"model={model_name} may have; shorten it, or lower {found.setting}."
            )


def check_judge_answers(judge: JudgeSpec) -> None:
    """See that a judge that is a server is there; any answer over HTTP will do, a refusal too.

    Raises:
        UserError: Nobody answers at its address.
    """
    if judge.kind != "endpoint" or judge.url is None:
        return
    why = why_silent(judge.url, timeout_s=PATIENCE_S)
    if why is not None:
        raise UserError(
            f"judge.url={redact(judge.url)} does not answer ({why}); start the judge, or give its "
            "address."
        )
