"""
What operators see of the product itself, in numbers.

What waits, and what happened, is counted in the database: so a restart loses no count, and a process that only has
the doors knows what the workers did. Every process says the same, so take the maximum over them, not the sum.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from bot.incidents import StoreUnavailableError
from bot.proof import Known
from bot.store.audit import AuditLog, ChainReport
from bot.store.counts import COUNTS, Stock, take_stock
from bot.store.database import Database
from bot.store.tally import Heard, first_cards, hear
from bot.store.workers import Worker, Workers

log = structlog.get_logger()

CHAIN_EVERY_S = 3600.0
LANES = ("slack", "pagerduty")
_FRESH_S = 2.0
_PATIENCE_S = 3.0
_WAITS = (1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 900)


class Loop(Protocol):
    """A sweep that repeats; `healthy_at` is when it last went through, None before the first time."""

    name: str
    healthy_at: datetime | None


class Vitals:
    """Looks at the database when somebody asks, and no more often than every two seconds."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._workers = Workers(database)
        self._looking = asyncio.Lock()
        self._looked_at = -_FRESH_S
        self._since = self._carded_upto = datetime.now(UTC)
        self._heard_upto = 0
        self._gauges = _Gauges(registry)
        self._counters = _Counters(registry)
        self._loops: Sequence[Loop] = ()
        self._failures_seen = 0
        self.stock: Stock | None = None
        self.workers: list[Worker] = []

    def watch(self, loops: Sequence[Loop]) -> None:
        """Show of these when each last went through."""
        self._loops = loops

    @property
    def counts(self) -> dict[str, int]:
        """What waits, by name, as it was at the last look; empty before the first."""
        return dict(self.stock.counts) if self.stock else {}

    def overdue(self) -> str:
        """A sentence while a review of broken glass is late, "" while none is."""
        late = self.stock.reviews_overdue if self.stock else 0
        if not late:
            return ""
        found = "A review of broken glass is" if late == 1 else f"{late} reviews of broken glass are"
        return f"{found} overdue; `watchkeeper audit reviews` lists them."

    async def fresh(self) -> None:
        """Look again unless that was just done. Never raises and never hangs: the last numbers stay otherwise."""
        self._gauges.show_loops(self._loops)
        async with self._looking:
            if time.monotonic() - self._looked_at < _FRESH_S:
                return
            self._looked_at = time.monotonic()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self.sweep()
            except (StoreUnavailableError, TimeoutError) as error:
                self._gauges.database_up.set(0)
                log.warning("vitals not taken", why=str(error) or type(error).__name__)
            self._counters.database_failures.inc(self._database.failures - self._failures_seen)
            self._failures_seen = self._database.failures

    async def sweep(self) -> None:
        """Look once. Raises StoreUnavailableError."""
        self.stock = await take_stock(self._database)
        self.workers = await self._workers.living()
        self._gauges.show(self.stock, self.workers)
        heard = await hear(self._database, after=self._heard_upto)
        self._counters.count(heard, since=self._since)
        self._heard_upto = heard.upto
        for at, seconds in await first_cards(self._database, after=self._carded_upto):
            self._carded_upto = at
            self._counters.page_to_card.observe(seconds)


class ChainWatch:
    """Verifies the record's chain now and then, also against what it found the last time."""

    def __init__(self, record: AuditLog, registry: CollectorRegistry) -> None:
        self._record = record
        self._verifying = asyncio.Lock()
        self._unbroken = Gauge(
            "watchkeeper_record_unbroken", "1 while every hash of the record holds, 0 when not", registry=registry
        )
        self._unbroken.set(1)
        self._known: Known | None = None
        self.chain: ChainReport | None = None
        self.chain_at: datetime | None = None

    async def sweep(self) -> None:
        """Recompute every hash. Raises StoreUnavailableError."""
        async with self._verifying:
            chain = await self._record.verify(self._known)
            self.chain, self.chain_at = chain, datetime.now(UTC)
            self._unbroken.set(chain.broken_at is None)
            if chain.broken_at is not None:
                log.error("the record is broken", row=chain.broken_at, why=chain.why)
            elif chain.rows:
                self._known = Known(chain.checkpoint(self.chain_at))

    async def trouble(self) -> str:
        """Why the record cannot be trusted, as verified within the hour; "" when it can. Raises as `sweep` does."""
        await self.within(CHAIN_EVERY_S)
        if self.chain is None or self.chain.broken_at is not None:
            return "The record is broken, so nothing runs by itself; see `watchkeeper audit verify`."
        return ""

    async def within(self, seconds: float) -> None:
        """Verify unless that was done in the last so many seconds. Raises StoreUnavailableError."""
        if self.chain_at is None or (datetime.now(UTC) - self.chain_at).total_seconds() > seconds:
            await self.sweep()


