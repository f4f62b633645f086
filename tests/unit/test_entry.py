"""A command line becomes checked points or one sentence, and its exit code says which."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.resolve import JobRequest
from conf.schema import JOBS
from jobs.entry import ExitCode, compose, main
from jobs.report.console import Console


class Recorder:
    """Takes the points in place of the real runner."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.points: list[JobRequest] = []
        self.calls = 0

    def __call__(self, points: Sequence[JobRequest], console: Console) -> int:
        self.calls += 1
        self.points = list(points)
        return self.code


def accepted(job: str, *typed: str) -> list[JobRequest]:
    recorder = Recorder()
    assert main(job, list(typed), runner=recorder) == ExitCode.DONE
    assert recorder.calls == 1
    return recorder.points


def test_one_command_is_one_point() -> None:
    (point,) = accepted("steer", "trait=guilt", "layer=3", "coefficient=2.5", "seed=11")

    assert point.job == "steer"
    assert [trait.name for trait in point.traits] == ["guilt"]
    assert (point.layers, point.coefficients) == ((3,), (2.5,))
    assert point.config.seed == 11
    assert point.overrides == ("trait=guilt", "layer=3", "coefficient=2.5", "seed=11")


def test_a_list_stays_one_point() -> None:
    (point,) = accepted("steer", "trait=[anxiety,guilt]", "layer=[2,3]")

    assert [trait.name for trait in point.traits] == ["anxiety", "guilt"]
    assert point.layers == (2, 3)


def test_a_sweep_hands_over_all_points_at_once_and_in_order() -> None:
    points = accepted("steer", "--multirun", "trait=anxiety,guilt", "layer=1,2,3")

    assert [(point.traits[0].name, point.layers) for point in points] == [
        ("anxiety", (1,)),
        ("anxiety", (2,)),
        ("anxiety", (3,)),
        ("guilt", (1,)),
        ("guilt", (2,)),
        ("guilt", (3,)),
    ]
    assert {point.run_dir for point in points} == {points[0].run_dir}


def test_flags_may_stand_anywhere() -> None:
    first = accepted("steer", "--multirun", "layer=1,2", "seed=3")
    last = accepted("steer", "layer=1,2", "seed=3", "--multirun")

    assert [point.layers for point in first] == [point.layers for point in last] == [(1,), (2,)]


def test_a_swept_list_is_one_value() -> None:
    points = accepted("steer", "-m", "trait=[anxiety,guilt],[lying]")

    assert [[trait.name for trait in point.traits] for point in points] == [
        ["anxiety", "guilt"],
        ["lying"],
    ]


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_accepted_bare(job: str) -> None:
    (point,) = accepted(job)

    assert point.job == job


def test_the_runners_code_is_the_exit_code() -> None:
    assert main("steer", [], runner=Recorder(ExitCode.SOME_FAILED)) == 1
    assert main("steer", [], runner=Recorder(ExitCode.NO_CLUSTER)) == 3


