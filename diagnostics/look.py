"""What one check sees: the target's metrics now (the frame's recent window) beside the frame's baseline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from diagnostics.diagnosis import Frame
from diagnostics.engines import speaking
from diagnostics.exporters import remedy_for
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Function, Key, Query, Telemetry, Vector

ENOUGH = 30
"""Observations that a mean needs in each window; below that it says more about chance than about the service."""

EVENTS = timedelta(minutes=30)

_BLANK = 9.0e18  # DCGM writes 9223372036854775794 where a GPU does not support a field


class CannotTellError(Exception):
    """A check lacks what it needs to answer; the text is the reason a person reads."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One number now and in the baseline; None where there was nothing, or too little, to measure."""

    now: float | None = None
    baseline: float | None = None

    @property
    def factor(self) -> float | None:
        """How many times the baseline it is now; None when either is missing or the baseline is zero."""
        if self.now is None or not self.baseline:
            return None
        return self.now / self.baseline

    @property
    def gain(self) -> float | None:
        """How much more it is now than in the baseline."""
        return None if self.now is None or self.baseline is None else self.now - self.baseline


NOTHING = Compared()


class Look:
    """
    The questions that checks ask, with the target's selectors and the frame filled in.

    Every method raises CannotTellError when the family is not observed, and TelemetryError as the telemetry does.
    """

    def __init__(self, target: Target, telemetry: Telemetry, frame: Frame) -> None:
        self.target = target
        self.telemetry = speaking(telemetry, target)
        self.frame = frame

    @property
    def baseline_window(self) -> timedelta:
        return self.frame.baseline_end - self.frame.baseline_start

    @property
    def since_baseline(self) -> timedelta:
        """The time in which an event (an XID, a restart) still belongs to the trouble: half an hour or more."""
        return max(self.frame.at - self.frame.baseline_end, EVENTS)

    @property
    def since_events(self) -> timedelta:
        """The time in which counters' growth counts: what belongs to the trouble, or came after the fix of it."""
        start = self.frame.events_from
        return self.since_baseline if start is None else max(self.frame.at - start, self.frame.recent)

    @property
    def since_start(self) -> timedelta:
        """From the beginning of the baseline until now: in it is whatever was compared, also what has gone since."""
        return max(self.frame.at - self.frame.baseline_start, EVENTS)

    def where(self, family: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The label matchers of a metric family; raises CannotTellError when the service does not configure it."""
        selector = self.target.selectors.get(family)
        if selector is None:
            raise CannotTellError(f"the service has no {family} selector, so its {family} metrics are not observed")
        return {**selector, **(extra or {})}

    async def exported(self, family: str, *names: str, where: Mapping[str, str] | None = None) -> str | None:
        """The first of these spellings that is exported, or None."""
        matchers = self.where(family, where)
        for name in names:
            if await self.telemetry.exported(name, self.frame.at, matchers):
                return name
        return None

    async def require(self, family: str, *names: str) -> str:
        """The first of these spellings that is exported; raises CannotTellError with the exporter's missing setting."""
        name = await self.exported(family, *names)
        if name is None:
            raise CannotTellError(await self.why_missing(names[0]))
        return name

    async def why_missing(self, name: str) -> str:
        """What a person reads of a metric that is not exported: the exporter's missing setting."""
        return await self.telemetry.lacks(name, self.frame.at) or f"{name} is not exported; {remedy_for(name)}"

    async def means(
        self, histogram: str, family: str, *, by: tuple[str, ...] = (), where: Mapping[str, str] | None = None
    ) -> dict[Key, Compared]:
        """Mean of a histogram's observations per group, where each window holds at least ENOUGH of them."""
        matchers = self.where(family, where)
        sums, counts = await asyncio.gather(
            self._both(f"{histogram}_sum", Function.INCREASE, matchers, by, Aggregation.SUM),
            self._both(f"{histogram}_count", Function.INCREASE, matchers, by, Aggregation.SUM),
        )
        (sum_now, sum_then), (count_now, count_then) = sums, counts
        return {
            key: Compared(now=_mean(sum_now, count_now, key), baseline=_mean(sum_then, count_then, key))
            for key in {**count_now, **count_then}
        }

    async def mean(self, histogram: str, family: str, where: Mapping[str, str] | None = None) -> Compared:
        """Mean of a histogram's observations over the whole service."""
        return (await self.means(histogram, family, where=where)).get((), NOTHING)

    async def rates(
        self, counter: str, family: str, *, by: tuple[str, ...] = (), where: Mapping[str, str] | None = None
    ) -> dict[Key, Compared]:
        """Events per second and group."""
        return _paired(*await self._both(counter, Function.RATE, self.where(family, where), by, Aggregation.SUM))

    async def rate(self, counter: str, family: str, where: Mapping[str, str] | None = None) -> Compared:
        """Events per second over the whole service."""
        return (await self.rates(counter, family, where=where)).get((), NOTHING)

    async def levels(
        self,
        gauge: str,
        family: str,
        *,
        by: tuple[str, ...] = (),
        where: Mapping[str, str] | None = None,
        aggregation: Aggregation = Aggregation.AVG,
        alone: bool = False,
    ) -> dict[Key, Compared]:
        """
        A gauge's average over each window, then aggregated over the series of a group.

        `where` adds to the family's selector; `alone` says that it stands in its place.
        """
        matchers = (where or {}) if alone else self.where(family, where)
        return _paired(*await self._both(gauge, Function.AVG_OVER_TIME, matchers, by, aggregation))

    async def level(
        self,
        gauge: str,
        family: str,
        where: Mapping[str, str] | None = None,
        aggregation: Aggregation = Aggregation.AVG,
    ) -> Compared:
        """A gauge over the whole service."""
        return (await self.levels(gauge, family, where=where, aggregation=aggregation)).get((), NOTHING)

    async def increase(
        self, counter: str, family: str, *, by: tuple[str, ...] = (), window: timedelta | None = None
    ) -> Vector:
        """By how much a counter grew per group since the baseline ended, or since the fix (or in `window`)."""
        return await self._at_now(counter, Function.INCREASE, family, by, window or self.since_events)

    async def peak(
        self, gauge: str, family: str, *, by: tuple[str, ...] = (), where: Mapping[str, str] | None = None
    ) -> Vector:
        """The highest value of a gauge per group within the recent window."""
        return await self._at_now(gauge, Function.MAX_OVER_TIME, family, by, self.frame.recent, where)

    async def p95(self, histogram: str, family: str) -> Compared:
        """The 95th percentile, as exact as the histogram's buckets are."""
        matchers = self.where(family)
        now, then = await asyncio.gather(*(self._quantile(histogram, matchers, w) for w in (False, True)))
        return _paired(now, then).get((), NOTHING)

    async def _quantile(self, histogram: str, matchers: Mapping[str, str], baseline: bool) -> Vector:  # noqa: FBT001 - private, called twice just above
        window = self.baseline_window if baseline else self.frame.recent
        if window <= timedelta(0):
            return {}
        query = Query(metric=histogram, where=matchers, function=Function.QUANTILE, window=window, quantile=0.95)
        return await self.telemetry.vector(query, self.frame.baseline_end if baseline else self.frame.at)

    async def _at_now(
        self,
        metric: str,
        function: Function,
        family: str,
        by: tuple[str, ...],
        window: timedelta,
        where: Mapping[str, str] | None = None,
    ) -> Vector:
        query = Query(
            metric=metric,
            where=self.where(family, where),
            function=function,
            window=window,
            by=by,
            aggregation=Aggregation.MAX if function is Function.MAX_OVER_TIME else Aggregation.SUM,
        )
        return _finite(await self.telemetry.vector(query, self.frame.at))

    async def _both(
        self, metric: str, function: Function, where: Mapping[str, str], by: tuple[str, ...], how: Aggregation
    ) -> tuple[Vector, Vector]:
        def ask(window: timedelta) -> Query:
            return Query(metric=metric, where=where, function=function, window=window, by=by, aggregation=how)

        now = self.telemetry.vector(ask(self.frame.recent), self.frame.at)
        if self.baseline_window <= timedelta(0):
            return _finite(await now), {}
        then = self.telemetry.vector(ask(self.baseline_window), self.frame.baseline_end)
        vectors = await asyncio.gather(now, then)
        return _finite(vectors[0]), _finite(vectors[1])


def worst(cells: Mapping[Key, Compared], normal: float | None) -> tuple[Key, Compared] | None:
    """The group that is highest now; its baseline is its own, or `normal` where it has none."""
    known = {key: cell for key, cell in cells.items() if cell.now is not None}
    if not known:
        return None
    key = max(known, key=lambda k: known[k].now or 0.0)
    cell = known[key]
    return key, Compared(now=cell.now, baseline=normal if cell.baseline is None else cell.baseline)


def highest_then(cells: Mapping[Key, Compared]) -> float | None:
    """The highest baseline of all groups: what a group that is new since then can be held against."""
    return max((cell.baseline for cell in cells.values() if cell.baseline is not None), default=None)


def spread(values: Sequence[float]) -> float | None:
    """The highest of several peers over their middle: 1 when they are alike; None for fewer than two peers."""
    if len(values) < 2:
        return None
    ordered = sorted(values)
    middle = ordered[(len(ordered) - 1) // 2]
    return ordered[-1] / middle if middle > 0 else None


def share(part: Compared, whole: Compared) -> Compared:
    """Part of a whole in both windows; a part without data counts as zero where the whole has events."""
    return Compared(now=_share(part.now, whole.now), baseline=_share(part.baseline, whole.baseline))


def total(cells: Mapping[Key, Compared]) -> Compared:
    """The sum over groups in both windows."""
    now = [cell.now for cell in cells.values() if cell.now is not None]
    then = [cell.baseline for cell in cells.values() if cell.baseline is not None]
    return Compared(now=sum(now) if now else None, baseline=sum(then) if then else None)


def _share(part: float | None, whole: float | None) -> float | None:
    return (part or 0.0) / whole if whole else None


def _mean(sums: Vector, counts: Vector, key: Key) -> float | None:
    if key not in sums or counts.get(key, 0.0) < ENOUGH:
        return None
    return sums[key] / counts[key]


def _paired(now: Vector, then: Vector) -> dict[Key, Compared]:
    return {key: Compared(now=now.get(key), baseline=then.get(key)) for key in {**now, **then}}


def _finite(vector: Vector) -> Vector:
    return {key: value for key, value in vector.items() if math.isfinite(value) and abs(value) < _BLANK}
