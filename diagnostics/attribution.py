"""
Which cells of a dimension carry a change of a mean, and did anything get worse at all?

A mean over everybody moves because cells got slower (rate) or because traffic moved to cells that were slow before
(mix). Kitagawa's decomposition keeps the two apart; they add up to the whole change. A cell stands apart by its lift:
how much more its own mean grew than that of all the others together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from diagnostics.look import ENOUGH, NOTHING, Compared, Look
from diagnostics.places import Place, Places, places
from diagnostics.proportions import discoveries
from diagnostics.telemetry.model import Key

LEAST_LIFT = 1.25
MOSTLY = 0.67
"""The part of a change from which mix (or rate) is said to be the reason."""

DIMENSIONS: Mapping[str, Callable[[Place], str]] = {
    "pod": lambda place: place.pod,
    "node": lambda place: place.node,
    "rack": lambda place: place.rack,
    "revision": lambda place: place.revision,
    "model": lambda place: place.model,
}
"""What serving metrics can be told apart by, cheapest first."""

_SCATTER = 1.0  # single latencies and lengths scatter by about their own mean
_SURE = 0.01
_DRIFT = 0.05  # and healthy peers drift apart by a few percent, however many requests they serve


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Observations of one cell in both windows: how many, and their sum."""

    count_now: float = 0.0
    sum_now: float = 0.0
    count_then: float = 0.0
    sum_then: float = 0.0

    def __add__(self, other: Cell) -> Cell:
        return Cell(
            count_now=self.count_now + other.count_now,
            sum_now=self.sum_now + other.sum_now,
            count_then=self.count_then + other.count_then,
            sum_then=self.sum_then + other.sum_then,
        )

    @property
    def mean(self) -> Compared:
        """Means of the windows that hold enough observations."""
        return Compared(
            now=self.sum_now / self.count_now if self.count_now >= ENOUGH else None,
            baseline=self.sum_then / self.count_then if self.count_then >= ENOUGH else None,
        )

    @property
    def error(self) -> float | None:
        """The standard error of its mean's change, single observations scattering by their mean; None without one."""
        now, then = self.mean.now, self.mean.baseline
        if now is None or then is None:
            return None
        return math.hypot(now / math.sqrt(self.count_now), then / math.sqrt(self.count_then))


@dataclass(frozen=True, kw_only=True)
class Effects:
    """The change of a mean, taken apart; both in the mean's unit, summing to the change."""

    rate: float
    mix: float

    @property
    def is_mix(self) -> bool:
        """Whether traffic moved instead of something getting worse."""
        return self.mix > 0 and self.mix >= MOSTLY * (abs(self.rate) + abs(self.mix))


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A cell whose mean grew more than everybody else's. `carried` is its part of everybody's rate effect."""

    value: str
    mean: Compared
    lift: float
    carried: float


async def observed(look: Look, histogram: str) -> dict[Place, Cell]:
    """A serving histogram's observations per pod with its place: two questions per window, for all dimensions."""
    labels = ("pod", "node", "rack", "revision", "model_name")
    sums, counts, known = await asyncio.gather(
        look.rates(f"{histogram}_sum", "serving", by=labels),
        look.rates(f"{histogram}_count", "serving", by=labels),
        places(look),
    )
    recent, before = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    cells: dict[Place, Cell] = {}
    for key, count in counts.items():
        place = _placed(key, known)
        cells[place] = cells.get(place, Cell()) + _cell(sums.get(key, NOTHING), count, recent, before)
    return cells


async def cells_by(look: Look, histogram: str, family: str, labels: tuple[str, ...]) -> dict[str, Cell]:
    """A histogram's observations by the first of these labels that each series has, "" where it has none."""
    sums, counts = await asyncio.gather(
        look.rates(f"{histogram}_sum", family, by=labels), look.rates(f"{histogram}_count", family, by=labels)
    )
    recent, before = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    cells: dict[str, Cell] = {}
    for key, count in counts.items():
        value = next((part for part in key if part), "")
        cells[value] = cells.get(value, Cell()) + _cell(sums.get(key, NOTHING), count, recent, before)
    return cells


def _placed(key: Key, known: Places) -> Place:
    pod, node, rack, revision, model = key
    place = known.pods.get(pod, Place(pod=pod))
    node = node or place.node
    return Place(
        pod=pod,
        node=node,
        rack=rack or place.rack or known.racks.get(node, ""),
        revision=revision or place.revision,
        model=model or place.model,
    )


def _cell(total: Compared, count: Compared, recent: float, before: float) -> Cell:
    """Counts from rates; a window in which either is unknown counts as empty."""
    now = count.now is not None and total.now is not None
    then = count.baseline is not None and total.baseline is not None
    return Cell(
        count_now=(count.now or 0.0) * recent if now else 0.0,
        sum_now=(total.now or 0.0) * recent if now else 0.0,
        count_then=(count.baseline or 0.0) * before if then else 0.0,
        sum_then=(total.baseline or 0.0) * before if then else 0.0,
    )