class _Gauges:
    """What waits now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts = {
            name: Gauge(f"watchkeeper_{name}", what, registry=registry) for name, (what, _) in COUNTS.items()
        }
        self._inbox_oldest = Gauge(
            "watchkeeper_inbox_oldest_age_seconds", "How long the oldest unfolded event has waited", registry=registry
        )
        self._doubt_oldest = Gauge(
            "watchkeeper_doubt_oldest_age_seconds", "How long the oldest step in doubt has waited", registry=registry
        )
        self._stopped = Gauge(
            "watchkeeper_stopped_seconds",
            "How long the kill switch has stopped everything; 0 when not",
            registry=registry,
        )
        self._overdue = Gauge("watchkeeper_reviews_overdue", "Reviews of broken glass that are late", registry=registry)
        lanes = ["lane"]
        self._waiting = Gauge("watchkeeper_outbox_waiting", "Messages not taken yet", lanes, registry=registry)
        self._dead = Gauge("watchkeeper_outbox_dead", "Messages refused for good", lanes, registry=registry)
        self._oldest = Gauge(
            "watchkeeper_outbox_oldest_age_seconds", "How long the oldest message has waited", lanes, registry=registry
        )
        self._workers = Gauge("watchkeeper_processes", "Living processes by role", ["role"], registry=registry)
        self._beat = Gauge(
            "watchkeeper_worker_beat_age_seconds", "Since any process that works last said it lives", registry=registry
        )
        self.database_up = Gauge("watchkeeper_database_up", "1 when the database answered last time", registry=registry)
        self._loops = Gauge(
            "watchkeeper_sweep_last_success_timestamp_seconds",
            "When each of this process' loops last went through",
            ["sweep"],
            registry=registry,
        )
        ProcessCollector(registry=registry)
        Info("watchkeeper_build", "Which program this is", registry=registry).info({"version": version("watchkeeper")})

    def show_loops(self, loops: Sequence[Loop]) -> None:
        for loop in loops:
            self._loops.labels(loop.name).set(loop.healthy_at.timestamp() if loop.healthy_at else 0.0)

    def show(self, stock: Stock, workers: list[Worker]) -> None:
        for name, number in stock.counts.items():
            self._counts[name].set(number)
        self._inbox_oldest.set(stock.inbox_oldest_s)
        self._doubt_oldest.set(stock.doubt_oldest_s)
        self._stopped.set(stock.stopped_s)
        self._overdue.set(stock.reviews_overdue)
        lanes = {lane.lane: lane for lane in stock.lanes}
        for name in {*LANES, *lanes}:
            lane = lanes.get(name)
            self._waiting.labels(name).set(lane.waiting if lane else 0)
            self._dead.labels(name).set(lane.dead if lane else 0)
            self._oldest.labels(name).set(lane.oldest_s if lane else 0.0)
        for role in ("serve", "web", "worker"):
            self._workers.labels(role).set(sum(each.role == role for each in workers))
        beats = [each.beat_at for each in workers if each.role != "web"]
        self._beat.set((stock.at - max(beats)).total_seconds() if beats else float("inf"))
        self.database_up.set(1)


class _Counters:
    """What happened, as the record tells it; the histograms begin with this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Counter("watchkeeper_record_rows", "Rows of the record", ["action"], registry=registry)
        self._decisions = Counter(
            "watchkeeper_decisions", "What people decided, or were refused", ["decision", "channel"], registry=registry
        )
        self._acts = Counter(
            "watchkeeper_actions", "Calls that change production, by answer", ["action", "result"], registry=registry
        )
        self.database_failures = Counter(
            "watchkeeper_database_failures", "How often the database did not answer this process", registry=registry
        )
        self._causes = Counter("watchkeeper_diagnoses", "Diagnoses by their first cause", ["cause"], registry=registry)
        self._took = Histogram("watchkeeper_diagnosis_seconds", "How long a diagnosis took", registry=registry)
        self._waited = Histogram(
            "watchkeeper_page_to_verdict_seconds", "From the page to the verdict", buckets=_WAITS, registry=registry
        )
        self.page_to_card = Histogram(
            "watchkeeper_page_to_card_seconds",
            "From the first event to the first card",
            buckets=_WAITS,
            registry=registry,
        )

    def count(self, heard: Heard, *, since: datetime) -> None:
        for action, rows in heard.rows.items():
            self._rows.labels(action).inc(rows)
        for (decision, channel), number in heard.decisions.items():
            self._decisions.labels(decision, channel).inc(number)
        for (action, result), number in heard.acts.items():
            self._acts.labels(action, result).inc(number)
        for verdict in heard.verdicts:
            self._causes.labels(verdict.cause).inc()
            if verdict.at >= since:
                self._took.observe(verdict.took_s or 0.0)
                self._waited.observe(verdict.waited_s or 0.0)
