"""Results are printed as numbers with their errors, also when they are not what was hoped for."""

from __future__ import annotations

import io
from typing import Any

import pytest

from conf.schema import TraitConfig
from jobs.outcome import (
    control,
    number,
    show_directions,
    show_steering,
    signed,
    steering_line,
    summary,
    with_error,
    yes,
)
from jobs.report.console import Console

GUILT = TraitConfig(name="guilt", definition="d", sign=1)
CALM = TraitConfig(name="calm", definition="d", sign=-1)


def cell(kind: str = "trait", **changes: Any) -> dict[str, Any]:
    """One row of steering_summary."""
    row: dict[str, Any] = {
        "trait": "guilt",
        "layer": 3,
        "method": "probe",
        "coefficient": 1.5,
        "coefficient_unit": "residual_norm",
        "vector_kind": kind,
        "trait_mean": 70.0,
        "trait_se": 4.0,
        "coherence_mean": 95.0,
        "n": 16,
        "baseline_mean": 20.0,
        "baseline_se": 3.0,
        "delta": 50.0,
        "delta_se": 5.0,
        "z": 10.0,
    }
    return row | changes


NEGATED = cell("negated", trait_mean=5.0, delta=-15.0, delta_se=5.0, z=-3.0)
RANDOM = cell("random", trait_mean=22.0, delta=2.0, delta_se=4.0, z=0.5)


def evaluated(trait: str, method: str, layer: int, auroc: float, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trait": trait,
        "method": method,
        "layer": layer,
        "auroc": auroc,
        "ci_low": 0.8,
        "ci_high": 1.0,
        "random_auroc": 0.512,
        "cohens_d": 2.34,
        "n_positive": 6,
        "n_negative": 5,
    }
    return row | changes


def printed(show: Any, *arguments: Any) -> list[str]:
    out = io.StringIO()
    show(*arguments, Console(out))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 2, "-"), (0.0, 1, "0.0"), (12.345, 1, "12.3"), (-0.5, 2, "-0.50"), (1.0, 3, "1.000")],
)
def test_a_missing_number_is_a_dash_and_never_a_zero(
    value: float | None, digits: int, text: str
) -> None:
    assert number(value, digits) == text


def test_a_difference_shows_its_sign() -> None:
    assert (signed(3.0), signed(-2.25), signed(0.0), signed(None)) == ("+3.0", "-2.2", "+0.0", "-")


def test_a_control_is_shown_with_its_error() -> None:
    assert with_error(NEGATED) == "-15.0 ± 5.0"
    assert with_error(cell(delta=None, delta_se=None)) == "- ± -"


def test_a_claim_holds_fails_or_was_not_tested() -> None:
    assert (yes(True), yes(False), yes(None)) == ("yes", "NO", "-")


def test_a_control_is_the_cell_of_the_same_strength_place_and_method() -> None:
    elsewhere = [
        cell("random", layer=4),
        cell("random", coefficient=2.0),
        cell("random", method="mean_difference"),
    ]

    assert control([*elsewhere, NEGATED, RANDOM], cell(), "random") is RANDOM
    assert control([*elsewhere, NEGATED, RANDOM], cell(), "negated") is NEGATED
    assert control(elsewhere, cell(), "random") is None


def test_a_row_becomes_the_summary_that_verdicts_are_made_from() -> None:
    made = summary(cell())

    assert (made.trait_mean, made.delta, made.delta_se, made.z, made.n) == (70.0, 50.0, 5.0, 10, 16)


def test_the_best_cell_stands_beside_its_controls() -> None:
    worse = cell(layer=1, delta=20.0, z=4.0)
    line = steering_line([worse, cell(), NEGATED, RANDOM], GUILT, 70.0)

    assert line == [
        "guilt",
        "3",
        "probe",
        "1.5 x norm",
        "20.0",
        "70.0",
        "+50.0",
        "5.0",
        "10.0",
        "-15.0 ± 5.0",
        "+2.0 ± 4.0",
        "95.0",
        "yes",
        "yes",
        "yes",
    ]


def test_an_incoherent_cell_is_never_the_best() -> None:
    wild = cell(layer=5, delta=75.0, z=15.0, coherence_mean=30.0)
    line = steering_line([wild, cell()], GUILT, 70.0)

    assert line is not None
    assert line[1] == "3"


