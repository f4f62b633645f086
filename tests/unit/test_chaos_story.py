"""The trial's own bookkeeping: what a kill may cost, and when it counts as noticed and mended."""

from __future__ import annotations

import json

import pytest

from tests.chaos.story import Kill, Story, rows


def story(tmp_path, kills, *events):
    path = tmp_path / "run.events"
    path.write_text("".join(json.dumps({"t": t, "e": e, **more}) + "\n" for t, e, more in events))
    told = Story(path)
    told.kills = [Kill(way, t, "sent") for way, t in kills]
    return told


SENT = (1.0, "sent", {"bundle": "b0", "tasks": ["a", "b"]})
AGAIN = (6.0, "sent", {"bundle": "b0", "tasks": ["a", "b"]})


def commit(t, task):
    return (t, "commit", {"task": task})


def test_a_bundle_that_was_half_committed_may_be_computed_again(tmp_path):
    told = story(tmp_path, [("driver", 3.0)], SENT, commit(2.0, "a"), AGAIN, commit(7.0, "b"))
    assert told.settle() == []
    (kill,) = told.kills
    assert (kill.bundles, kill.repeated_bundles) == ({"b0"}, 1)
    assert told.num_lost() == 0


def test_a_bundle_that_was_committed_whole_may_not(tmp_path):
    done = (SENT, commit(2.0, "a"), commit(2.5, "b"), AGAIN, commit(7.0, "a"))
    told = story(tmp_path, [("driver", 3.0)], *done)
    assert told.settle() == ["b0"]
    assert told.num_lost() == 1


def test_a_task_on_the_drivers_cpus_that_was_committed_may_not_begin_again(tmp_path):
    begun = [(t, "begin", {"task": "fit", "judges": False}) for t in (1.0, 5.0)]
    told = story(tmp_path, [("driver", 3.0)], begun[0], commit(2.0, "fit"), begun[1])
    assert told.settle() == ["fit"]


def test_a_rank_counts_as_noticed_when_its_bundle_failed_and_mended_at_the_next_answer(tmp_path):
    told = story(
        tmp_path,
        [("rank", 3.0)],
        SENT,
        (3.4, "failed", {"bundle": "b0"}),
        commit(3.5, "z"),  # the driver's own work goes on meanwhile
        (8.0, "answered", {"bundle": "b0"}),
    )
    told.settle()
    assert told.kills[0].detected_s == pytest.approx(0.4)
    assert told.kills[0].recovered_s == pytest.approx(5.0)


def test_a_kill_before_the_last_one_was_mended_leaves_no_time_of_recovery(tmp_path):
    told = story(
        tmp_path,
        [("rank", 3.0), ("driver", 4.0)],
        SENT,
        (3.4, "failed", {"bundle": "b0"}),
        (4.1, "process gone", {}),
        (9.0, "answered", {"bundle": "b0"}),
    )
    told.settle()
    table = {row["way"]: row for row in rows(told.kills)}
    assert (table["rank"]["detected"], table["rank"]["recovered"]) == (1, 0)
    assert table["driver"]["recovered_s_median"] == 5.0
    assert table["all"]["kills"] == 2
    assert table["judge"]["detected_s_max"] is None


def test_half_a_line_is_left_for_the_next_look(tmp_path):
    told = story(tmp_path, [], SENT)
    with told.path.open("ab") as lines:
        lines.write(b'{"t": 2.0, "e": "ans')
    assert [e["e"] for e in told.look()] == ["sent"]
    with told.path.open("ab") as lines:
        lines.write(b'wered"}\n')
    assert [e["e"] for e in told.look()] == ["answered"]


def test_a_judge_that_dies_meanwhile_hides_no_rank(tmp_path):
    told = story(
        tmp_path,
        [("rank", 3.0), ("judge", 3.2)],
        SENT,
        (3.3, "judge away", {}),
        (3.4, "failed", {"bundle": "b0"}),
        (4.0, "judge answered", {}),
        (9.0, "answered", {"bundle": "b0"}),
    )
    told.settle()
    rank, judge = told.kills
    assert (rank.detected_s, rank.recovered_s) == (pytest.approx(0.4), 6.0)
    assert (judge.detected_s, judge.recovered_s) == (pytest.approx(0.1), pytest.approx(0.8))
