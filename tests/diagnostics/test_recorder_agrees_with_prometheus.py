"""The recorder and a real Prometheus, asked the same about the same samples, give the same answers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from diagnostics.telemetry.model import Aggregation, Function, Matrix, Query, Telemetry, Vector
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests.real_prometheus import start_prometheus

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
SPAN_S = 5400
BOUNDS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
WINDOWS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=10), timedelta(seconds=47, milliseconds=500))
TOLERANCE = 1e-9  # the house promises 1 %; the same arithmetic gives far more


def _moments(dice: random.Random, *, interval: float, jitter: float) -> list[float]:
    """
    Scrape times in seconds after START: single scrapes missed, and outages of up to eight minutes.

    Without jitter they are round, so that the ends of windows and of the lookback fall exactly on samples.
    """
    moments, at = [], dice.uniform(0, interval) if jitter else 0.0
    while at < SPAN_S:
        moments.append(round(at + dice.uniform(0, jitter), 3))
        at += interval
        if dice.random() < 0.03:
            at += interval
        if dice.random() < 0.01:
            at += dice.uniform(60, 480) if jitter else interval * dice.randrange(4, 32)
    return moments


def _lifetime(dice: random.Random, moments: list[float]) -> list[float]:
    """Some series begin late, some vanish for good, some come back."""
    begin = dice.choice((0, 0, dice.uniform(0, SPAN_S / 2)))
    end = dice.choice((SPAN_S, SPAN_S, dice.uniform(SPAN_S / 2, SPAN_S)))
    return [moment for moment in moments if begin <= moment <= end]


def _counter(dice: random.Random, moments: list[float]) -> list[float]:
    value, values = dice.choice((0.0, 3.0, 1e6)), []
    for _ in moments:
        value += dice.choice((0, 0, 1, dice.randrange(50), dice.random() * 10))
        if dice.random() < 0.02:
            value = dice.choice((0.0, dice.random() * value))  # the process restarted
        values.append(value)
    return values


def _gauge(dice: random.Random, moments: list[float]) -> list[float]:
    value, values = dice.gauss(0, 10), []
    for _ in moments:
        if dice.random() < 0.3:
            value = dice.gauss(0, 10)
        values.append(math.nan if dice.random() < 0.02 else value)
    return values


def _samples(seed: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Series as text, with their times and values."""
    dice = random.Random(seed)  # repeatable test data
    for pod, (interval, jitter) in enumerate([(15, 0), (15, 0.4), (15, 0), (30, 2), (60, 0), (7, 0.1)]):
        target = _moments(dice, interval=interval, jitter=jitter)
        where = f'pod="p{pod}",namespace="{"chat" if pod % 2 else "shop"}"'
        for status in ("ok", "5xx"):
            life = _lifetime(dice, target)
            yield f'requests_total{{{where},status="{status}"}}', life, _counter(dice, life)
        life = _lifetime(dice, target)
        yield f"running{{{where}}}", life, _gauge(dice, life)
        yield f"up{{{where}}}", target, [float(dice.random() < 0.9) for _ in target]
        yield from _histogram(dice, where, _lifetime(dice, target))


def _histogram(dice: random.Random, where: str, life: list[float]) -> Iterator[tuple[str, list[float], list[float]]]:
    counts, total = [0.0] * len(BOUNDS), 0.0
    columns: list[list[float]] = [[] for _ in BOUNDS]
    sums, quiet = [], dice.random() < 0.3
    for _ in life:
        if dice.random() < 0.01:
            counts, total = [0.0] * len(BOUNDS), 0.0
        for _ in range(0 if quiet and dice.random() < 0.9 else dice.randrange(12)):
            observed = dice.lognormvariate(-0.5, 1.2)
            total += observed
            for at, bound in enumerate(BOUNDS):
                counts[at] += observed <= float(bound)
        for column, count in zip(columns, counts, strict=True):
            # A scrape is not atomic: at times a bucket seems to hold less than the one below it.
            column.append(count - 2 if count > 9 and dice.random() < 0.02 else count)
        sums.append(total)
    for bound, column in zip(BOUNDS, columns, strict=True):
        # Exporters disagree about how to write the same bound.
        written = "1.0" if bound == "1" and '"p1"' in where else bound
        late = (
            len(life) // 2 if bound == "2.5" or (bound == "10" and '"p2"' in where) else 0
        )  # and not every bucket is there from the start
        yield f'ttft_seconds_bucket{{{where},le="{written}"}}', life[late:], column[late:]
    yield f"ttft_seconds_sum{{{where}}}", life, sums
    yield f"ttft_seconds_count{{{where}}}", life, columns[-1]


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


