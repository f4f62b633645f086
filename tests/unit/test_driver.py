"""Ray is started for work only, joined when it is there, and left whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from actors.group_spec import GroupSpec
from actors.request import EngineSpec
from conf.schema import ClusterConfig, JobConfig
from jobs import driver
from jobs.lane import ClusterFailed


class FakeRay:
    """What ray.init was asked for, and whether it was shut down."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[dict[str, object]] = []
        self.num_shutdowns = 0
        self.good_after: int | None = None
        self.raylet = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.raylet.getsockname()[1]}"

    def init(self, **options) -> None:
        self.asked.append(options)
        is_good = self.good_after is not None and len(self.asked) > self.good_after
        if self.error is not None and not is_good:
            raise self.error

    def shutdown(self) -> None:
        self.num_shutdowns += 1

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self) -> list[dict[str, object]]:
        port = self.raylet.getsockname()[1]
        return [
            {"NodeID": "there", "NodeManagerAddress": "192.0.2.1", "NodeManagerPort": 1},
            {"NodeID": "here", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port},
        ]


@pytest.fixture
def fake(monkeypatch):
    made = FakeRay()
    monkeypatch.setattr(driver, "ray", made)
    monkeypatch.setattr(driver, "RAY_PAUSE_S", 0.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    yield made
    made.raylet.close()


CONFIG = ClusterConfig(name="laptop", num_cpus=2, dashboard=False)


def test_a_ray_of_our_own_is_on_the_loopback_address_with_the_cpus_asked_for(fake):
    with driver.cluster(CONFIG):
        assert fake.num_shutdowns == 0
    (asked,) = fake.asked
    assert asked["_node_ip_address"] == "127.0.0.1"
    assert (asked["num_cpus"], asked["include_dashboard"]) == (2, False)
    assert fake.num_shutdowns == 1


def test_ranks_import_the_packages_from_where_the_driver_did(fake, repo_root):
    with driver.cluster(CONFIG):
        pass
    path = fake.asked[0]["runtime_env"]["env_vars"]["PYTHONPATH"]
    assert path.split(os.pathsep)[0] == str(repo_root)


def test_a_running_cluster_is_joined_and_not_configured(fake, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", fake.address)
    with driver.cluster(CONFIG):
        pass
    (asked,) = fake.asked
    assert "num_cpus" not in asked
    assert "object_store_memory" not in asked
    assert fake.num_shutdowns == 1


def test_a_cluster_that_is_gone_is_not_waited_for_as_long_as_ray_would(fake, monkeypatch):
    monkeypatch.setattr(driver, "JOIN_S", 0.0)
    monkeypatch.setenv("RAY_ADDRESS", fake.address)
    fake.raylet.close()
    with (
        pytest.raises(ClusterFailed, match=f"nobody listens at RAY_ADDRESS={fake.address}"),
        driver.cluster(CONFIG),
    ):
        pytest.fail("the body ran")
    assert fake.asked == []


def test_a_submitted_job_brings_its_code_by_itself(fake, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", fake.address)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with driver.cluster(CONFIG):
        pass
    assert fake.asked[0]["runtime_env"] is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Failed to connect\nmore lines"),
        RuntimeError("Failed to start GCS"),
        ValueError("bad address"),
        OSError("no space"),
        Exception("The current node timed out during startup."),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(fake, error):
    fake.error = error
    with (
        pytest.raises(ClusterFailed, match="Ray did not start") as caught,
        driver.cluster(CONFIG),
    ):
        pytest.fail("the body ran")
    assert "\n" not in str(caught.value)


def test_a_start_that_was_too_slow_is_tried_again_and_says_so(fake, monkeypatch):
    said: list[str] = []  # not caplog: Ray, once used in this process, keeps log records to itself
    monkeypatch.setattr(driver.logger, "warning", lambda text, *values: said.append(text % values))
    fake.error = Exception("The current node timed out during startup.")
    fake.good_after = 2
    with driver.cluster(CONFIG):
        pass
    assert len(fake.asked) == 3
    assert "Ray did not start (attempt 2 of 3): The current node timed out" in said[1]


def test_a_start_that_never_succeeds_says_how_often_it_was_tried(fake):
    fake.error = RuntimeError("Failed to start GCS")
    with (
        pytest.raises(ClusterFailed, match="Ray did not start after 3 attempts: Failed to start"),
        driver.cluster(CONFIG),
    ):
        pytest.fail("the body ran")


def test_settings_that_ray_refuses_and_clusters_that_are_away_are_not_tried_again(
    fake, monkeypatch
):
    fake.error = ValueError("num_cpus must not be negative")
    with pytest.raises(ClusterFailed), driver.cluster(CONFIG):
        pytest.fail("the body ran")
    assert len(fake.asked) == 1
    monkeypatch.setenv("RAY_ADDRESS", fake.address)
    fake.error = ConnectionError("nobody there")
    with pytest.raises(ClusterFailed), driver.cluster(CONFIG):
        pytest.fail("the body ran")
    assert len(fake.asked) == 2


def test_another_cluster_on_this_machine_is_never_joined_unasked(fake):
    with driver.cluster(CONFIG):
        pass
    assert fake.asked[0]["address"] == "local"


def test_ray_is_left_when_the_work_fails(fake):
    with pytest.raises(ZeroDivisionError), driver.cluster(CONFIG):
        raise ZeroDivisionError
    assert fake.num_shutdowns == 1


def test_sigterm_unwinds_through_every_finally_and_the_old_handler_returns(fake):
    before = signal.getsignal(signal.SIGTERM)
    unwound = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)

    with pytest.raises(driver.Terminated), driver.cluster(CONFIG):
        work()
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before
    assert fake.num_shutdowns == 1


def test_a_run_whose_ray_was_killed_ends_with_that_reason(fake, monkeypatch):
    monkeypatch.setattr(driver.lifeline, "LOOK_S", 0.01)

    def work() -> None:
        fake.raylet.close()
        time.sleep(5)
        pytest.fail("nobody noticed")

    with pytest.raises(ClusterFailed, match="Ray on this node is gone"), driver.cluster(CONFIG):
        work()
    assert fake.num_shutdowns == 1


def test_a_termination_is_no_ordinary_exception():
    assert not issubclass(driver.Terminated, Exception)


@pytest.mark.parametrize("use", [None, driver.ResidentUse("steer", 7, 60.0, "r")])
def test_a_resident_group_is_attached_to_and_any_other_is_started(monkeypatch, use):
    called = []
    monkeypatch.setattr(
        driver.ModelGroup, "start", lambda spec, group, **life: called.append(life["generation"])
    )
    monkeypatch.setattr(
        driver.supervisor,
        "ensure",
        lambda spec, group, limits, **use: called.append((limits.idle_timeout_s, use)),
    )
    driver.start_group(EngineSpec(model_path="/m"), None, 3, resident=use)
    assert called == (
        [3] if use is None else [(60.0, {"priority": 7, "label": "steer", "run": "r"})]
    )


def test_only_a_job_that_asks_for_it_uses_a_resident_group():
    config = JobConfig(job="steer")
    request = SimpleNamespace(job="steer", config=config, run_dir="runs/a")
    assert driver.resident_use(request) is None
    config.cluster.resident = True
    config.schedule.priority = 7
    use = driver.resident_use(request)
    assert use[:3] == ("steer", 7, 1800.0)
    assert driver.resident_use(request) == use
    request.run_dir = "runs/b"
    assert driver.resident_use(request).run != use.run


def test_room_is_counted_on_nodes_that_are_alive(fake):
    fake.nodes = lambda: [
        {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 8.0}},
        {"Alive": False, "Resources": {"CPU": 16.0, "GPU": 8.0}},
    ]
    assert driver.room(GroupSpec(gpus_per_rank=1, cpus_per_rank=1), 4) == 2
