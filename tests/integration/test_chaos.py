"""The short form of ``make chaos``: a rank, a driver and a judge die, and no byte differs."""

from __future__ import annotations

import random

import pytest

from tests.chaos.stage import Stage
from tests.chaos.trial import Trial, differences

pytestmark = pytest.mark.ray

SMALL = (
    "trait=anxiety",
    "layer=[1,2]",
    "steering.coefficient_ratios=[1.0]",
    "cluster.tensor_parallel_size=1",  # `make chaos` has two ranks
)


class Script(random.Random):
    """Kills in this order, each a little after the first progress since the last one."""

    def __init__(self, *ways):
        super().__init__(0)
        self.ways = list(ways)

    def choices(self, population, weights=None, *, cum_weights=None, k=1):
        return [self.ways.pop(0)]

    def random(self):
        return 0.9  # never early

    def uniform(self, low, high):
        return low


def test_a_killed_rank_driver_and_judge_cost_what_was_in_flight_and_no_byte(tmp_path):
    with Stage(tmp_path) as stage:
        clean = Trial(stage, tmp_path / "clean", SMALL, True, random.Random(0), lambda _: None)
        assert clean.undisturbed() == 0
        script = Script("rank", "driver", "judge")
        hit = Trial(stage, tmp_path / "hit", SMALL, True, script, lambda _: None)

        assert hit.torment(3) == 0

    assert [kill.way for kill in hit.story.kills] == ["rank", "driver", "judge"]
    assert hit.story.settle() == []  # nothing was computed twice without need
    assert hit.story.num_lost() == 0
    for kill in hit.story.kills:
        assert kill.repeated_bundles <= len(kill.bundles)
    assert differences(tmp_path / "hit", tmp_path / "clean") == []
