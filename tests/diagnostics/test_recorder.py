"""The recorder between an exporter and its file: what it keeps, what it refuses, and what it says about it."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from diagnostics.telemetry.model import Function, Query, TelemetryError
from diagnostics.telemetry.recorded import load_openmetrics
from diagnostics.telemetry.recorder import Recorder
from diagnostics.telemetry.samples import Samples
from diagnostics.telemetry.scrape import ScrapeLimits, ScrapeTarget

URL = "http://127.0.0.1:9101/metrics"
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
STEP = timedelta(seconds=15)
MINUTE = timedelta(minutes=1)


class _Exporter:
    """Says what it is told to say; the wall clock that goes with it is wound by hand."""

    def __init__(self) -> None:
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200)
        self.wall = START
        self.asked = asyncio.Event()
        self.times_asked = 0

    def says(self, *lines: str, headers: dict[str, str] | None = None) -> None:
        self.answer = lambda _: httpx.Response(200, content="\n".join([*lines, ""]).encode(), headers=headers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times_asked += 1
        if self.times_asked >= 3:
            self.asked.set()
        return self.answer(request)

    def recorder(self, **settings: Any) -> Recorder:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Recorder(**{"targets": [URL], "client": client, "wall": lambda: self.wall, **settings})


@pytest.fixture
def exporter() -> _Exporter:
    return _Exporter()


@pytest_asyncio.fixture
async def recorder(exporter: _Exporter) -> AsyncIterator[Recorder]:
    recorder = exporter.recorder()
    yield recorder
    await recorder.stop()


async def _value(recorder: Recorder, metric: str, at: datetime | None = None) -> float | None:
    vector = await recorder.vector(Query(metric=metric), at or await recorder.now())
    return vector.get(())


async def test_a_scrape_becomes_samples_at_the_walls_time(exporter: _Exporter, recorder: Recorder) -> None:
    """Samples without timestamps get the time at which the scrape began; the target is up."""
    exporter.says('a{pod="p"} 3')
    await recorder.scrape_once()

    assert await recorder.vector(Query(metric="a", by=("pod", "instance")), START) == {("p", "127.0.0.1:9101"): 3}
    assert await _value(recorder, "up") == 1
    assert await _value(recorder, "a", START - timedelta(milliseconds=1)) is None


async def test_a_series_that_vanishes_ends_at_once(exporter: _Exporter, recorder: Recorder) -> None:
    """A pod that is gone must not look alive for the five minutes of the lookback."""
    exporter.says('a{pod="1"} 1', 'a{pod="2"} 2')
    await recorder.scrape_once()
    exporter.wall += STEP
    exporter.says('a{pod="2"} 2')
    await recorder.scrape_once()

    assert await recorder.vector(Query(metric="a", by=("pod",)), exporter.wall) == {("2",): 2}


async def test_labels_of_the_target_are_attached_where_a_series_lacks_them(exporter: _Exporter) -> None:
    """What the exporter says about itself is more exact than what we say about it."""
    target = ScrapeTarget(url=URL, labels={"namespace": "chat", "pod": "unknown"})
    recorder = exporter.recorder(targets=[target])
    exporter.says('a{pod="p"} 1')
    await recorder.scrape_once()

    assert await recorder.vector(Query(metric="a", by=("namespace", "pod")), START) == {("chat", "p"): 1}


def _refuse(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_refuse, "ConnectError: connection refused"),
        (lambda _: httpx.Response(503), "it answered 503"),
        (lambda _: httpx.Response(302, headers={"Location": "http://elsewhere/"}), "it answered 302"),
        (lambda _: httpx.Response(200, text="<html>"), "no exposition: line 1: '<html>'"),
        (lambda _: httpx.Response(200, text="a 2\nb"), "no exposition: line 2"),
        (lambda _: httpx.Response(200, content=b"\xff 1"), "not UTF-8"),
        (lambda _: httpx.Response(200, content=b"a 1\n" * 50_000), "larger than 100000 bytes"),
        (
            lambda _: httpx.Response(
                200, content=gzip.compress(b"a 1\n" * 50_000), headers={"Content-Encoding": "gzip"}
            ),
            "larger than 100000 bytes",
        ),
        (lambda _: httpx.Response(200, text="".join(f"a{at} 1\n" for at in range(101))), "line 101: more than 100"),
        (
            lambda _: httpx.Response(
                200, text="a 1\n", headers={"Content-Type": "application/openmetrics-text; version=1.0.0"}
            ),
            "ends without # EOF",
        ),
    ],
)
async def test_a_failed_scrape_takes_the_target_down_and_loses_nothing(
    exporter: _Exporter, answer: Callable[[httpx.Request], httpx.Response], reason: str
) -> None:
    """All or nothing: no sample of a broken answer is kept, what was there before stays, and the reason is told."""
    recorder = exporter.recorder(limits=ScrapeLimits(body_bytes=100_000, samples=100))
    exporter.says("a 1")
    await recorder.scrape_once()
    exporter.wall += STEP
    exporter.answer = answer
    await recorder.scrape_once()

    assert await _value(recorder, "up") == 0
    assert await _value(recorder, "a") is None
    assert await _value(recorder, "a", START) == 1
    state = recorder.states[URL]
    assert (state.up, state.at) == (False, exporter.wall)
    assert reason in state.reason


async def test_a_target_that_hangs_is_down_after_its_time(exporter: _Exporter) -> None:
    """A dripping exporter cannot keep the recorder busy."""

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    recorder = exporter.recorder(client=client, limits=ScrapeLimits(timeout_s=0.02))
    await recorder.scrape_once()

    assert "no full answer within 0.02 s" in recorder.states[URL].reason


async def test_samples_from_the_far_future_are_dropped(exporter: _Exporter, recorder: Recorder) -> None:
    """As in Prometheus: a wrong clock somewhere must not block a series until the world gets there."""
    ahead = [round((START + timedelta(minutes=minutes)).timestamp() * 1000) for minutes in (9, 11)]
    exporter.says(f"near 1 {ahead[0]}", f"far 1 {ahead[1]}")
    await recorder.scrape_once()

    later = START + timedelta(minutes=12)
    assert await _value(recorder, "near", later) == 1
    assert await _value(recorder, "far", later) is None


async def test_in_a_drill_the_samples_are_the_clock(exporter: _Exporter) -> None:
    """Also `up` and the ends of series take their time from the samples, whatever the wall says."""
    recorder = exporter.recorder(clock="samples")
    with pytest.raises(TelemetryError, match="tell no time"):
        await recorder.now()
    drill = datetime(2030, 1, 1, tzinfo=UTC)
    for seconds, pods in ((0, ("1", "2")), (15, ("1",))):
        stamp = round(drill.timestamp() * 1000) + seconds * 1000
        exporter.says(*(f'a{{pod="{pod}"}} {pod} {stamp}' for pod in pods))
        await recorder.scrape_once()

    assert await recorder.now() == drill + STEP
    assert await recorder.vector(Query(metric="a", by=("pod",)), drill + STEP) == {("1",): 1}
    assert await _value(recorder, "up") == 1


async def test_a_drills_failed_scrape_is_seen_and_hardly_moves_its_clock(exporter: _Exporter) -> None:
    """There is no time in an answer that did not come, so `up` is down a millisecond after the newest sample."""
    recorder = exporter.recorder(clock="samples")
    exporter.says(f"a 1 {round(START.timestamp() * 1000)}")
    await recorder.scrape_once()
    exporter.answer = _refuse
    await recorder.scrape_once()

    assert await recorder.now() == START + timedelta(milliseconds=1)
    assert await _value(recorder, "up") == 0
    assert await _value(recorder, "a") is None


async def test_a_history_goes_on_with_what_is_scraped(exporter: _Exporter, tmp_path: Path) -> None:
    """With one target the history is that target's, so a rate reaches over the seam between file and scrapes."""
    first = int(START.timestamp())
    history = tmp_path / "history.om"
    history.write_text("\n".join([*(f"c_total {at} {first + at}" for at in range(0, 45, 15)), "# EOF"]))
    recorder = exporter.recorder(clock="samples", history=history, path=tmp_path / "recorder.sqlite")
    for at in (45, 60):
        exporter.says(f"c_total {at} {(first + at) * 1000}")
        await recorder.scrape_once()
    query = Query(metric="c_total", function=Function.INCREASE, window=MINUTE, by=("instance",))

    answer = await recorder.vector(query, START + MINUTE)
    await recorder.stop()

    assert answer == {("127.0.0.1:9101",): pytest.approx(60)}


