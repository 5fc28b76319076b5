"""Lab time: where it starts, how fast it goes, and that waiting for it waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from lab.clock import LabClock

START = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)


class Wall:
    """A wall clock that moves when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_lab_time_stands_still_until_it_runs() -> None:
    """Preparing two hours of history takes seconds of wall time, and no lab time."""
    wall = Wall()
    clock = LabClock(pace=20, start=START, elapsed=wall)
    wall.seconds += 5
    assert clock.now() == START

    clock.run()
    wall.seconds += 3
    assert clock.now() == START + timedelta(minutes=1)


def test_running_twice_changes_nothing() -> None:
    """A second start must not throw lab time back."""
    wall = Wall()
    clock = LabClock(pace=20, start=START, elapsed=wall)
    clock.run()
    wall.seconds += 3
    clock.run()
    assert clock.now() == START + timedelta(minutes=1)


def test_waiting_is_told_in_wall_seconds() -> None:
    """A minute of lab time at 20 times is three seconds of a person's; the past needs no waiting."""
    clock = LabClock(pace=20, start=START, elapsed=Wall())
    clock.run()
    assert clock.wall_seconds_until(START + timedelta(minutes=1)) == pytest.approx(3.0)
    assert clock.wall_seconds_until(START - timedelta(minutes=1)) == 0.0


async def test_sleeping_ends_when_the_moment_has_come() -> None:
    """Whoever sleeps until a lab moment finds lab time there."""
    clock = LabClock(pace=50_000, start=START)
    clock.run()
    moment = START + timedelta(minutes=30)
    async with asyncio.timeout(5):
        await clock.sleep_until(moment)
    assert clock.now() >= moment


def test_lab_time_is_utc() -> None:
    """Whatever the zone of the start, samples are stamped in UTC."""
    other_zone = START.astimezone(datetime.fromisoformat("2026-03-03T12:00:00+05:30").tzinfo)
    assert LabClock(pace=1, start=other_zone).now().tzinfo is UTC


@pytest.mark.parametrize("pace", [0, -1])
def test_a_pace_must_be_positive(pace: float) -> None:
    """A clock that stands or goes backwards would hang every wait."""
    with pytest.raises(ValueError, match="positive pace"):
        LabClock(pace=pace, start=START)


def test_a_start_without_zone_is_refused() -> None:
    """A naive time would silently mean the machine's zone."""
    with pytest.raises(ValueError, match="time zone"):
        LabClock(pace=1, start=START.replace(tzinfo=None))