def test_an_interrupt_is_code_130_and_says_what_is_safe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(points: Sequence[JobRequest], console: Console) -> int:
        raise KeyboardInterrupt

    assert main("steer", [], runner=interrupted) == 130
    assert "what is committed is safe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["trait=anxeity"], "trait=anxeity is not in conf/trait; did you mean anxiety?"),
        (["lyer=2"], "lyer=2: jobs.steer has no setting 'lyer'; did you mean layer?"),
        (["model=toy_mlb"], "model=toy_mlb is not in conf/model; did you mean toy_mla?"),
        (["layer=-2"], "layer=-2 is not a layer; use a number from 0, a list such as [2,3], or"),
        (["seed=soon"], "seed=soon has the wrong type; give a whole number."),
        (["stream=perhaps"], "stream=perhaps has the wrong type; give true or false."),
        (["seed=null"], "seed=null: it needs a value; leave it out to have its default."),
        (["steering.controls=random"], "steering.controls=random has the wrong type; give a list,"),
        (["run_dir=[a,b]"], "run_dir=[a,b] has the wrong type; give one name or text."),
        (["run_dir=a,b"], "run_dir=a,b: one value or a list is meant; write \"run_dir='a,b'\" for"),
        (["layer=range(1,3)"], "layer=range(1,3) makes several points; add --multirun, or write"),
        (["layer=choice(1,3)"], "layer=choice(1,3) makes several points; add --multirun, or"),
        (
            ["prompts=[everyday,pressure]"],
            "prompts=[everyday,pressure]: one choice is meant; write",
        ),
        (["model=[]"], "model=[]: one choice is meant; write model=deepseek_v3."),
        (["--resolve"], "jobs.steer: The --resolve flag can only be used in conjunction with"),
        (["--shell-completion"], "jobs.steer: Expecting one subcommand from"),
        (["prompts.prompts=[{id: a}]"], "prompts.prompts[0].text has no value; give it one."),
        (["extract_model=nope"], "extract_model=nope is not in conf/model; use one of"),
        (["extract_model.path=/x"], "extract_model.path=/x: no second model was chosen; add extra"),
        (["cluster.tensor_parallel_size=two"], "cluster.tensor_parallel_size=two has the wrong"),
        (["layer"], "layer: jobs.steer takes key=value; write it like layer=3."),
        (["layer=1,2"], "layer=1,2: one value or a list is meant; write layer=[1,2] for a list,"),
        (["trait=anxiety,guilt"], "trait=anxiety,guilt: one value or a list is meant; write trait"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate; python -m jobs.steer --help"),
        (["extraction.tokens=response[:"], "extraction.tokens=response[: cannot be read; write it"),
        (["--multirun", "trait=anxiety,gilt"], "trait=gilt is not in conf/trait; did you mean"),
        (["--multirun", "layer=1,-4"], "layer=-4 is not a layer;"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_on_stderr_and_code_2(
    typed: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()

    assert main("steer", typed, runner=recorder) == 2
    assert recorder.calls == 0
    told = capsys.readouterr()
    assert told.err.startswith(f"refused: {sentence}")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err + told.out


def test_help_lists_choices_settings_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()

    assert main("steer", ["--help"], runner=recorder) == 0
    text = capsys.readouterr().out
    assert recorder.calls == 0
    assert "cluster=h200x4|h200x8|laptop|multi_node" in text
    assert "cluster.tensor_parallel_size" in text
    assert "Exit codes: 0 done" in text


def test_cfg_prints_the_configuration_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()

    assert main("steer", ["--cfg", "job", "seed=23"], runner=recorder) == 0
    assert recorder.calls == 0
    assert "seed: 23" in capsys.readouterr().out


def test_nothing_of_hydra_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No outputs or multirun folder, no changed argv, no changed environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    argv = list(sys.argv)

    accepted("steer", "--multirun", "layer=1,2")
    accepted("steer", "layer=1")

    assert list(tmp_path.iterdir()) == []
    assert sys.argv == argv
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_the_processs_own_arguments_are_read_when_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs.steer", "seed=5"])
    recorder = Recorder()

    assert main("steer", runner=recorder) == 0
    assert recorder.points[0].config.seed == 5


def test_the_exit_codes_are_those_of_the_contract() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "SOME_FAILED": 1,
        "REFUSED": 2,
        "NO_CLUSTER": 3,
        "INTERRUPTED": 130,
    }


def test_no_second_model_may_be_said_aloud() -> None:
    (point,) = accepted("steer", "extract_model=null")
    assert point.config.extract_model is None


def test_another_model_for_extraction_is_chosen_by_its_name_alone() -> None:
    (point,) = compose("steer", ["extract_model=toy_gqa"], Console())
    assert point.config.extract_model.name == "toy_gqa"
    assert point.config.model.name == "toy_mla"
    with pytest.raises(UserError, match="nope is not in conf/model"):
        compose("steer", ["extract_model=nope"], Console())
    with pytest.raises(UserError, match=r"did you mean extract_model\.path"):
        compose("steer", ["extract_model.pathh=/x"], Console())


def test_composing_a_request_leaves_every_logger_as_it_was(capfd) -> None:
    """Warnings of a run reach the user: Hydra's own way to be quiet would silence them all."""
    root, ours = logging.getLogger(), logging.getLogger("jobs.some_module")
    before = (root.level, list(root.handlers))
    assert main("generate", [], runner=lambda points, console: 0) == 0
    assert not ours.disabled
    assert (root.level, list(root.handlers)) == before
    assert capfd.readouterr().out == ""
