"""The recorder and a real Prometheus scrape the same exporter side by side, and see it live and die alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio

from diagnostics.telemetry.model import Aggregation, Function, Query, Telemetry
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from diagnostics.telemetry.recorder import Recorder
from tests.exporter import Exporter, start_exporter
from tests.real_prometheus import start_scraping_prometheus

pytestmark = pytest.mark.integration

SCRAPERS = ("Prometheus", "python-httpx")
NAMES = ("up", "stays", "vanishes", "dated", "label_vanishes", "counts_total")


class _Pair:
    """Both scrapers over one exporter."""

    def __init__(self, exporter: Exporter, prometheus: PrometheusTelemetry, recorder: Recorder) -> None:
        self.exporter, self.prometheus, self.recorder = exporter, prometheus, recorder

    async def scraped(self, times: int) -> None:
        """Wait until both have finished `times` scrapes that began after now."""
        goals = {scraper: self.exporter.asked[scraper] + times + 1 for scraper in SCRAPERS}
        async with asyncio.timeout(60):
            while any(self.exporter.asked[scraper] < goal for scraper, goal in goals.items()):  # a process
                await asyncio.sleep(0.05)

    async def seen(self) -> tuple[dict[str, float], dict[str, float]]:
        """How many series of each name both see now, and the sum of their values."""
        now = datetime.now(UTC)
        answers: tuple[dict[str, float], dict[str, float]] = ({}, {})
        both: tuple[Telemetry, Telemetry] = (self.recorder, self.prometheus)
        for telemetry, answer in zip(both, answers, strict=True):
            for name in NAMES:
                for aggregation in (Aggregation.COUNT, Aggregation.SUM):
                    vector = await telemetry.vector(Query(metric=name, aggregation=aggregation), now)
                    if () in vector:
                        answer[f"{aggregation} {name}"] = vector[()]
        return answers


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[_Pair]:
    with start_exporter() as exporter, start_scraping_prometheus(exporter.address, interval="500ms") as url:
        async with httpx.AsyncClient(trust_env=False) as client:
            recorder = Recorder(targets=[exporter.url], interval_s=0.5, client=client)
            await recorder.start()
            yield _Pair(exporter, PrometheusTelemetry(url, client=client), recorder)
            await recorder.stop()


async def test_series_live_and_die_alike(pair: _Pair) -> None:
    """A series that vanishes ends at the next scrape, one with its own timestamps does not, a dead target ends all."""
    dated = f"dated 5 {time.time_ns() // 1_000_000}"
    pair.exporter.says("stays 1", "vanishes 7", dated, 'label_vanishes{a="1"} 2', 'label_vanishes{a="2"} 3')
    await pair.scraped(2)
    alive = await pair.seen()
    pair.exporter.says("stays 1", 'label_vanishes{a="2"} 3')
    await pair.scraped(2)
    vanished = await pair.seen()
    pair.exporter.status = 500
    await pair.scraped(2)
    dead = await pair.seen()
    pair.exporter.status = 200
    await pair.scraped(2)
    back = await pair.seen()

    assert alive[0] == alive[1]
    assert alive[0]["count label_vanishes"] == 2
    assert vanished[0] == vanished[1]
    assert "count vanishes" not in vanished[0]
    assert vanished[0]["sum label_vanishes"] == 3
    assert dead[0] == dead[1] == {"count up": 1, "sum up": 0, "count dated": 1, "sum dated": 5}
    assert back[0] == back[1]
    assert back[0]["sum stays"] == 1


async def test_rates_agree_within_one_percent_although_scraped_at_other_moments(pair: _Pair) -> None:
    """A counter that grows by 1000 a second has that rate for both."""
    begun = time.monotonic()

    def body() -> bytes:
        return f"counts_total {1000 * (time.monotonic() - begun)}\n".encode()

    pair.exporter.body = body
    await pair.scraped(18)
    query = Query(metric="counts_total", function=Function.RATE, window=timedelta(seconds=7))
    now = datetime.now(UTC)
    ours, theirs = await pair.recorder.vector(query, now), await pair.prometheus.vector(query, now)

    assert ours[()] == pytest.approx(theirs[()], rel=0.01)
    assert ours[()] == pytest.approx(1000, rel=0.01)
