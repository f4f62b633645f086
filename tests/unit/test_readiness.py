"""Texts that no rank could take and judges that are not there are refused before Ray starts."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from actors.judges import http
from actors.judges.spec import JudgeSpec
from conf.errors import UserError
from jobs import readiness, runner
from jobs.dry_run import show_plan
from jobs.entry import compose
from jobs.readiness import check_judge_answers, check_open_tasks
from jobs.report.console import Console

LONG = "a walk in the park " * 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def batch(job, *overrides, tmp_path):
    points = compose(job, [*overrides, f"run_dir={tmp_path}/run"], Console())
    (made,) = runner.make_batches(points)
    return made


def refusal(made, done=()):
    with pytest.raises(UserError) as caught:
        check_open_tasks(made, set(done))
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_text_that_leaves_no_room_for_its_answer_is_named(tmp_path):
    made = batch("generate", f"generate.prompt='{LONG}'", tmp_path=tmp_path)
    said = refusal(made)
    assert said.startswith("completions: the text that begins 'a walk in the park ")
    assert said.endswith("shorten it, or lower generate.max_new_tokens.")
    assert "model=toy_mla may have" in said
    tokens = len(made.encoder.chat(LONG.strip())) if made.encoder else None
    check_open_tasks(made, set(made.plan.works))  # nothing is asked of what is committed
    assert tokens is None or str(tokens) in said


def test_the_last_token_that_fits_is_let_in(tmp_path):
    made = batch("generate", "generate.prompt=hello", tmp_path=tmp_path)
    check_open_tasks(made, set())
    room = made.model.facts.max_position - len(made.encoder.chat("hello"))
    for new, fits in ((room, True), (room + 1, False)):
        given = [f"generate.max_new_tokens={new}", "generate.prompt=hello"]
        made = batch("generate", *given, tmp_path=tmp_path)
        if fits:
            check_open_tasks(made, set())
        else:
            assert f"and {new} new ones make more than" in refusal(made)


def test_one_long_text_among_short_ones_is_found(tmp_path):
    made = batch("generate", "generate.prompt=hello", tmp_path=tmp_path)
    check_open_tasks(made, set())
    (task,) = made.plan.works
    work = made.plan.works[task]
    texts = (replace(work.prompts[0], id=f"{i}", text=t) for i, t in enumerate(["hi", LONG, "yes"]))
    made.plan.works[task] = replace(work, prompts=tuple(texts))
    assert "the text that begins 'a walk in the park" in refusal(made)


def test_a_shorter_limit_of_the_cluster_counts(tmp_path):
    limit = ("cluster.max_sequence_tokens=40", "generate.max_new_tokens=39")
    made = batch("generate", "generate.prompt=how was the day of yours", *limit, tmp_path=tmp_path)
    assert "more than the 40 that a sequence" in refusal(made)


@pytest.mark.parametrize(
    ("job", "setting"),
    [("extract", "extraction"), ("steer", "steering"), ("capture", "capture")],
)
def test_every_job_names_its_own_setting(job, setting, tmp_path):
    most = 511  # of 512: no text is as short as one token
    given = [f"{setting}.max_new_tokens={most}", "extraction.vetting=false"]
    made = batch(job, *given, tmp_path=tmp_path)
    assert refusal(made).endswith(f"or lower {setting}.max_new_tokens.")


def test_a_dry_run_refuses_it_too(tmp_path):
    given = [f"generate.prompt='{LONG}'", f"run_dir={tmp_path}/run"]
    with pytest.raises(UserError, match="the text that begins 'a walk"):
        show_plan(compose("generate", given, Console()), Console())


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(self.server.status)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    made = HTTPServer(("127.0.0.1", 0), Refusing)
    made.status = 404
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def judge(url: str, kind: str = "endpoint") -> JudgeSpec:
    return JudgeSpec(kind=kind, model="m", url=url)


@pytest.mark.parametrize("status", [302, 401, 404, 500, 503])
def test_a_refusal_is_an_answer(server, status):
    server.status = status
    check_judge_answers(judge(f"http://127.0.0.1:{server.server_port}/v1"))


def test_a_server_that_hangs_up_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up():
            one, _ = listening.accept()
            one.recv(4096)
            one.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        assert http.why_silent(url, timeout_s=5) is None


def test_an_address_where_nobody_listens_is_named():
    with pytest.raises(UserError, match="Connection refused") as caught:
        check_judge_answers(judge(f"http://127.0.0.1:{free_port()}/v1"))
    assert str(caught.value).endswith("start the judge, or give its address.")


@pytest.mark.parametrize("place", ["127.0.0.1:9", "127.0.0.1", "[nowhere", "a..b"])
def test_a_password_in_an_address_is_not_repeated(place):
    with pytest.raises(UserError, match="does not answer") as caught:
        check_judge_answers(judge(f"http://me:pa55word@{place}/v1"))
    assert "pa55word" not in str(caught.value)


def test_a_judge_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"does not answer \(no answer within 0.2 s\)"):
            check_judge_answers(judge(url))


@pytest.mark.parametrize("kind", ["lexicon", "local_model"])
def test_other_judges_are_not_asked(kind):
    check_judge_answers(judge(f"http://127.0.0.1:{free_port()}/v1", kind))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_run_that_is_refused_leaves_no_folder_that_was_not_there(is_there, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.Execution, "execute", lambda *_: pytest.fail("it was started"))
    if is_there:
        (tmp_path / "new/run").mkdir(parents=True)
    given = [
        "judge=endpoint",
        f"judge.url=http://127.0.0.1:{free_port()}/v1",
        f"run_dir={tmp_path}/new/run",
    ]
    with pytest.raises(UserError, match="does not answer"):
        runner.run_points(compose("steer", given, Console()), Console())
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == (["new", "new/run"] if is_there else [])


def test_no_folder_is_made_before_every_judge_has_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.Execution, "execute", lambda *_: pytest.fail("it was started"))
    silent = f"judge.url=http://127.0.0.1:{free_port()}/v1"
    points = [
        *compose("steer", [f"run_dir={tmp_path}/one"], Console()),
        *compose("steer", ["judge=endpoint", silent, f"run_dir={tmp_path}/two"], Console()),
    ]
    with pytest.raises(UserError, match="does not answer"):
        runner.run_points(points, Console())
    assert list(tmp_path.iterdir()) == []


def test_no_judge_is_asked_for_where_nothing_is_judged(tmp_path):
    given = ("judge=endpoint", "generate.prompt=hello")
    url = f"judge.url=http://127.0.0.1:{free_port()}/v1"
    check_open_tasks(batch("generate", *given, url, tmp_path=tmp_path), set())
