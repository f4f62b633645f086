"""What tasks ask is counted from the plan; the model's own tokenizer counts the prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.resolve import JobRequest
from jobs.demand import Demands, judged_texts, judged_tokens, max_new_tokens
from jobs.entry import main
from jobs.plan import PlannedBundle
from jobs.runner import Batch, load_encoder, make_batches
from jobs.task import make_task
from jobs.work import GroupWork


def batch(tmp_path: Path, job: str, *typed: str) -> Batch:
    found: list[JobRequest] = []
    main(
        job, [f"run_dir={tmp_path}", *typed], runner=lambda requests, _: found.extend(requests) or 0
    )
    (only,) = make_batches(found)
    return only


def read(planned: Batch) -> tuple[Demands, dict[str, list[GroupWork]]]:
    first = planned.points[0]
    demands = Demands(planned.model.facts, planned.model.spec.dtype, load_encoder(first))
    works: dict[str, list[GroupWork]] = {}
    for work in planned.plan.works.values():
        if isinstance(work, GroupWork):
            works.setdefault(work.task.kind, []).append(work)
    return demands, works


def test_a_prompt_set_is_counted_in_tokens(tmp_path: Path) -> None:
    few = batch(tmp_path, "capture", "capture.num_prompts=3", "capture.max_new_tokens=8")
    demands, works = read(few)
    asked = [demands.of(work) for work in works["capture"]]
    encoder = load_encoder(few.points[0])
    texts = [item.text for item in few.points[0].config.prompts.prompts[:3]]

    assert sum(one.num_requests for one in asked) == 3
    assert sum(one.new_tokens for one in asked) == 3 * 8
    assert sum(one.prompt_tokens for one in asked) == sum(len(encoder.chat(one)) for one in texts)
    assert max(one.longest for one in asked) == max(len(encoder.chat(one)) for one in texts) + 8


def captured(tmp_path: Path, *typed: str) -> int:
    demands, works = read(batch(tmp_path, "capture", "capture.num_prompts=3", *typed))
    return sum(demands.of(work).captured_bytes for work in works["capture"])


def test_captured_rows_are_counted_in_bytes_for_each_layer_and_site(tmp_path: Path) -> None:
    """Rows x 2 layers x 128 values x 4 bytes of float32; prompts are read too."""
    demands, works = read(batch(tmp_path, "capture", "layer=[1,2]", "capture.num_prompts=3"))
    asked = [demands.of(work) for work in works["capture"]]
    rows = sum(one.prompt_tokens + one.new_tokens for one in asked)

    assert sum(one.captured_bytes for one in asked) == rows * 2 * 128 * 4
    assert captured(tmp_path, "layer=2", "capture.sites=[resid_post,mlp_out]") == rows * 2 * 128 * 4


def test_generation_captures_nothing_and_samples_multiply(tmp_path: Path) -> None:
    demands, works = read(batch(tmp_path, "generate", "generate.samples=3"))
    (work,) = works["completions"]
    once, single = read(batch(tmp_path, "generate"))

    assert demands.of(work).captured_bytes == 0
    assert demands.of(work).new_tokens == 3 * once.of(single["completions"][0]).new_tokens


def test_responses_pool_every_layer_and_steering_runs_every_control(tmp_path: Path) -> None:
    planned = batch(tmp_path, "steer", "trait=guilt", "layer=2", "coefficient=4")
    demands, works = read(planned)
    pairs = len(planned.points[0].traits[0].pairs)
    questions = len(planned.points[0].traits[0].questions)
    positive = demands.of(works["responses"][0])
    steered = demands.of(works["steering"][0])

    assert positive.num_requests == pairs
    assert positive.captured_bytes == pairs * 6 * 128 * 4
    assert steered.num_requests == 3 * questions * 4  # kinds x questions x samples
    assert max_new_tokens(works["steering"][0]) == 24


def test_every_answer_is_judged_twice_and_every_response_once(tmp_path: Path) -> None:
    planned = batch(tmp_path, "steer", "trait=guilt", "layer=2", "coefficient=4")
    plan = planned.plan
    texts = {work.task.kind: 0 for work in plan.works.values()}
    for work in plan.works.values():
        texts[work.task.kind] += judged_texts(work, plan)
    responses, answers = 2 * 26, 56 + 168

    assert texts["vetting"] == responses
    assert texts["judging"] == 2 * answers
    assert sum(texts.values()) == responses + 2 * answers
    vetting = next(one for one in plan.works.values() if one.task.kind == "vetting")
    assert judged_tokens(vetting, plan, around=400) == responses * (400 + 16)


def test_result_files_are_mostly_what_columns_mean_until_there_are_many_rows(
    tmp_path: Path,
) -> None:
    planned = batch(tmp_path, "generate")
    demands, works = read(planned)
    (work,) = works["completions"]
    asked = demands.of(work)

    assert demands.written_bytes([work], planned.plan) == 12_000 + 6 * (
        asked.prompt_tokens + asked.new_tokens
    )
    assert demands.written_bytes([], planned.plan) == 0


def test_work_of_a_new_kind_is_not_counted_as_nothing(tmp_path: Path) -> None:
    class Odd(GroupWork):
        num_requests = 1

        def ask(self, context):
            raise NotImplementedError

        def answer(self, context, results):
            raise NotImplementedError

    odd = Odd(make_task("odd", "odd", {"q": 1}))
    demands, _ = read(batch(tmp_path, "generate"))
    with pytest.raises(TypeError, match="Odd says nothing of its prompts"):
        demands.of(odd)
    with pytest.raises(TypeError, match="Odd says nothing of its answers"):
        max_new_tokens(odd)
    assert PlannedBundle("b", (odd,)).num_requests == 1
