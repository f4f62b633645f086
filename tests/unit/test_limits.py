"""Every number has a range; outside of it, one sentence names setting, value and way out."""

from __future__ import annotations

import math

import pytest

from conf.errors import UserError
from conf.limits import RANGES, Range, check_ranges, numeric_settings
from conf.schema import JobConfig


def config(path: str, value: float) -> JobConfig:
    """The defaults, with one setting changed."""
    whole = JobConfig()
    *sections, name = path.split(".")
    part: object = whole
    for section in sections:
        part = getattr(part, section)
    setattr(part, name, value)
    return whole


def test_every_number_of_the_schema_has_a_range_and_nothing_else_has() -> None:
    assert set(RANGES) == set(numeric_settings())


def test_the_defaults_are_inside() -> None:
    check_ranges(JobConfig())


@pytest.mark.parametrize("path", sorted(set(RANGES) - {"schedule.priority"}))
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_no_number_may_be_negative_or_not_a_number(path: str, value: float) -> None:
    with pytest.raises(UserError) as caught:
        check_ranges(config(path, value))
    assert str(caught.value).startswith(f"{path}={value:g} is ")
    assert "; use " in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("cluster.groups", 0, "cluster.groups=0 is too small; use 1 or more."),
        (
            "cluster.stall_timeout_s",
            0.0,
            "cluster.stall_timeout_s=0 is too small; use more than 0.",
        ),
        ("cluster.max_sequence_tokens", 1, "cluster.max_sequence_tokens=1 is too small; use 2 or"),
        ("seed", 2**63, "seed=9223372036854775808 is too large; use 0 to 2^63 - 1."),
        ("seed", -3, "seed=-3 is too small; use 0 to 2^63 - 1."),
        ("generate.top_p", 0.0, "generate.top_p=0 is too small; use above 0 to 1."),
        ("generate.top_p", 1.5, "generate.top_p=1.5 is too large; use above 0 to 1."),
        ("generate.top_k", -1, "generate.top_k=-1 is too small; use 0 (all tokens) or more."),
        (
            "steering.coherence_gate",
            101.0,
            "steering.coherence_gate=101 is too large; use 0 to 100.",
        ),
        ("steering.temperature", -0.5, "steering.temperature=-0.5 is too small; use 0 (greedy) or"),
        ("judge.timeout_s", math.nan, "judge.timeout_s=nan is no finite number; use more than 0."),
    ],
)
def test_a_number_outside_is_told_with_what_may_be_used(
    path: str, value: float, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_ranges(config(path, value))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("capture.max_new_tokens", 0),
        ("seed", 2**63 - 1),
        ("generate.top_p", 1.0),
        ("schedule.priority", -5),
        ("schedule.progress_s", 0.0),
        ("cluster.max_groups", None),
    ],
)
def test_the_ends_of_a_range_belong_to_it(path: str, value: float) -> None:
    check_ranges(config(path, value))


def test_a_text_is_in_no_range() -> None:
    assert "3" not in Range()
