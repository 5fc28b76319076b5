"""One case as it was lived through: a fleet with drawn habits, a fault (or none, or two), changes, and an alert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from lab import cluster, gateway
from lab.cases.decoys import innocent_deeds
from lab.cluster_objects import autoscaler
from lab.fleet import Fleet, gpu_racks
from lab.hardware import Hardware
from lab.history import History
from lab.normal import draw_normal
from lab.prompt_store import PromptStore
from lab.scenarios.fault import Fault, Shape
from lab.scenarios.faults import FAULTS
from lab.scenarios.prompt_past import write_prompts
from lab.stage import Deed, Stage

ALERTS = tuple(sorted({fault.alert for fault in FAULTS.values()}))
"""What may page where nothing is wrong: any rule of the pack fires falsely now and then."""

_PAST = timedelta(hours=2)
_LATE = frozenset({"LLMJudgeDrop"})
"""Alerts on labels that come minutes after the answers they are about."""

_FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a case is to be about. No fault is a healthy run; `strength` None is drawn between 0.6 and 1.6."""

    seed: tuple[int, ...]
    faults: tuple[str, ...] = ()
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class Life:
    """What is left when the alert fires. `onset` is None for a healthy run."""

    recipe: Recipe
    rng: np.random.Generator
    stage: Stage
    fleet: Fleet
    history: History
    faults: tuple[Fault, ...]
    shapes: tuple[Shape, ...]
    onset: datetime | None
    alerted_at: datetime
    alert: str


def live(recipe: Recipe) -> Life:
    """Play a case from two hours or more before its onset up to its alert. Takes a few seconds."""
    rng = np.random.default_rng(recipe.seed)
    start = _FIRST_DAY + timedelta(seconds=15 * int(rng.integers(0, 200 * 24 * 240)))
    onset = start + _PAST + timedelta(minutes=float(rng.uniform(3, 45)))
    stage, fleet = _world(rng, start)
    faults = tuple(FAULTS[name](recipe.strength or _strength(rng)) for name in recipe.faults)
    shapes = tuple(fault.shapes[int(rng.integers(len(fault.shapes)))] for fault in faults)
    alerted_at = onset + _until_alert(rng, faults, shapes, stage.judge.lag)
    if not faults:
        write_prompts(stage, start)
    deeds = innocent_deeds(rng, onset, alerted_at)
    for fault, shape in zip(faults, shapes, strict=True):
        fault.set_up(stage, start)
        fault.draw(stage)
        deeds += fault.deeds(onset, alerted_at, shape, stage)
    history = _play(fleet, sorted(deeds, key=lambda deed: deed.at), until=alerted_at)
    return Life(
        recipe=recipe,
        rng=rng,
        stage=stage,
        fleet=fleet,
        history=history,
        faults=faults,
        shapes=shapes,
        onset=onset if faults else None,
        alerted_at=alerted_at,
        alert=faults[0].alert if faults else str(rng.choice(np.asarray(ALERTS))),
    )


def _world(rng: np.random.Generator, start: datetime) -> tuple[Stage, Fleet]:
    built = cluster.build(rng, start)
    built.put("horizontalpodautoscalers", autoscaler(cluster.ENGINE, 4, 4, created=start))
    stage = Stage(
        prompts=PromptStore(),
        cluster=built,
        gateway=gateway.build(rng, gpu_racks(built), draw_normal(rng)),
        hardware=Hardware(),
        rng=rng,
    )
    stage.judge.lag = timedelta(minutes=float(rng.uniform(5, 10)))
    peak = start.replace(hour=int(rng.integers(9, 19)), minute=0, second=0)
    return stage, Fleet(start=start, peak=peak, stage=stage, has_weekends=True)


def _until_alert(
    rng: np.random.Generator, faults: Sequence[Fault], shapes: Sequence[Shape], lag: timedelta
) -> timedelta:
    """A rule needs its window and its `for`; a ramp has to climb first, and a judge's scores come late."""
    waited = timedelta(minutes=float(rng.uniform(7, 20)))
    if Shape.RAMP in shapes:
        waited += timedelta(minutes=5)
    if any(fault.alert in _LATE for fault in faults):
        waited += lag
    return waited


def _strength(rng: np.random.Generator) -> float:
    """As often milder than usual as stronger: from 0.6 to 1.6 times, evenly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))


def _play(fleet: Fleet, deeds: Sequence[Deed], *, until: datetime) -> History:
    history = History(start=fleet.start)
    waiting = list(deeds)
    while fleet.next_step <= until:
        while waiting and waiting[0].at <= fleet.next_step:
            waiting.pop(0).do(fleet.stage)
        fleet.step()
        history.record(fleet.registry)
    return history
