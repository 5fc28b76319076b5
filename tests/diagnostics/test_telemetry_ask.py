"""The questions that checks share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from diagnostics.telemetry import ask
from diagnostics.telemetry.model import Function, Query, TelemetryError
from diagnostics.telemetry.recorded import Recorded, load_openmetrics

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
END = START + timedelta(minutes=10)
FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture(scope="module")
def telemetry() -> Recorded:
    """Pod a observes 0.5 s twice a second, pod b nothing; errors began to be exported half way."""
    lines = []
    for seconds in range(0, 601, 15):
        stamp = int(START.timestamp()) + seconds
        lines += [
            f'ttft_sum{{pod="a"}} {seconds} {stamp}',
            f'ttft_count{{pod="a"}} {2 * seconds} {stamp}',
            f'ttft_sum{{pod="b"}} 7 {stamp}',
            f'ttft_count{{pod="b"}} 3 {stamp}',
        ]
        if seconds >= 300:
            lines.append(f'errors_total{{pod="a"}} {seconds} {stamp}')
    return load_openmetrics("\n".join([*lines, "# EOF"]))


async def test_a_mean_is_the_sum_over_the_count(telemetry: Recorded) -> None:
    """A group without observations in the window is absent: its mean is unknown and not zero."""
    by_pod = await ask.mean(telemetry, "ttft", {}, FIVE_MINUTES, END, by=("pod",))

    assert by_pod == {("a",): pytest.approx(0.5)}
    assert await ask.mean(telemetry, "ttft", {"pod": "b"}, FIVE_MINUTES, END) == {}


async def test_a_mean_over_time_has_points_only_where_something_was_observed(telemetry: Recorded) -> None:
    """The first instant has one sample and therefore no rate."""
    points = await ask.mean_matrix(telemetry, "ttft", {}, FIVE_MINUTES, START, END, FIVE_MINUTES, by=("pod",))

    assert list(points) == [("a",)]
    assert [instant for instant, _ in points["a",]] == [START + FIVE_MINUTES, END]
    assert [value for _, value in points["a",]] == pytest.approx([0.5, 0.5])


async def test_a_ratio_needs_both_sides(telemetry: Recorded) -> None:
    """What only one side has is absent from the ratio."""
    errors = Query(metric="errors_total", function=Function.RATE, window=FIVE_MINUTES, by=("pod",))
    requests = Query(metric="ttft_count", function=Function.RATE, window=FIVE_MINUTES, by=("pod",))

    assert await ask.ratio(telemetry, errors, requests, END) == {("a",): pytest.approx(0.5)}
    assert await ask.ratio(telemetry, errors, requests, START + FIVE_MINUTES) == {}


async def test_a_ratio_of_different_groups_is_a_mistake(telemetry: Recorded) -> None:
    """Groups that cannot be matched would give an empty answer that looks like silence."""
    with pytest.raises(ValueError, match="same groups"):
        await ask.ratio(telemetry, Query(metric="a", by=("pod",)), Query(metric="b"), END)


async def test_a_scalar_is_one_number_or_none(telemetry: Recorded) -> None:
    """None says that there is no data."""
    assert await ask.scalar(telemetry, Query(metric="ttft_sum"), END) == 607
    assert await ask.scalar(telemetry, Query(metric="nothing"), END) is None
    with pytest.raises(ValueError, match="no single answer"):
        await ask.scalar(telemetry, Query(metric="ttft_sum", by=("pod",)), END)


class _Clock(Recorded):
    """A telemetry whose clock a test winds."""

    def __init__(self, times: Iterator[datetime]) -> None:
        self._ticks = times

    async def now(self) -> datetime:
        return next(self._ticks)


async def test_waiting_ends_when_the_telemetrys_own_clock_gets_there() -> None:
    """A drill's clock jumps by seconds; the first reading at or after the instant ends the wait."""
    ticks = iter([START, START + timedelta(seconds=15), START + timedelta(seconds=30), END])

    await ask.wait_until(_Clock(ticks), START + timedelta(seconds=20), poll_s=0)

    assert next(ticks) == END


def _creeping() -> Iterator[datetime]:
    tick = START
    while True:
        yield tick
        tick += timedelta(microseconds=1)


async def test_waiting_for_a_clock_that_stands_still_is_given_up() -> None:
    """A recorder whose scrapes all fail creeps by milliseconds; that must not keep a verification waiting for ever."""
    with pytest.raises(TelemetryError, match="stands still at 2026-03-01T10:00:00"):
        await ask.wait_until(_Clock(_creeping()), END, stalled_after_s=0.05, poll_s=0)
