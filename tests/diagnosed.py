"""Recorded synthetic runs and their frames, made once per test session since reading a text takes a while."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from diagnostics.diagnosis import Frame
from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests import synthetic

HISTORY = timedelta(minutes=35)


@cache
def recorded(scenario: str, without: tuple[str, ...] = ()) -> Recorded:
    """Thirty-five minutes of a scenario whose fault began twelve minutes before the end."""
    return load_openmetrics(synthetic.openmetrics(scenario, history=HISTORY, without=without))


def frame_of() -> Frame:
    """The end of a run against the quarter of an hour before its onset."""
    return Frame(
        at=synthetic.END,
        baseline_start=synthetic.ONSET - timedelta(minutes=22),
        baseline_end=synthetic.ONSET - timedelta(minutes=5),
    )