async def test_a_history_is_loaded_only_once(exporter: _Exporter, tmp_path: Path) -> None:
    """After a restart the file has it, and what was scraped since."""
    history = tmp_path / "history.om"
    history.write_text(f"a 1 {START.timestamp()}\n# EOF\n")
    settings = {"clock": "samples", "history": history, "path": tmp_path / "recorder.sqlite"}
    before = exporter.recorder(**settings)
    await before.open()
    await before.stop()
    history.write_text("broken")
    after = exporter.recorder(**settings)
    await after.open()

    assert await _value(after, "a", START) == 1
    await after.stop()


async def test_a_broken_history_is_named(exporter: _Exporter, tmp_path: Path) -> None:
    """The person who starts the recorder learns which file and which line."""
    history = tmp_path / "history.om"
    history.write_text("a 1 5\na one 6\n# EOF\n")

    with pytest.raises(TelemetryError, match=r"history\.om, line 2: could not convert string to float: 'one'"):
        await exporter.recorder(history=history).open()


async def test_what_was_scraped_survives_without_a_farewell(exporter: _Exporter, tmp_path: Path) -> None:
    """A recorder that was killed is never stopped: each scrape is in the file before the next one begins."""
    killed = exporter.recorder(path=tmp_path / "recorder.sqlite")
    for at in range(5):
        exporter.says(f"c_total {at}", *(["gone 1"] if at < 3 else []))
        await killed.scrape_once()
        exporter.wall += STEP

    after = exporter.recorder(path=tmp_path / "recorder.sqlite")
    await after.open()
    queries = [
        Query(metric="c_total", function=Function.RATE, window=MINUTE),
        Query(metric="gone"),
        Query(metric="up"),
    ]
    for query in queries:
        start, end = START, exporter.wall
        assert await after.matrix(query, start, end, STEP) == await killed.matrix(query, start, end, STEP)
    assert await _value(after, "c_total") == 4
    assert await _value(after, "gone") is None
    await after.stop()


