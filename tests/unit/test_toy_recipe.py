"""A command line says everything that a recipe holds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from jobs.toy.recipe import Recipe, parse_recipe


def test_every_number_of_a_recipe_can_be_given() -> None:
    line = (
        "--model toy_gqa --out there --start here --steps 7 --batch-size 8 --documents 9 "
        "--sequence-length 96 --learning-rate 0.5 --weight-decay 0.25 --max-seconds 3 --noise 0.1 "
        "--typos 0.2 --cue-typos 0.3 --readout 0.6 --processes 5 --seed 4 --graph --device cpu"
    )
    recipe, folder, device = parse_recipe("", line.split())
    assert (folder, device) == (Path("there"), "cpu")
    assert recipe == Recipe(
        model="toy_gqa",
        start=Path("here"),
        num_steps=7,
        batch_size=8,
        num_documents=9,
        sequence_length=96,
        learning_rate=0.5,
        weight_decay=0.25,
        max_seconds=3.0,
        noise=0.1,
        typos=0.2,
        cue_typos=0.3,
        readout=0.6,
        processes=5,
        graph=True,
        seed=4,
    )
    plain = Recipe(model="toy_gqa")
    same = [f.name for f in fields(Recipe) if getattr(plain, f.name) == getattr(recipe, f.name)]
    assert same == ["model"]


def test_left_out_settings_are_the_recipe_s_own() -> None:
    recipe, _, _ = parse_recipe("", ["--model", "toy_mla", "--out", "there"])
    assert recipe.processes >= 1
    assert recipe == Recipe(model="toy_mla", processes=recipe.processes)


def test_an_unknown_model_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_recipe("", ["--model", "toy_big", "--out", "there"])
    assert ended.value.code == 2
    assert "toy_big" in capsys.readouterr().err
