"""What a person types is what Hydra reads: brackets in words, globs over names without files."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.choices import names_of
from conf.errors import UserError
from jobs.overrides import expanded, readable


def _value(text):
    return OverridesParser.create().parse_override(text).value()


@pytest.mark.parametrize(
    "text",
    ["layer=3", "trait=a,b", "layer=[2,3]", "layer=range(9,37,3)", "run_dir=runs/x", "seed="],
)
def test_what_hydra_reads_is_left_alone(text):
    assert readable(text) == text
    assert expanded(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tokens=response[:5]", "response[:5]"),
        ("tokens=prompt[-1]", "prompt[-1]"),
        ("generate.prompt=it's [odd", "it's [odd"),
    ],
)
def test_words_with_brackets_are_quoted(text, value):
    assert _value(readable(text)) == value


def test_an_unclosed_list_stays_an_error():
    assert readable("layer=[2,3") == "layer=[2,3"


def test_globs_mean_the_names_that_match():
    names = [n for n in names_of("trait") if n.startswith("con")]
    assert len(names) >= 2
    key, listed = expanded("trait=glob(con*)").split("=")
    assert (key, sorted(listed.split(","))) == ("trait", sorted(names))


def test_globs_in_a_list_stay_a_list_and_name_nothing_twice():
    found = expanded("trait=[anxiety,glob(anx*),glob(gu*)]")
    assert found == "trait=[anxiety,guilt]"


def test_a_glob_that_matches_nothing_names_the_choices():
    with pytest.raises(
        UserError, match=r"trait=glob\(zz\*\): no name matches; trait is one of .*guilt"
    ):
        expanded("trait=glob(zz*)")


def test_a_glob_over_numbers_says_what_to_write():
    with pytest.raises(UserError, match=r"layer=range\(START,STOP,STEP\)"):
        expanded("layer=glob(1*)")


def test_a_glob_that_cannot_be_read_is_left_to_hydra():
    assert expanded("trait=glob(a*") == "trait=glob(a*"
