"""Several processes with one recorder's file: one scrapes, the others follow, and one of them takes over."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from diagnostics.telemetry import recorder as recorder_module
from diagnostics.telemetry.model import Query
from diagnostics.telemetry.recorder import Recorder
from diagnostics.telemetry.sample_file import SampleFile
from diagnostics.telemetry.samples import Samples


class Engine:
    """Serves a counter that grows with each scrape, and remembers how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200, text=f"asked_total {self.asked}\n")


@asynccontextmanager
async def recording(path: Path, engine: Engine) -> AsyncIterator[Recorder]:
    """A process' recorder."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(engine)) as client:
        recorder = Recorder(targets=["http://engine/metrics"], interval_s=0.05, path=path, client=client)
        await recorder.start()
        try:
            yield recorder
        finally:
            await recorder.stop()


async def asked(recorder: Recorder) -> float:
    """What the telemetry says now; 0 before the first sample."""
    return max((await recorder.vector(Query(metric="asked_total"), datetime.now(UTC))).values(), default=0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def until_known(recorder: Recorder, count: float) -> None:
    async with asyncio.timeout(10):
        while await asked(recorder) < count:
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FOLLOW_S", 0.02)


async def test_one_scrapes_and_the_other_knows(tmp_path: Path) -> None:
    """The engine is asked by one of them only, and both answer alike."""
    mine, others = Engine(), Engine()
    async with recording(tmp_path / "samples", mine) as writer, recording(tmp_path / "samples", others) as follower:
        await until(lambda: mine.asked >= 3)
        known = await asked(writer)
        await until_known(follower, known)

    assert others.asked == 0


async def test_who_follows_takes_over_when_the_writer_is_gone(tmp_path: Path) -> None:
    """Nothing of what the writer saw is lost, and the scraping goes on."""
    mine, others = Engine(), Engine()
    async with recording(tmp_path / "samples", mine) as writer:
        await until(lambda: mine.asked >= 3)
        async with recording(tmp_path / "samples", others) as follower:
            await writer.stop()
            last = mine.asked
            await until(lambda: others.asked >= 2)
            rows = follower._samples.rows

    assert mine.asked == last
    assert [float(row.values[0]) for row in rows if row.layout.number == rows[0].layout.number][:2] == [1.0, 2.0]


def filled(file: SampleFile, *names: str) -> Samples:
    """A file with a row of each of these series, one second after the other."""
    samples = file.open()
    for second, name in enumerate(names, start=1):
        ids = np.array([samples.number(name, {})], dtype=np.int32)
        row = samples.append(second * 1000, ids, np.array([float(second)]))
        assert row is not None
        file.write(file.batch(samples, [row]), 0)
    return samples


class Interrupted:
    """A follower's connection: right after it has read the series, the writer commits."""

    def __init__(self, connection: sqlite3.Connection, commit: Callable[[], object]) -> None:
        self._connection = connection
        self._commit = [commit]

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        cursor = self._connection.execute(sql, *parameters)
        if "FROM series" in sql and self._commit:
            self._commit.pop()()
        return cursor

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("read", ["read_anew", "news"])
def test_a_commit_in_the_middle_of_reading_comes_with_the_next(tmp_path: Path, read: str) -> None:
    """Rows whose series were not read yet would be nobody's for ever."""
    writer, follower = SampleFile(tmp_path / "samples"), SampleFile(tmp_path / "samples")
    assert writer.claim()
    samples = writer.open()
    known = follower.open()

    def commit() -> None:
        row = samples.append(1000, np.array([samples.number("up", {})], dtype=np.int32), np.array([1.0]))
        assert row is not None
        writer.write(writer.batch(samples, [row]), 0)

    assert follower._connection is not None
    follower._connection = Interrupted(follower._connection, commit)  # type: ignore[assignment]  # as far as it is used
    if read == "read_anew":
        known = follower.read_anew()
    else:
        nothing = follower.news()
        assert nothing is not None
        nothing.add_to(known)
    assert (known.series, known.rows) == ([], [])

    news = follower.news()
    assert news is not None
    news.add_to(known)
    assert [series.name for series in known.series] == ["up"]
    assert [row.time for row in known.rows] == [1000]
    follower.close()
    writer.close()


def test_what_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """The writer forgot series and numbered the others again: what a follower knows has other numbers now."""
    writer, follower = SampleFile(tmp_path / "samples"), SampleFile(tmp_path / "samples")
    assert writer.claim()
    samples = filled(writer, "gone", "kept")
    assert not follower.claim()
    follower.open()
    samples.forget_before(1500)
    writer.write(writer.whole(samples.survivors()), 0)

    assert follower.news() is None
    known = follower.read_anew()

    assert [series.name for series in known.series] == ["kept"]
    assert [row.time for row in known.rows] == [2000]
    news = follower.news()
    assert news is not None
    assert news.rows == []
    writer.close()
    assert follower.claim()
    follower.close()