def along(cells: Mapping[Place, Cell], dimension: Callable[[Place], str]) -> dict[str, Cell]:
    """The cells of one dimension; those whose value nobody exports are left out."""
    merged: dict[str, Cell] = {}
    for place, cell in cells.items():
        value = dimension(place)
        if value:
            merged[value] = merged.get(value, Cell()) + cell
    return merged


def effects(cells: Mapping[str, Cell]) -> Effects | None:
    """Kitagawa's two effects; None when a window is empty. A new cell counts as if it had been average."""
    whole = sum(cells.values(), Cell())
    if whole.count_now <= 0 or whole.count_then <= 0:
        return None
    mean_then = whole.sum_then / whole.count_then
    rate = mix = 0.0
    for cell in cells.values():
        weight_now, weight_then = cell.count_now / whole.count_now, cell.count_then / whole.count_then
        now = cell.sum_now / cell.count_now if cell.count_now > 0 else None
        then = cell.sum_then / cell.count_then if cell.count_then > 0 else None
        then_ = mean_then if then is None else then
        now_ = then_ if now is None else now
        rate += (weight_now + weight_then) / 2 * (now_ - then_)
        mix += (weight_now - weight_then) * (now_ + then_) / 2
    return Effects(rate=rate, mix=mix)


def standing_apart(cells: Mapping[str, Cell]) -> list[Apart]:
    """
    The cells that got worse than the others, worst first.

    A cell needs a lift of 1.25, thirty observations, and to survive Benjamini and Hochberg's procedure (q = 0.05) over
    all cells of its dimension. A cell that is new is held against everybody's baseline.
    """
    whole = sum(cells.values(), Cell())
    tested = [(value, found) for value, cell in sorted(cells.items()) if (found := _lift(cell, whole)) is not None]
    believed = discoveries([chance for _, (_, chance) in tested])
    rate = sum(_carried(cell, whole) for cell in cells.values())
    apart = [
        Apart(
            value=value,
            mean=_with_baseline(cells[value], whole),
            lift=lift,
            carried=_carried(cells[value], whole) / rate if rate > 0 else 0.0,
        )
        for (value, (lift, _)), is_believed in zip(tested, believed, strict=True)
        if is_believed and lift >= LEAST_LIFT
    ]
    return sorted(apart, key=lambda found: found.lift, reverse=True)


def _with_baseline(cell: Cell, whole: Cell) -> Compared:
    mean = cell.mean
    return Compared(now=mean.now, baseline=whole.mean.baseline if mean.baseline is None else mean.baseline)


def _carried(cell: Cell, whole: Cell) -> float:
    mean = _with_baseline(cell, whole)
    return cell.count_now * (mean.gain or 0.0)


def has_grown(cell: Cell) -> bool:
    """Whether a cell's own mean grew by a quarter or more, and by more than chance and the drift of healthy peers."""
    factor = cell.mean.factor
    if factor is None or factor < LEAST_LIFT:
        return False
    return 1.0 - NormalDist().cdf(math.log(factor) / math.sqrt(_variance(cell.count_now, cell.count_then))) < _SURE


def _variance(*counts: float) -> float:
    """Of the logarithm of a ratio of means over so many observations."""
    return _DRIFT**2 + sum(_SCATTER**2 / count for count in counts if count >= ENOUGH)


def _lift(cell: Cell, whole: Cell) -> tuple[float, float] | None:
    """The lift over all others, and how often chance alone makes one so large; None where it cannot be told."""
    mean = _with_baseline(cell, whole)
    rest = whole + Cell(
        count_now=-cell.count_now, sum_now=-cell.sum_now, count_then=-cell.count_then, sum_then=-cell.sum_then
    )
    usual = rest.mean.factor if rest.mean.factor is not None else 1.0
    if mean.factor is None or mean.factor <= 0 or usual <= 0:
        return None
    others = rest if rest.mean.factor is not None else Cell()
    variance = _variance(cell.count_now, cell.count_then or whole.count_then, others.count_now, others.count_then)
    lift = mean.factor / usual
    return lift, 1.0 - NormalDist().cdf(math.log(lift) / math.sqrt(variance))


async def longer_prompts(look: Look) -> list[tuple[str, Apart]]:
    """The tenants whose prompts grew, or else the routes that got slower; empty where the application tells neither."""
    if "application" not in look.target.selectors:
        return []
    tokens, requests, slow, asked = await asyncio.gather(
        look.rates("llm_app_tokens_total", "application", by=("tenant",), where={"direction": "input"}),
        look.rates("llm_app_requests_total", "application", by=("tenant",)),
        look.rates("llm_app_request_duration_seconds_sum", "application", by=("route",)),
        look.rates("llm_app_request_duration_seconds_count", "application", by=("route",)),
    )
    recent, before = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    for dimension, sums, counts in (("tenant", tokens, requests), ("route", slow, asked)):
        cells = {
            key[0]: _cell(sums.get(key, NOTHING), count, recent, before) for key, count in counts.items() if key[0]
        }
        apart = standing_apart(cells) if len(cells) > 1 else []
        if apart:
            return [(dimension, one) for one in apart]
    return []
