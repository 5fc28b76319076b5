"""Since when: change points on synthetic series, and the onset of whole runs."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from diagnostics.onset import change_points, left_since, look_back, noise_of
from diagnostics.onset_signals import Level
from tests import synthetic
from tests.application_signals import born, counter, telemetry
from tests.diagnosed import recorded

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
UP = Level(side=1, relative=0.15)


def noisy(levels: list[tuple[int, float]], sigma: float, seed: int = 1) -> list[float]:
    noise = random.Random(seed)
    return [level + noise.gauss(0, sigma) for count, level in levels for _ in range(count)]


def at_minutes(values: list[float]) -> list[tuple[datetime, float]]:
    return [(START + timedelta(minutes=index), value) for index, value in enumerate(values)]


def test_noise_is_measured_beside_a_shift() -> None:
    """Neighbours' differences see the noise and not the step."""
    assert noise_of(noisy([(50, 1.0), (50, 9.0)], 0.1)) == pytest.approx(0.1, rel=0.3)


def test_a_shift_of_two_sigma_is_found() -> None:
    """The measured claim of the parameters: median error 0, 95 % within 3 minutes."""
    errors = []
    for seed in range(20):
        found = change_points(noisy([(90, 1.0), (30, 1.2)], 0.1, seed))
        errors.append(min((abs(index - 90) for index in found), default=99))
    assert sorted(errors)[10] <= 1
    assert sorted(errors)[18] <= 3


def test_noise_alone_has_few_change_points() -> None:
    """At most one of forty quiet series may raise a false alarm (measured: 1 %)."""
    alarms = sum(bool(change_points(noisy([(120, 1.0)], 0.1, seed))) for seed in range(40))
    assert alarms <= 1


@pytest.mark.parametrize("values", [[], [1.0] * 5, [3.0] * 60])
def test_a_short_or_still_series_has_none(values: list[float]) -> None:
    """Nothing to see is not an error."""
    assert change_points(values) == []


def test_a_level_that_was_left_and_taken_again_is_no_onset() -> None:
    """Twenty minutes of trouble an hour ago are over."""
    values = noisy([(60, 1.0), (20, 2.0), (40, 1.0)], 0.05)
    assert left_since(at_minutes(values), UP) is None


def test_a_blip_shortly_before_is_another_matter() -> None:
    """Three minutes a little above normal, then calm: the trouble began when it came for good, and much higher."""
    assert left_since(at_minutes(noisy([(80, 1.0), (3, 2.2), (4, 1.0), (13, 9.0)], 0.05)), UP) == 87


def test_a_short_lull_does_not_end_the_trouble() -> None:
    """An intermittent fault pauses for minutes; the onset is its first minute."""
    values = noisy([(80, 1.0), (8, 2.0), (4, 1.0), (8, 2.0)], 0.05)
    assert left_since(at_minutes(values), UP) == 80


def test_only_the_bad_side_counts() -> None:
    """Getting faster is no trouble."""
    assert left_since(at_minutes(noisy([(80, 2.0), (20, 1.0)], 0.05)), UP) is None


@pytest.mark.parametrize("scenario", ["S04", "S02", "S03", "S09", "S06", "G05", "I02", "I05", "I09"])
async def test_a_step_is_dated_to_the_minute(scenario: str) -> None:
    """The interval holds the true onset, and the best guess is at most two minutes off."""
    history = await look_back(recorded(scenario), synthetic.target(), synthetic.END)
    assert history.onset is not None
    assert history.onset.earliest <= synthetic.ONSET <= history.onset.latest
    assert abs(history.onset.at - synthetic.ONSET) <= timedelta(minutes=2)


@pytest.mark.parametrize("failing", [("5xx",), ("500", "503")])
async def test_a_status_is_a_class_or_a_code(failing: tuple[str, ...]) -> None:
    """Applications count either; requests that begin to fail have an onset all the same."""
    requests = "llm_app_requests_total"
    series = [counter(requests, 20, 14, status="200"), *(born(requests, 3, status=status) for status in failing)]
    history = await look_back(telemetry(series), synthetic.target(), synthetic.END)
    assert history.onset is not None
    assert history.onset.earliest <= synthetic.ONSET <= history.onset.latest


async def test_a_gateway_alone_dates_a_slow_provider() -> None:
    """Who only uses providers has no engine and maybe no application metrics; the gateway knows since when."""
    latency = "litellm_llm_api_latency_metric"
    series = [
        counter("litellm_proxy_total_requests_metric_total", 10),
        counter(f"{latency}_count", 10),
        counter(f"{latency}_sum", 20, 100),
    ]
    alone = replace(synthetic.target(), selectors={"gateway": {}})
    history = await look_back(telemetry(series), alone, synthetic.END)
    assert history.onset is not None
    assert history.onset.earliest <= synthetic.ONSET <= history.onset.latest
    assert history.begins is not None


async def test_a_healthy_run_has_no_onset() -> None:
    """Nothing left its level; where the data begins is known."""
    history = await look_back(recorded("none"), synthetic.target(), synthetic.END)
    assert history.onset is None
    assert history.begins is not None
    assert history.begins <= synthetic.END - timedelta(minutes=32)
