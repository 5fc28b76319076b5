"""
The built-in recorder: scrapes `/metrics` itself and answers like Prometheus 2.42, for teams that have none.

It writes `up` per target, ends vanished series with a stale marker, keeps 26 hours in memory and in a file of its own.
In a drill (`clock="samples"`) the samples' own timestamps are the time, also for `up` and stale markers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx
import structlog

from diagnostics.telemetry.history import read_history, take_over
from diagnostics.telemetry.instants import MILLISECOND, to_datetime, to_milliseconds
from diagnostics.telemetry.intake import Intake
from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.recorded import Recorded
from diagnostics.telemetry.sample_file import SampleFile
from diagnostics.telemetry.samples import Row, Samples
from diagnostics.telemetry.scrape import ScrapeError, ScrapeLimits, ScrapeTarget, scrape

RETENTION = timedelta(hours=26)
MOST_LIVING_SERIES = 50_000
"""About 2.5 GB of memory when all are scraped every 15 s for 26 h; a target that brings more is down."""
FOLLOW_S = 1.0
"""How often who does not write looks at what the writer added, and whether the writer is gone."""
_MAKING_S = 5.0
_PRUNE_EVERY_MS = 600_000
_MOST_DEAD_SERIES = 5_000

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """How a target's last scrape went; `reason` says why it is not up."""

    up: bool
    at: datetime
    reason: str = ""


def _wall() -> datetime:
    return datetime.now(UTC)


