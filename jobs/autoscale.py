"""How many groups of which model should be up follows from the queue and the room, nothing else.

A table in code, without clocks or state. Models come in the order in which the plan needs them. The
first that has work gets the groups it can use; what is left goes to the next. So where only one
group fits, one model's work is finished before the other model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class ScaleLimits:
    """What the configuration and the cluster allow, over all models."""

    least: int = 1
    """Groups that work asks for as soon as there are so many bundles."""
    most: int = 1
    """Groups at once; more than ``least`` only while the queue is long."""
    bundles_per_group: int = 4
    """Ready bundles that may wait per group before another group is started."""
    idle_s: float = 60.0
    """A group beyond ``least`` ends after so long without work."""


class Load(NamedTuple):
    """One model's work and groups."""

    waiting: int
    """Bundles that a group could take now."""
    flying: int
    """Bundles at groups."""
    up: int
    """Groups that are ready or starting."""
    idle_s: tuple[float, ...] = ()
    """Seconds without work of each ready group that has none."""
    leaving: int = 0
    """Groups that are on their way out and still hold their place."""


class Change(NamedTuple):
    """What to do about one model's groups."""

    start: int
    stop: int
    """Of those without work."""


def wanted(load: Load, limits: ScaleLimits) -> int:
    """Groups that one model has work for."""
    work = load.waiting + load.flying
    if work == 0:
        return 0
    count = max(min(limits.least, work), min(load.up, work))
    if load.waiting > limits.bundles_per_group * load.up:
        count = max(count, math.ceil(load.waiting / limits.bundles_per_group))
    return min(count, work, limits.most)


def decide(loads: Sequence[Load], limits: ScaleLimits) -> list[Change]:
    """Choose how many groups of each model to start and to stop.

    Args:
        loads: One for each model, in the order in which the plan needs them.
        limits: Over all models.
    """
    left = limits.most
    targets = []
    for load in loads:
        target = min(left, wanted(load, limits))
        targets.append(target)
        left -= target
    leaving = sum(load.leaving for load in loads)
    room = limits.most - leaving - sum(load.up for load in loads)
    starved = sum(max(0, target - load.up) for target, load in zip(targets, loads, strict=True))
    starved -= leaving  # their places are for those that wait for one
    changes = []
    for target, load in zip(targets, loads, strict=True):
        start = max(0, min(target - load.up, room))
        room -= start
        starved -= start
        changes.append(Change(start, 0))
    up = sum(load.up for load in loads)
    for place, (target, load) in enumerate(zip(targets, loads, strict=True)):
        spare = min(len(load.idle_s), max(0, load.up - target))
        stop = min(spare, max(0, starved))
        starved -= stop
        tired = sum(idle_s >= limits.idle_s for idle_s in load.idle_s)
        stop = max(stop, min(spare, tired, max(0, up - limits.least)))
        up -= stop
        changes[place] = Change(changes[place].start, stop)
    return changes