async def test_samples_are_kept_as_long_as_asked(exporter: _Exporter, tmp_path: Path) -> None:
    """Old rows leave memory and file."""
    path = tmp_path / "recorder.sqlite"
    recorder = exporter.recorder(path=path, retention=timedelta(hours=1))
    exporter.says("a 1")
    await recorder.scrape_once()
    exporter.wall += timedelta(hours=2)
    await recorder.scrape_once()
    exporter.wall += timedelta(minutes=20)
    await recorder.scrape_once()

    assert await _value(recorder, "a", START) is None
    assert await _value(recorder, "a") == 1
    await recorder.stop()
    with closing(sqlite3.connect(path)) as connection:
        [oldest] = connection.execute("SELECT min(time) FROM sample_row").fetchone()
    assert oldest == round((START + timedelta(hours=2)).timestamp() * 1000)


async def test_dead_series_are_let_go(exporter: _Exporter, tmp_path: Path) -> None:
    """Replicas that come and go leave thousands of series; memory and file do not grow with them for ever."""
    recorder = exporter.recorder(path=tmp_path / "recorder.sqlite", retention=timedelta(hours=1))
    exporter.says(*(f'a{{pod="{at}"}} 1' for at in range(6000)), "z 5")
    await recorder.scrape_once()
    for step in range(3):
        exporter.wall += timedelta(minutes=40)
        exporter.says("b 7", f"z {step}", 'a{pod="17"} 9')
        await recorder.scrape_once()

    async def seen(one: Recorder) -> list[Any]:
        query = Query(metric="a", by=("pod",))
        return [await one.vector(query, exporter.wall), await _value(one, "z"), await _value(one, "b")]

    assert await seen(recorder) == [{("17",): 9}, 2, 7]
    exporter.wall += STEP
    exporter.says("z 3")
    await recorder.scrape_once()
    assert await seen(recorder) == [{}, 3, None]
    await recorder.stop()
    after = exporter.recorder(path=tmp_path / "recorder.sqlite")
    await after.open()
    assert await seen(after) == [{}, 3, None]
    assert len(after._samples.series) < 10
    await after.stop()


