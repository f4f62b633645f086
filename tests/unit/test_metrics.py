"""Metrics are declared once, counted without Ray too, and every one has a panel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from actors.errors import RankDied
from actors.idle import GroupClock
from actors.judges.query import JudgeScore
from actors.metrics import BY_NAME, METRICS, Meter
from actors.request import Bundle, ModelInfo, Reply, Request, Result, Sampling

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "monitoring"
INFO = ModelInfo(
    model_type="fake",
    num_layers=1,
    hidden_size=1,
    vocab_size=1,
    num_heads=1,
    num_kv_heads=1,
    max_position=1,
    eos_ids=(),
    dtype="float32",
    model_digest="d",
    num_pages=64,
    page_size=16,
    weight_bytes=1,
)


def bundle(*lengths, max_new_tokens=8):
    return Bundle(
        id="b",
        requests=tuple(
            Request(id=str(i), token_ids=(1,) * n, sampling=Sampling(max_new_tokens=max_new_tokens))
            for i, n in enumerate(lengths)
        ),
    )


def result(num_non_finite=0):
    return Result(
        id="r",
        prompt_ids=(1,),
        completion_ids=(),
        finish_reason="length",
        num_non_finite=num_non_finite,
    )


def test_names_are_unique_and_units_are_said():
    assert len(BY_NAME) == len(METRICS)
    assert all(one.name.startswith("traitmill_") and one.meaning for one in METRICS)


def test_a_counter_is_exported_with_rays_prefix_and_suffix():
    assert BY_NAME["traitmill_tokens"].exported == "ray_traitmill_tokens_total"
    assert BY_NAME["traitmill_tasks"].exported == "ray_traitmill_tasks"


def test_counters_add_up_and_gauges_replace():
    meter = Meter()
    for _ in range(3):
        meter.add("traitmill_tokens", 5, group="g", phase="decode")
        meter.set("traitmill_ranks", 2, group="g")
    meter.add("traitmill_tokens", 1, group="h", phase="decode")
    assert meter.total("traitmill_tokens", group="g") == 15
    assert meter.total("traitmill_tokens") == 16
    assert meter.total("traitmill_ranks") == 2
    assert meter.total("traitmill_tokens", group="nobody") == 0


@pytest.mark.parametrize("tags", [{}, {"group": "g"}, {"group": "g", "phase": "x", "more": "y"}])
def test_a_metric_with_other_labels_than_declared_is_refused(tags):
    with pytest.raises(ValueError, match="traitmill_tokens is a counter"):
        Meter().add("traitmill_tokens", 1, **tags)


def test_a_gauge_cannot_be_counted_and_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="is a gauge"):
        Meter().add("traitmill_ranks", 1, group="g")
    with pytest.raises(KeyError):
        Meter().add("traitmill_typo", 1)


def test_a_reply_counts_tokens_seconds_occupancy_and_pages():
    meter = Meter()
    reply = Reply(
        bundle_id="b",
        results=(result(), result(3)),
        num_steps=8,
        num_prefill_tokens=50,
        num_decode_tokens=16,
        prefill_s=0.5,
        decode_s=2.0,
    )
    meter.note_reply("g", bundle(40, 10), reply, INFO)
    assert meter.total("traitmill_tokens", phase="prefill") == 50
    assert meter.total("traitmill_tokens", phase="decode") == 16
    assert meter.total("traitmill_engine_seconds", phase="decode") == 2.0
    assert meter.total("traitmill_batch_requests") == 2.0
    assert meter.total("traitmill_kv_pages", kind="asked") == 3 + 2
    assert meter.total("traitmill_kv_pages", kind="present") == 64
    assert meter.total("traitmill_non_finite_values") == 3
    assert meter.total("traitmill_bundles", outcome="answered") == 1


def test_a_reply_without_steps_has_no_occupancy():
    meter = Meter()
    meter.note_reply("g", bundle(4), Reply(bundle_id="b", results=()), INFO)
    assert meter.total("traitmill_batch_requests") == 0


def test_a_lost_group_counts_by_error_type_and_a_closed_one_does_not():
    meter = Meter()
    meter.set("traitmill_ranks", 8, group="g")
    meter.note_failure("g", RankDied(doing="run", cause="killed", rank=3))
    assert meter.total("traitmill_failures", type="RankDied") == 1
    assert meter.total("traitmill_ranks") == 0
    meter.note_failure("g", None)
    assert meter.total("traitmill_failures") == 1


def test_scores_count_by_outcome_with_cost_and_latency():
    meter = Meter()
    meter.note_scores(
        "j",
        [
            JudgeScore(id="a", score=1.0, cost_usd=0.5, latency_s=0.25),
            JudgeScore(id="b", score=1.0, cached=True),
            JudgeScore(id="c", score=None, reason="r", cost_usd=0.25, latency_s=0.5),
        ],
    )
    outcomes = ("scored", "cached", "null")
    counts = [meter.total("traitmill_judge_queries", outcome=one) for one in outcomes]
    assert counts == [1, 1, 1]
    assert meter.total("traitmill_judge_usd") == 0.75
    assert meter.total("traitmill_judge_latency_seconds") == 0.75


def test_a_groups_seconds_are_booked_to_what_it_did():
    meter, seconds = Meter(), iter([0.0, 3.0, 10.0])
    clock = GroupClock("starting", clock=lambda: next(seconds))
    meter.note_use("g", clock, "busy")
    meter.note_use("g", clock, "busy")
    meter.note_use("g", clock, "queue")
    uses = ("starting", "busy", "queue")
    booked = [meter.total("traitmill_group_seconds", use=one) for one in uses]
    assert booked == [3.0, 7.0, 0.0]


def test_tasks_are_set_by_state():
    meter = Meter()
    meter.note_tasks({"done": 3, "pending": 4})
    meter.note_tasks({"done": 5, "pending": 2})
    assert meter.total("traitmill_tasks", state="done") == 5


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((FOLDER / "grafana_dashboard.json").read_text())


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_has_a_panel_and_every_query_a_metric(dashboard):
    text = " ".join(expressions(dashboard))
    asked = set(re.findall(r"ray_traitmill_\w+", text))
    asked = {one.removesuffix("_bucket") for one in asked}
    assert asked == {one.exported for one in METRICS}


def test_queries_sum_over_rays_own_labels_and_group_by_declared_ones(dashboard):
    for expression in expressions(dashboard):
        assert re.search(r"\b(sum|max)\b", expression), expression
        for name, labels in zip(
            re.findall(r"ray_(traitmill_\w+)", expression),
            re.findall(r"by \(([^)]*)\)", expression),
            strict=False,
        ):
            spec = BY_NAME[name.removesuffix("_total").removesuffix("_bucket")]
            assert set(labels.replace(" ", "").split(",")) <= {*spec.tags, "le"}


def test_panels_are_few_have_titles_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len(panels) <= 12
    assert len({one["id"] for one in panels}) == len(panels)
    cells = set()
    for one in panels:
        assert one["title"]
        assert one["description"].endswith(".")
        place = one["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & mine
        assert all(x < 24 for x, _ in mine)
        cells |= mine


def test_panels_ask_the_source_that_is_provisioned(dashboard):
    source = yaml.safe_load((FOLDER / "grafana_datasource.yaml").read_text())["datasources"][0]
    used = {target["datasource"]["uid"] for one in dashboard["panels"] for target in one["targets"]}
    assert used == {source["uid"]}


def test_the_compose_file_mounts_what_is_there_and_listens_on_loopback():
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert set(compose["services"]) == {"prometheus", "grafana"}
    for service in compose["services"].values():
        local = [one.split(":")[0] for one in service["volumes"] if one.startswith("./")]
        assert [one for one in local if not (FOLDER / one).exists()] == []
    assert "127.0.0.1:9090" in " ".join(compose["services"]["prometheus"]["command"])
    assert compose["services"]["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_the_dashboard_has_what_grafana_needs_to_import_it(dashboard):
    """Grafana cannot be run here; these are the fields that its importer reads."""
    assert dashboard["uid"] == "traitmill"
    assert dashboard["schemaVersion"] >= 36
    assert dashboard["templating"] == {"list": []}
    assert {"from", "to"} == set(dashboard["time"])
    for panel in dashboard["panels"]:
        assert panel["type"] == "timeseries"
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "bytes"}
        assert panel["gridPos"]["h"] >= 6
        assert panel["gridPos"]["w"] >= 8
        names = [target["refId"] for target in panel["targets"]]
        assert names == sorted(set(names))
        assert all(target["legendFormat"] for target in panel["targets"])
        assert len(panel["targets"]) <= 2
