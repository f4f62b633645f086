"""Every point of a sweep is composed and delivered; nothing is run and no folder is left."""

from __future__ import annotations

import sys

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from conf.errors import UserError
from jobs import launcher
from jobs.entry import compose, readable
from jobs.report.console import Console


def points(*arguments: str):
    return compose("steer", ["--multirun", *arguments], Console())


def test_a_sweep_is_the_product_of_its_lists_in_order():
    made = points("trait=anxiety,guilt", "layer=1,2")
    assert [(p.traits[0].name, p.layers) for p in made] == [
        ("anxiety", (1,)),
        ("anxiety", (2,)),
        ("guilt", (1,)),
        ("guilt", (2,)),
    ]


def test_each_point_knows_what_was_typed_for_it():
    made = points("layer=1,2", "seed=7")
    assert made[1].overrides == ("layer=2", "seed=7")
    assert {p.config.seed for p in made} == {7}


def test_ranges_and_lists_sweep_too():
    assert [p.layers for p in points("layer=range(1,5,2)")] == [(1,), (3,)]
    assert [p.layers for p in points("layer=[1,2],all")] == [(1, 2), "all"]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("trait=glob(con*)", ["concealment", "confidence", "conflicted"]),
        ("trait=glob(con*,exclude=conf*)", ["concealment"]),
        ("trait=glob([anx*,gui*])", ["anxiety", "guilt"]),
    ],
)
def test_globs_sweep_over_the_names_that_match(typed, names):
    assert [p.traits[0].name for p in points(typed, "layer=1")] == names


def test_globs_choose_models_methods_and_lists_of_one_point_too():
    assert [p.model_name for p in points("model=glob(toy_*)", "layer=1")] == ["toy_gqa", "toy_mla"]
    assert [p.methods for p in points("method=glob(*probe*)")] == [("probe",)]
    (point,) = compose("steer", ["trait=[lying,glob(anx*)]"], Console())
    assert [trait.name for trait in point.traits] == ["lying", "anxiety"]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("trait=glob(xyz*)", r"trait=glob\(xyz\*\): no name matches; trait is one of anxiety, "),
        ("layer=glob(*)", r"layer has none; list the values, or write layer=range"),
        ("triat=glob(*)", r"triat has none"),
    ],
)
def test_a_glob_that_means_nothing_is_refused(typed, sentence):
    with pytest.raises(UserError, match=sentence):
        points(typed)


def test_a_glob_without_multirun_is_told_how_to_say_it():
    with pytest.raises(UserError, match=r"write trait=\[anxiety,guilt\] for a list, or add"):
        compose("steer", ["trait=glob([anx*,gui*])"], Console())


def test_a_range_keeps_every_third_layer_of_a_deep_model():
    made = points("layer=range(27,37,3)")
    assert [p.layers[0] for p in made] == [27, 30, 33, 36]


def test_a_typo_in_one_point_stops_the_sweep_before_anything_runs():
    with pytest.raises(UserError, match="did you mean guilt"):
        points("trait=anxiety,gilt")


def test_a_sweep_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points("layer=1,2", f"run_dir={tmp_path / 'run'}")
    assert list(tmp_path.iterdir()) == []


def test_a_single_run_needs_no_launcher(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("launched")

    monkeypatch.setattr(launcher.PlanLauncher, "launch", fail)
    (point,) = compose("steer", ["layer=1"], Console())
    assert point.layers == (1,)


def test_registering_twice_is_registering_once():
    launcher.register()
    launcher.register()
    found = [c for c in Plugins.instance().discover(Launcher) if c is launcher.PlanLauncher]
    assert len(found) == 1
    assert sys.modules[launcher.PLUGIN_MODULE].PlanLauncher is launcher.PlanLauncher


def test_launching_before_setup_is_an_error():
    with pytest.raises(RuntimeError, match="before setup"):
        launcher.PlanLauncher().launch([["layer=1"]], 0)


def test_the_next_sweep_reaches_only_its_own_receiver():
    first, second = [], []
    launcher.deliver_to(lambda config, typed: first.append(typed))
    launcher.deliver_to(lambda config, typed: second.append(typed))
    assert len(launcher._receivers) == 1
    assert points("layer=1,2")[0].layers == (1,)
    assert first == second == []


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("extraction.tokens=response[:5]", "extraction.tokens='response[:5]'"),
        ("generate.prompt=it's late, isn't it", "generate.prompt='it\\'s late, isn\\'t it'"),
        ("layer=[1,2]", "layer=[1,2]"),
        ("layer=range(1,4)", "layer=range(1,4)"),
        ("layer=[1", "layer=[1"),
        ("generate.prompt=How are you?", "generate.prompt=How are you?"),
        ("~prompts", "~prompts"),
    ],
)
def test_a_value_is_quoted_only_when_that_makes_it_readable(typed, given):
    assert readable(typed) == given


def test_selectors_and_prompts_need_no_quotes():
    (point,) = compose(
        "steer", ["extraction.tokens=response[:3]", "generate.prompt=it's late: go"], Console()
    )
    assert point.config.extraction.tokens == "response[:3]"
    assert point.config.generate.prompt == "it's late: go"