async def test_a_full_disk_costs_no_sample(exporter: _Exporter, tmp_path: Path) -> None:
    """What cannot be written stays in memory, is answered from there, and is written once there is room."""
    recorder = exporter.recorder(path=tmp_path / "recorder.sqlite")
    await recorder.open()
    assert recorder._file is not None
    connection = recorder._file._connection
    assert connection is not None
    [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count={pages:d}")
    exporter.says(*(f'a{{pod="{at}"}} {at}' for at in range(500)))
    await recorder.scrape_once()
    assert await _value(recorder, "a") == sum(range(500))
    assert connection.execute("SELECT count(*) FROM sample_row").fetchall() == [(0,)]
    connection.execute("PRAGMA max_page_count=100000")
    exporter.wall += STEP
    await recorder.scrape_once()
    await recorder.stop()

    after = exporter.recorder(path=tmp_path / "recorder.sqlite")
    await after.open()
    assert await _value(after, "a", START) == sum(range(500))
    await after.stop()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0broken"]
)
async def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    exporter: _Exporter, tmp_path: Path, content: bytes
) -> None:
    """The error names the file and what to do; the file may be somebody's only copy of something."""
    path = tmp_path / "recorder.sqlite"
    path.write_bytes(content)

    with pytest.raises(TelemetryError, match=r"recorder\.sqlite cannot be read: .*; move it away"):
        await exporter.recorder(path=path).open()
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused(exporter: _Exporter, tmp_path: Path) -> None:
    """A path that was mixed up in the configuration must not get our tables."""
    path = tmp_path / "watchkeeper.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE incident (id)")
    before = path.read_bytes()

    with pytest.raises(TelemetryError, match="not a recorder's file"):
        await exporter.recorder(path=path).open()
    assert path.read_bytes() == before


async def test_scraping_goes_on_until_it_is_stopped(exporter: _Exporter, tmp_path: Path) -> None:
    """The loop scrapes at once and then every interval; stopping ends it and closes the file."""
    exporter.says("a 1")
    recorder = exporter.recorder(path=tmp_path / "recorder.sqlite", interval_s=0.01)
    await recorder.start()
    async with asyncio.timeout(5):
        await exporter.asked.wait()
    await recorder.stop()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(TelemetryError, match="is not open"):
        recorder._file.write(recorder._file.whole(Samples()), 0)  # type: ignore[union-attr]  # it was given a path


async def test_a_recorder_whose_loop_died_says_so(exporter: _Exporter) -> None:
    """Whoever asks for the time would otherwise wait on a telemetry that never moves again."""

    def explode(_: httpx.Request) -> httpx.Response:
        raise RuntimeError("a defect")

    exporter.answer = explode
    recorder = exporter.recorder(interval_s=0.01)
    await recorder.start()
    await asyncio.wait(recorder._tasks, timeout=5)

    with pytest.raises(TelemetryError, match="no longer scrapes: RuntimeError"):
        await recorder.now()
    await recorder.stop()


@pytest.mark.parametrize("url", ["ftp://host/metrics", "/metrics", "http:///metrics"])
def test_an_address_that_cannot_be_scraped_is_refused(url: str) -> None:
    """At the door, with the address in the message."""
    with pytest.raises(ValueError, match="is not an http or https address"):
        ScrapeTarget(url=url)


async def test_exported_tells_zero_from_not_exported() -> None:
    """A series counts for an hour after its last sample, an unknown one never."""
    telemetry = load_openmetrics(f"a 0 {START.timestamp()}\n# EOF")

    assert await telemetry.exported("a", START + timedelta(hours=1))
    assert not await telemetry.exported("a", START + timedelta(hours=1, milliseconds=1))
    assert not await telemetry.exported("b", START)


async def test_a_question_for_too_many_points_is_refused() -> None:
    """Like Prometheus: 11,000 points per series."""
    telemetry = load_openmetrics(f"a 0 {START.timestamp()}\n# EOF")

    with pytest.raises(TelemetryError, match="more than 11000 points"):
        await telemetry.matrix(Query(metric="a"), START, START + timedelta(days=1), timedelta(seconds=1))