class Recorder(Recorded):
    """
    Telemetry without Prometheus. Use: `await start()`, ask, `await stop()`; or `open()` and `scrape_once()`.

    `targets` are addresses or ScrapeTargets, scraped every `interval_s` wall seconds through `client` (never
    following redirects). `path` None keeps samples in memory only. `history` is an OpenMetrics file that is loaded
    when there are no samples yet; with a single target its series get that target's labels, so that they go on.
    Of several processes with one file one scrapes, and the others follow, until one of them takes over.
    `states` tells by URL how each target's last scrape went.
    """

    def __init__(
        self,
        *,
        targets: Sequence[str | ScrapeTarget] = (),
        interval_s: float = 15.0,
        path: Path | None = None,
        history: Path | None = None,
        clock: Literal["wall", "samples"] = "wall",
        client: httpx.AsyncClient | None = None,
        limits: ScrapeLimits | None = None,
        retention: timedelta = RETENTION,
        wall: Callable[[], datetime] = _wall,
    ) -> None:
        if interval_s <= 0:
            raise ValueError(f"a scrape interval of {interval_s} s is none")
        if targets and client is None:
            raise ValueError("the recorder needs an HTTP client to scrape its targets")
        super().__init__(Samples())
        self._targets = [one if isinstance(one, ScrapeTarget) else ScrapeTarget(url=one) for one in targets]
        self._interval_s = interval_s
        self._history = history
        self._by_samples = clock == "samples"
        self._client = client
        self._limits = limits or ScrapeLimits()
        self._retention_ms = retention // MILLISECOND
        self._wall = wall
        self._file = SampleFile(path) if path else None
        self._intakes: list[Intake] = []
        self._unwritten: list[Row] = []
        self._writing = asyncio.Lock()
        self._pruned_at = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._is_open = False
        self._is_writer = True
        self._is_rewritten = False  # whether series were numbered anew since the last write
        self.states: dict[str, TargetState] = {}

    async def open(self) -> None:
        """
        Read the file and, when there are no samples yet, the history; `start` does this too.

        Raises TelemetryError when either cannot be read.
        """
        if self._is_open:
            return
        if self._file is not None:
            self._samples = await self._read_file(self._file)
        self._is_open = True
        if self._is_writer:
            await self._begin_to_write()

    async def _read_file(self, file: SampleFile) -> Samples:
        """Whoever may not write waits a little for a file that the writer is just making."""
        deadline = asyncio.get_running_loop().time() + _MAKING_S
        while True:
            self._is_writer = await asyncio.to_thread(file.claim)
            try:
                return await asyncio.to_thread(file.open)
            except TelemetryError:
                if self._is_writer or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def _begin_to_write(self) -> None:
        self._intakes = [Intake(target, self._samples, by_samples=self._by_samples) for target in self._targets]
        if self._history is not None and self._samples.newest is None:
            labels = self._targets[0].labels if len(self._targets) == 1 else {}
            history = await asyncio.to_thread(read_history, self._history, labels)
            await self._keep(await asyncio.to_thread(take_over, history, self._samples))

    async def start(self) -> None:
        """Open, and scrape every target from now on; while another process does, read what it writes."""
        await self.open()
        if self._is_writer:
            self._scrape_from_now_on()
        else:
            self._tasks = [asyncio.create_task(self._follow())]

    def _scrape_from_now_on(self) -> None:
        self._tasks += [asyncio.create_task(self._keep_scraping(intake)) for intake in self._intakes]

    async def _follow(self) -> None:
        """Read what the writer adds, until it is gone and the writing is ours."""
        if self._file is None:
            return
        while not self._is_writer:
            await asyncio.sleep(min(self._interval_s, FOLLOW_S))
            try:
                is_ours = await asyncio.to_thread(self._file.claim)
                await self._catch_up(self._file)
                self._is_writer = is_ours
            except TelemetryError as error:  # a follower that gave up would answer with old samples for ever
                log.warning("the recorder's file cannot be followed just now", why=str(error))
        log.info("recording from now on", file=self._file.name)
        await self._begin_to_write()
        self._scrape_from_now_on()

    async def _catch_up(self, file: SampleFile) -> None:
        news = await asyncio.to_thread(file.news)
        if news is None:
            self._samples = await asyncio.to_thread(file.read_anew)
            self._selections.clear()
            return
        news.add_to(self._samples)
        if news.rows:
            self._samples.forget_before(self._oldest_kept(to_milliseconds(self._wall())))

    async def stop(self) -> None:
        """Stop scraping, write what is not yet written, and close the file."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._file is not None and self._is_open:
            await self._write()
            await asyncio.to_thread(self._file.close)
        self._is_open = False

    async def scrape_once(self) -> None:
        """Scrape every target once; a target that fails is down, which is a sample and no error."""
        await self.open()
        await asyncio.gather(*(self._scrape(intake) for intake in self._intakes))

    async def now(self) -> datetime:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise TelemetryError(f"the recorder no longer scrapes: {error!r}") from error
        return await super().now() if self._by_samples else self._wall()

    async def _keep_scraping(self, intake: Intake) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._scrape(intake)
            due += self._interval_s
            behind = loop.time() - due
            if behind > 0:  # a slow target is scraped less often, never twice at once
                due += self._interval_s * (behind // self._interval_s + 1)
            await asyncio.sleep(due - loop.time())

    async def _scrape(self, intake: Intake) -> None:
        if self._client is None:  # a recorder with targets has one
            return
        started = to_milliseconds(self._wall())
        intake.make_room(MOST_LIVING_SERIES, self._oldest_kept(started))
        try:
            read = await scrape(self._client, intake.target, intake.ids, self._limits)
        except ScrapeError as error:
            stamp, rows = intake.record_failure(started)
            state = TargetState(up=False, at=to_datetime(stamp), reason=str(error))
        else:
            stamp, rows = intake.record(read, started)
            state = TargetState(up=True, at=to_datetime(stamp))
        self._note(intake.target.url, state)
        await self._keep(rows)

    def _note(self, url: str, state: TargetState) -> None:
        before = self.states.get(url)
        self.states[url] = state
        if not state.up and (before is None or before.reason != state.reason):
            log.warning("scrape failed", target=url, reason=state.reason)
        elif state.up and before is not None and not before.up:
            log.info("scrape works again", target=url)

    def _oldest_kept(self, wall_ms: int) -> int:
        newest = self._samples.newest
        return (newest if self._by_samples and newest is not None else wall_ms) - self._retention_ms

    async def _keep(self, rows: list[Row]) -> None:
        if self._file is not None:
            self._unwritten.extend(rows)
            await self._write()
        newest = self._samples.newest
        if newest is not None and newest - self._pruned_at > _PRUNE_EVERY_MS:
            self._pruned_at = newest
            await self._let_go(self._oldest_kept(to_milliseconds(self._wall())))

    async def _let_go(self, oldest: int) -> None:
        """Forget old rows; and series too, once most are dead, as replicas that come and go leave them behind."""
        self._samples.forget_before(oldest)
        dead = len(self._samples.series) - self._samples.living(oldest)
        if dead < max(_MOST_DEAD_SERIES, len(self._samples.series) // 2):
            return
        async with self._writing:
            self._samples = self._samples.survivors()
            self._selections.clear()
            for intake in self._intakes:
                intake.move_to(self._samples)
            self._unwritten = list(self._samples.rows)
            self._is_rewritten = True
        await self._write()

    async def _write(self) -> None:
        """Write what is unwritten; being cancelled while the thread writes does not tear the two apart."""
        await asyncio.shield(asyncio.ensure_future(self._write_unwritten()))

    async def _write_unwritten(self) -> None:
        """What cannot be written (a full disk) stays in memory for the next time."""
        async with self._writing:
            if self._file is None or not self._unwritten:
                return
            count = len(self._unwritten)
            is_whole, self._is_rewritten = self._is_rewritten, False
            batch = self._file.whole(self._samples) if is_whole else self._file.batch(self._samples, self._unwritten)
            oldest = self._oldest_kept(to_milliseconds(self._wall()))
            try:
                await asyncio.to_thread(self._file.write, batch, oldest)
            except TelemetryError as error:
                log.warning("samples are kept in memory only", reason=str(error))
                self._unwritten = [row for row in self._unwritten if row.time >= oldest]
                self._is_rewritten = is_whole
            else:
                del self._unwritten[:count]