def test_without_a_coherent_cell_the_line_says_so() -> None:
    line = steering_line([cell(coherence_mean=40.0)], GUILT, 70.0)

    assert line is not None
    assert (line[0], line[-1]) == ("guilt", "incoherent")
    assert set(line[1:-1]) == {"-"}
    assert len(line) == 15


def test_a_trait_without_cells_has_no_line() -> None:
    assert steering_line([], GUILT, 70.0) is None


def test_controls_that_were_not_run_are_dashes() -> None:
    line = steering_line([cell()], GUILT, 70.0)

    assert line is not None
    assert line[9:11] == ["-", "-"]
    assert line[13:] == ["-", "-"]


def test_a_failed_claim_is_printed_and_not_hidden() -> None:
    weak = cell("negated", trait_mean=18.0, delta=-2.0, delta_se=5.0, z=-0.4)
    strong_random = cell("random", trait_mean=60.0, delta=40.0, delta_se=5.0, z=8.0)
    line = steering_line([cell(), weak, strong_random], GUILT, 70.0)

    assert line is not None
    assert line[12:] == ["yes", "NO", "NO"]


def test_a_trait_of_negative_sign_is_best_where_it_falls() -> None:
    falls = cell(layer=2, trait_mean=5.0, delta=-40.0, z=-8.0)
    line = steering_line([falls, cell(layer=4, delta=30.0, z=6.0)], CALM, 70.0)

    assert line is not None
    assert line[1] == "2"


def test_the_steering_table_has_a_line_for_each_trait_with_cells() -> None:
    lines = printed(show_steering, [cell(), NEGATED, RANDOM], {"guilt": GUILT, "calm": CALM}, 70.0)

    assert lines[1].startswith("Steering, best cell with coherence 70 or more")
    assert lines[2].split()[:4] == ["trait", "layer", "method", "coefficient"]
    assert lines[3].split()[:6] == ["guilt", "3", "probe", "1.5", "x", "norm"]
    assert lines[5] == "Controls in that cell"
    assert lines[7].split() == [
        "trait",
        "negated",
        "random",
        "coherence",
        "raised",
        "lowered",
        "neutral",
    ]
    assert lines[8].split()[0] == "guilt"
    assert lines[8].split()[-4:] == ["95.0", "yes", "yes", "yes"]
    assert len(lines) == 9


def test_no_line_of_the_steering_table_is_wider_than_a_window() -> None:
    long = cell(method="mean_difference", trait="rationalization", baseline_mean=100.0)
    trait = TraitConfig(name="rationalization", definition="d")
    rows = [long, NEGATED | {"trait": trait.name}, RANDOM | {"trait": trait.name}]
    lines = printed(show_steering, rows, {"rationalization": trait}, 70.0)
    assert max(len(line) for line in lines) <= 100


def test_a_trait_that_is_to_fall_is_named_above_the_table() -> None:
    fallen = [
        cell(trait="calm", delta=-50.0, z=-10.0),
        cell("negated", trait="calm", delta=15.0, z=3.0),
    ]
    lines = printed(show_steering, fallen, {"guilt": GUILT, "calm": CALM}, 70.0)

    assert lines[7] == "  meant to be lowered, and raised by the negated vector: calm"
    assert lines[9].split()[0] == "calm"
    assert lines[9].split()[-3:-1] == ["yes", "yes"]  # moved as meant, turned by its negative


def test_without_cells_no_table_is_printed() -> None:
    assert printed(show_steering, [], {"guilt": GUILT}, 70.0) == []


def test_directions_show_the_best_layer_of_each_trait_and_method() -> None:
    rows = [
        evaluated("guilt", "probe", 1, 0.81),
        evaluated("guilt", "probe", 4, 0.97),
        evaluated("guilt", "mean_difference", 2, 0.9, cohens_d=None),
        evaluated("lying", "probe", 2, 0.99),
    ]
    lines = printed(show_directions, rows, ["guilt"])

    assert [line.split() for line in lines[3:]] == [
        ["guilt", "mean_difference", "2", "0.900", "0.80", "to", "1.00", "0.51", "-", "6+5"],
        ["guilt", "probe", "4", "0.970", "0.80", "to", "1.00", "0.51", "2.3", "6+5"],
    ]


def test_directions_of_other_traits_are_left_out() -> None:
    assert printed(show_directions, [evaluated("lying", "probe", 2, 0.99)], ["guilt"]) == []
