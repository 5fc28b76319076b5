"""The state of the product in one answer: what runs, what waits, who answers, and what is switched off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

from bot.config import Config
from bot.far_ends import FarEnd, FarEnds
from bot.store.audit import ChainReport
from bot.store.counts import COUNTS, Lane
from bot.store.workers import DEAD_AFTER_S, Worker
from bot.vitals import ChainWatch, Loop, Vitals

SWEEP_LATE_S = 60.0
"""The ticker wakes every sweep each second; one that did not go through for a minute is stuck."""


class Probes(Protocol):
    """What this process says of itself: its loops, and why no traffic should come (empty when it may)."""

    @property
    def sweepers(self) -> Sequence[Loop]: ...

    async def not_ready_because(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """When a loop of ours last went through; `is_late` when that was too long ago."""

    name: str
    healthy_at: datetime | None
    is_late: bool


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """A living process; `silent_s` since it last said so."""

    worker: Worker
    silent_s: float
    is_late: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """One look at everything; `waiting` are pairs of words and numbers."""

    at: datetime
    version: str
    schema: str
    started_at: datetime
    not_ready_because: tuple[str, ...]
    degraded: tuple[str, ...]
    processes: tuple[ProcessState, ...]
    sweeps: tuple[SweepState, ...]
    waiting: tuple[tuple[str, int], ...]
    inbox_oldest_s: float
    lanes: tuple[Lane, ...]
    far_ends: tuple[FarEnd, ...]
    chain: ChainReport | None
    chain_at: datetime | None
    runbooks: str
    switched_off: tuple[str, ...]


class Status:
    """Puts the report together; asks the database through the vitals, which do so once in two seconds at most."""

    def __init__(
        self,
        *,
        probes: Probes,
        vitals: Vitals,
        chain: ChainWatch,
        far_ends: FarEnds,
        config: Config,
        schema: str,
        runbooks: Callable[[], str],
        left_out: Callable[[], Sequence[str]] = tuple,
        troubles: Sequence[Callable[[], str]] = (),
    ) -> None:
        """
        `runbooks` says which are in use, `left_out` what could not be read, each of the `troubles` what does not
        work now, or nothing.
        """
        self._probes = probes
        self._vitals = vitals
        self._chain = chain
        self._far_ends = far_ends
        self._schema = schema
        self._started_at = datetime.now(UTC)
        self._troubles = troubles
        self._runbooks = runbooks
        self._left_out = left_out
        self._switched_off = _switched_off(config)

    async def reasons(self) -> tuple[str, ...]:
        """Why no traffic should come here."""
        return tuple(await self._probes.not_ready_because())

    async def report(self) -> Report:
        """Look at everything. Never raises: what cannot be asked is old or empty, and the reasons say so."""
        await self._vitals.fresh()
        now, stock = datetime.now(UTC), self._vitals.stock
        counts = self._vitals.counts
        return Report(
            at=now,
            version=version("watchkeeper"),
            schema=self._schema,
            started_at=self._started_at,
            not_ready_because=await self.reasons(),
            degraded=tuple(trouble for each in self._troubles if (trouble := each())),
            processes=tuple(_process(worker, stock.at if stock else now) for worker in self._vitals.workers),
            sweeps=tuple(_sweep(each, now, self._started_at) for each in self._probes.sweepers),
            waiting=tuple((what, counts[name]) for name, (what, _) in COUNTS.items() if name in counts),
            inbox_oldest_s=stock.inbox_oldest_s if stock else 0.0,
            lanes=stock.lanes if stock else (),
            far_ends=tuple(self._far_ends.all()),
            chain=self._chain.chain,
            chain_at=self._chain.chain_at,
            runbooks=self._runbooks(),
            switched_off=(*self._left_out(), *self._switched_off),
        )


def late_sweeps(sweepers: Sequence[Loop], *, started_at: datetime, now: datetime) -> list[str]:
    """The loops that are stuck."""
    return [each.name for each in sweepers if _sweep(each, now, started_at).is_late]


def _sweep(sweeper: Loop, now: datetime, started_at: datetime) -> SweepState:
    last = sweeper.healthy_at or started_at
    return SweepState(
        name=sweeper.name,
        healthy_at=sweeper.healthy_at,
        is_late=(now - last).total_seconds() > SWEEP_LATE_S,
    )


def _process(worker: Worker, now: datetime) -> ProcessState:
    silent_s = max(0.0, (now - worker.beat_at).total_seconds())
    return ProcessState(worker=worker, silent_s=silent_s, is_late=silent_s > DEAD_AFTER_S)


def _switched_off(config: Config) -> list[str]:
    """What the configuration leaves out, in sentences."""
    observed = [service.name for service in config.services if service.mode == "observe"]
    shown = [service.name for service in config.services if service.mode == "suggest"]
    blind = [service.name for service in config.services if service.datasource is None]
    unpaged = [service.name for service in config.services if not service.pagerduty_service]
    found = []
    if observed:
        found.append(f"No fixes are offered for {', '.join(observed)} (mode observe).")
    if shown:
        found.append(f"Fixes are only shown for {', '.join(shown)} (mode suggest).")
    if blind:
        found.append(f"Nothing can be measured for {', '.join(blind)} (no datasource).")
    if unpaged:
        found.append(f"No page can come for {', '.join(unpaged)} (no pagerduty_service).")
    if not config.policy:
        found.append("Nobody may approve anything (no [[policy]]).")
    return found
