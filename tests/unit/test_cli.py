"""Every command answers with an exit code, and a mistyped one with what was meant."""

from __future__ import annotations

import pytest

from conf.schema import JOBS
from jobs import cli, doctor, submit
from jobs.cli import main
from storage.manifest import Run
from storage.schema import from_rows
from tests.faults.worker import write_task


def test_help_names_every_job_and_command(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name in (*JOBS, *cli.COMMANDS):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sumbit"], "did you mean submit?"),
        (["plan"], "name a job"),
        (["plan", "fly"], "plan fly: name a job"),
        (["verify", "/nowhere"], "give a run folder"),
        (["verify"], "give a run folder"),
        (["group"], "say up, status or down"),
        (["group", "sideways"], "use up, status or down"),
        (["submit", "steer", "coeficient=1"], "did you mean coefficient?"),
        (["steer", "trait=anxeity"], "did you mean anxiety?"),
    ],
)
def test_a_wrong_command_is_refused_in_one_sentence(arguments, sentence, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_a_group_needs_a_running_cluster(monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["group", "up"]) == 2
    assert "RAY_ADDRESS is not set" in capsys.readouterr().err


def test_plan_counts_tasks_requests_and_tokens_and_starts_nothing(tmp_path, capsys):
    run_dir = tmp_path / "run"
    code = main(
        [
            "plan",
            "steer",
            f"run_dir={run_dir}",
            "layer=1",
            "coefficient=2",
            "steering.samples=1",
            "steering.num_questions=4",
            "extraction.num_pairs=10",
        ]
    )

    out = capsys.readouterr().out
    assert code == 0
    assert "steer: 1 point(s), 10 tasks, 0 committed" in out
    # 20 responses of 16 tokens, 4 baseline and 12 steered answers of 24.
    assert " read, 704 generated at most" in out
    assert not run_dir.exists()


def test_verify_finds_a_flipped_bit(tmp_path, capsys):
    row = {
        "trait": "anxiety",
        "polarity": "positive",
        "scenario": 0,
        "sample": 0,
        "score": 80.0,
        "passed": True,
        "judge": "lexicon",
        "judge_version": "1",
    }
    with Run.open(tmp_path) as run:
        run.commit("vetting-1", {"vetting": from_rows("vetting", [row])}, model="m", provenance={})
    assert main(["verify", str(tmp_path)]) == 0
    (path,) = (tmp_path / "data").rglob("*.parquet")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))

    assert main(["verify", str(tmp_path)]) == 1
    assert path.name in capsys.readouterr().out


def test_gc_deletes_what_no_commit_names_and_nothing_else(tmp_path, capsys):
    with Run.open(tmp_path / "run") as run:
        write_task(run, "t1", salt=0)
    (named,) = (tmp_path / "run/data").rglob("*.parquet")
    orphan = named.with_name("t1-000000000000.parquet")
    orphan.write_bytes(named.read_bytes())
    assert main(["gc", str(tmp_path / "run")]) == 0
    assert "1 files that no commit names were deleted" in capsys.readouterr().out
    assert named.exists()
    assert not orphan.exists()
    assert main(["gc", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "nowhere").exists()


def test_a_failure_of_storage_is_one_sentence_and_no_traceback(tmp_path, capsys):
    with Run.open(tmp_path / "run") as run:
        write_task(run, "t1", salt=0)
    (tmp_path / "run/_meta/commits/t1.json").write_text("{")
    assert main(["gc", str(tmp_path / "run")]) == 1
    out = "".join(capsys.readouterr())
    assert out.startswith("failed: _meta/commits/t1.json is not what was committed")
    assert out.count("\n") == 1


def test_sync_without_a_bucket_is_refused(tmp_path, capsys):
    Run.open(tmp_path).close()
    assert main(["sync", str(tmp_path)]) == 2
    assert "storage=local has no bucket" in capsys.readouterr().err


def test_the_doctor_looks_at_everything_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    main(["doctor"])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(doctor.CHECKS) + len(doctor.SERVICES) == 10
    assert "LOOK  Ray: joins 10.0.0.1:6379 without a token; set RAY_AUTH_MODE=token" in out


def test_the_entrypoint_survives_the_shell():
    line = submit.entrypoint("steer", ["layer=range(9,37)", "generate.prompt=it's [a] test"])
    assert line.startswith("python -m jobs.steer 'layer=range(9,37)' ")
    import shlex

    assert shlex.split(line)[-1] == "generate.prompt=it's [a] test"


def test_gpus_for_the_driver_are_refused():
    from conf.errors import UserError

    with pytest.raises(UserError, match="the driver needs no GPU"):
        submit.refuse_flags(["--entrypoint-num-gpus=8"])


def test_a_relative_folder_is_warned_about(capsys):
    from jobs.report.console import Console

    submit.warn_of_relative_folder(["run_dir=runs/x"], Console())
    submit.warn_of_relative_folder(["run_dir=/shared/x"], Console())
    assert capsys.readouterr().out.count("is relative") == 1


def test_a_stopped_job_gets_time_to_write(repo_root):
    assert submit.runtime_env(repo_root)["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "60"
