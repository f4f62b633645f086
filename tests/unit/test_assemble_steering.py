"""A coefficient means what its operator says, and every strength is a task of its own."""

from __future__ import annotations

import pytest

from jobs.assemble_steering import project_work, steered_works
from jobs.entry import compose
from jobs.report.console import Console
from jobs.stages.projecting import Target

MODEL = {"model": "a" * 64}
TARGET = Target(2, "mean_difference")


def request(*overrides: str):
    (point,) = compose("steer", list(overrides), Console())
    return point


def works(*overrides: str):
    point = request(*overrides)
    trait = point.traits[0]
    return steered_works(point, MODEL, trait, point.config.steering, TARGET, "fit-1")


def test_without_a_coefficient_the_ratios_of_the_residual_norm_are_tried():
    made = works("steering.coefficient_ratios=[0.5,1.0]")
    assert [(work.coefficient, work.unit) for work in made] == [
        (0.5, "residual_norm"),
        (1.0, "residual_norm"),
    ]


def test_a_coefficient_is_a_length():
    assert [(work.coefficient, work.unit) for work in works("coefficient=[2,-4.5]")] == [
        (2.0, "length"),
        (-4.5, "length"),
    ]


@pytest.mark.parametrize(
    ("operator", "unit"), [("add_norm_matched", "row_norm"), ("ablate", "fraction")]
)
def test_other_operators_have_units_of_their_own(operator, unit):
    made = works(f"steering.operator={operator}", "coefficient=1")
    assert [(work.unit, work.operator) for work in made] == [(unit, operator)]
    made = works(f"steering.operator={operator}")
    assert {work.unit for work in made} == {unit}


def test_every_strength_waits_for_its_direction_alone():
    assert {work.after for work in works("coefficient=[1,2]")} == {("fit-1",)}


@pytest.mark.parametrize(
    "change",
    [
        "steering.positions=response",
        "steering.controls=[random]",
        "steering.temperature=0",
        "steering.samples=3",
        "seed=5",
    ],
)
def test_what_changes_the_answers_changes_the_id(change):
    (before,), (after,) = works("coefficient=2"), works("coefficient=2", change)
    assert before.task.id != after.task.id


def test_the_coherence_gate_asks_the_model_nothing_new():
    (before,) = works("coefficient=2")
    (after,) = works("coefficient=2", "steering.coherence_gate=50")
    assert before.task.id == after.task.id


FITS = {TARGET: "fit-1", Target(3, "probe"): "fit-2"}


def project(summary, *overrides: str):
    point = request(*overrides)
    return project_work(point, point.traits[0], FITS, ("capture-1",), summary)


def test_a_projection_waits_for_all_that_may_be_chosen():
    assert project("summary-1").after == ("capture-1", "fit-1", "fit-2", "summary-1")
    assert project(None).after == ("capture-1", "fit-1", "fit-2")


def test_asked_layers_are_all_projected_unless_steering_chooses():
    assert project(None, "layer=[2,3]").is_chosen is False
    assert project(None).is_chosen is True
    assert project("summary-1", "layer=[2,3]").is_chosen is True


def test_the_gate_is_part_of_the_question_only_where_it_chooses():
    one, two = project("s-1"), project("s-1", "steering.coherence_gate=50")
    assert one.task.id != two.task.id
    one, two = project(None), project(None, "steering.coherence_gate=50")
    assert one.task.id == two.task.id


def test_another_prompt_set_is_another_projection():
    assert project(None).task.id != project(None, "prompts=pressure").task.id


def test_a_sign_of_minus_1_changes_the_id_and_a_sign_of_1_is_not_part_of_it():
    (plain,), (falling,) = works("coefficient=2"), works("coefficient=2", "traits.anxiety.sign=-1")
    assert plain.task.id != falling.task.id
    assert "sign" not in plain.task.question
    assert falling.task.question["sign"] == -1