@pytest.fixture(scope="module", params=[1, 2])
def openmetrics(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety minutes of six pods' telemetry, with everything that goes wrong with telemetry."""
    lines = []
    for head, moments, values in _samples(request.param):
        for moment, value in zip(moments, values, strict=True):
            # Prometheus cuts the float's milliseconds, so write a time that survives being cut.
            milliseconds = round(START.timestamp() * 1000) + round(moment * 1000)
            lines.append(f"{head} {_number(value)} {milliseconds // 1000}.{milliseconds % 1000:03d}5")
    path = tmp_path_factory.mktemp("samples") / "metrics.om"
    path.write_text("\n".join([*lines, "# EOF", ""]))
    return path


@pytest.fixture(scope="module")
def url(openmetrics: Path) -> Iterator[str]:
    with start_prometheus(openmetrics) as url:
        yield url


@pytest.fixture(scope="module")
def recorded(openmetrics: Path) -> Recorded:
    return load_openmetrics(openmetrics)


@pytest_asyncio.fixture
async def prometheus(url: str) -> AsyncIterator[PrometheusTelemetry]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield PrometheusTelemetry(url, client=client)


def _queries() -> list[Query]:
    ranged = [function for function in Function if function not in {Function.VALUE, Function.QUANTILE}]
    metrics = ("requests_total", "running", "ttft_seconds_sum")
    groupings: tuple[tuple[str, ...], ...] = ((), ("pod",), ("namespace", "missing"), ("namespace", "pod", "status"))
    queries = [
        Query(metric=metric, function=function, window=window, by=by)
        for metric, function, window, by in itertools.product(metrics, ranged, WINDOWS, groupings[1:3])
    ]
    queries += [
        Query(metric=metric, aggregation=aggregation, by=by)
        for metric, aggregation, by in itertools.product((*metrics, "up"), Aggregation, groupings)
    ]
    queries += [
        Query(metric="requests_total", function=function, window=WINDOWS[1], aggregation=aggregation, by=by)
        for function, aggregation, by in itertools.product(ranged, Aggregation, groupings[:2])
    ]
    return queries + _matched() + _quantiles(groupings[:3])


def _matched() -> list[Query]:
    wheres = (
        {"pod": "p1"},
        {"pod": "!p1"},
        {"pod": "~p[13]", "namespace": "chat"},
        {"pod": "!~p[13]|p5"},
        {"pod": "~p"},  # the whole value has to match
        {"missing": ""},
        {"missing": "!"},
        {"status": "~.+", "namespace": "!~"},
    )
    return [
        Query(metric="requests_total", where=where, function=Function.RATE, window=WINDOWS[1], by=("pod",))
        for where in wheres
    ]


def _quantiles(groupings: tuple[tuple[str, ...], ...]) -> list[Query]:
    return [
        Query(metric="ttft_seconds", function=Function.QUANTILE, quantile=quantile, window=window, by=by)
        for quantile, window, by in itertools.product((0, 0.05, 0.5, 0.95, 0.999, 1), WINDOWS[:3], groupings)
    ]


def _instants() -> list[datetime]:
    """Round times, on which samples and the ends of windows fall exactly, and others."""
    dice = random.Random(3)  # repeatable test data
    odd = [START + timedelta(milliseconds=dice.randrange(SPAN_S * 1000 + 600_000)) for _ in range(4)]
    return [START, START + timedelta(minutes=30), START + timedelta(minutes=90), *odd]


def _differences(ours: Vector, theirs: Vector) -> list[str]:
    different = [f"only the recorder has {key}" for key in ours.keys() - theirs.keys()]
    different += [f"only Prometheus has {key}" for key in theirs.keys() - ours.keys()]
    different += [
        f"{key}: {ours[key]!r}, Prometheus {theirs[key]!r}"
        for key in ours.keys() & theirs.keys()
        if not math.isclose(ours[key], theirs[key], rel_tol=TOLERANCE, abs_tol=1e-9)
    ]
    return different


def _points(matrix: Matrix) -> dict[tuple[str, ...], float]:
    return {(*key, instant.isoformat()): value for key, points in matrix.items() for instant, value in points}


async def test_every_function_and_aggregation_agrees_over_time(
    recorded: Telemetry, prometheus: PrometheusTelemetry
) -> None:
    """Over resets, gaps, late, vanished and returning series: the same groups have the same points."""
    compared, different = 0, []
    step = timedelta(seconds=75)
    for query in _queries():
        ours = _points(await recorded.matrix(query, START, START + timedelta(seconds=SPAN_S), step))
        theirs = _points(await prometheus.matrix(query, START, START + timedelta(seconds=SPAN_S), step))
        compared += len(theirs)
        different += [f"{query}: {line}" for line in _differences(ours, theirs)]

    assert different == []
    assert compared > 30_000


async def test_every_function_and_aggregation_agrees_at_single_instants(
    recorded: Telemetry, prometheus: PrometheusTelemetry
) -> None:
    """At instants on and off the samples, and past the end: the same groups have the same number."""
    compared, different = 0, []
    for query, at in itertools.product(_queries()[::3], _instants()):
        theirs = await prometheus.vector(query, at)
        compared += len(theirs)
        different += [f"{query} at {at}: {line}" for line in _differences(await recorded.vector(query, at), theirs)]

    assert different == []
    assert compared > 1_000


async def test_both_know_what_is_exported(recorded: Telemetry, prometheus: PrometheusTelemetry) -> None:
    """Whether a metric was there in the last hour is answered alike: before, within, and long after its samples."""
    instants = [START + timedelta(minutes=minutes) for minutes in (-1, 10, 89, 145, 160)]
    asked = [("running", {}), ("running", {"pod": "p2"}), ("running", {"pod": "nobody"}), ("nothing", {})]
    ours = [await recorded.exported(metric, at, where) for (metric, where), at in itertools.product(asked, instants)]
    theirs = [
        await prometheus.exported(metric, at, where) for (metric, where), at in itertools.product(asked, instants)
    ]

    assert ours == theirs
    assert True in ours
    assert False in ours
