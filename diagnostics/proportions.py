"""
Is a share, or a rate of rare events, higher than it was, beyond what chance explains?

The tests that judge application signals: two proportions by their pooled z, two Poisson rates exactly (conditional
binomial), two rates of few votes by their Beta posteriors, many cells at once by Benjamini and Hochberg. Counts come
from rates over windows, so they need not be whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diagnostics.diagnosis import Frame
from diagnostics.look import NOTHING, Compared
from diagnostics.telemetry.model import Key

ENOUGH_EVENTS = 200
"""Events that each window needs before its share is compared: at 4 % that leaves a standard error of 1.4 points."""

ENOUGH_VOTES = 100
"""Votes, calls or scores where events are scarce: at 4 % a standard error of two points."""

SURE = 0.01
"""A p-value below this is believed."""

_EXACT = 1000


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of all events were hits, now and in the baseline; counts, not rates."""

    hits_now: float = 0.0
    all_now: float = 0.0
    hits_then: float = 0.0
    all_then: float = 0.0

    def compared(self, enough: float = ENOUGH_EVENTS) -> Compared:
        """The shares; None for a window that holds too few events for its share to mean anything."""
        return Compared(
            now=self.hits_now / self.all_now if self.all_now >= enough else None,
            baseline=self.hits_then / self.all_then if self.all_then >= enough else None,
        )

    @property
    def chance(self) -> float:
        """How often chance alone moves the share this far, in either direction."""
        return chance_of_shares(self.hits_now, self.all_now, self.hits_then, self.all_then)

    def __add__(self, other: Share) -> Share:
        return Share(
            hits_now=self.hits_now + other.hits_now,
            all_now=self.all_now + other.all_now,
            hits_then=self.hits_then + other.hits_then,
            all_then=self.all_then + other.all_then,
        )


NO_EVENTS = Share()


def shares(cells: Mapping[Key, Compared], frame: Frame, is_hit: Callable[[str], bool]) -> dict[Key, Share]:
    """
    Rates whose last label says the kind of event, as shares of one kind per group of the labels before it.

    `cells` are events per second, as `Look.rates` gives them.
    """
    now_s = frame.recent.total_seconds()
    then_s = (frame.baseline_end - frame.baseline_start).total_seconds()
    found: dict[Key, Share] = {}
    for (*group, kind), cell in cells.items():
        now, then = (cell.now or 0.0) * now_s, (cell.baseline or 0.0) * then_s
        hit = float(is_hit(kind))
        one = Share(hits_now=hit * now, all_now=now, hits_then=hit * then, all_then=then)
        found[tuple(group)] = found.get(tuple(group), NO_EVENTS) + one
    return found


def folded(cells: Mapping[Key, Share], *positions: int) -> dict[Key, Share]:
    """The same events by some of their labels only, named by their positions; without any, all in one."""
    found: dict[Key, Share] = {}
    for key, cell in cells.items():
        place = tuple(key[position] for position in positions)
        found[place] = found.get(place, NO_EVENTS) + cell
    return found


def summed(cells: Mapping[Key, Compared], *positions: int) -> dict[Key, Compared]:
    """Rates by some of their labels only, named by their positions; a window without any series stays None."""
    found: dict[Key, Compared] = {}
    for key, cell in cells.items():
        place = tuple(key[position] for position in positions)
        so_far = found.get(place, NOTHING)
        found[place] = Compared(now=_add(so_far.now, cell.now), baseline=_add(so_far.baseline, cell.baseline))
    return found


def named(cells: Mapping[Key, Compared]) -> dict[Key, Compared]:
    """The same rates, where a label that says None (LiteLLM writes it for a request without a team or key) is empty."""
    found: dict[Key, Compared] = {}
    for key, cell in cells.items():
        place = tuple("" if value == "None" else value for value in key)
        so_far = found.get(place, NOTHING)
        found[place] = Compared(now=_add(so_far.now, cell.now), baseline=_add(so_far.baseline, cell.baseline))
    return found


def chance_of_shares(hits_1: float, all_1: float, hits_0: float, all_0: float) -> float:
    """Two-sided p-value of the pooled two-proportion z-test; 1 where there is nothing to compare."""
    if all_1 <= 0 or all_0 <= 0:
        return 1.0
    pooled = (hits_1 + hits_0) / (all_1 + all_0)
    variance = pooled * (1 - pooled) * (1 / all_1 + 1 / all_0)
    if variance <= 0:
        return 1.0
    return math.erfc(abs(hits_1 / all_1 - hits_0 / all_0) / math.sqrt(2 * variance))


def chance_of_rates(events_1: float, exposure_1: float, events_0: float, exposure_0: float) -> float:
    """
    How often Poisson events of one rate fall into the first window this often or more, given the events of both.

    Exact (binomial) up to a thousand events, by the normal beyond.
    """
    first, both = round(events_1), round(events_1) + round(events_0)
    if first <= 0 or exposure_1 <= 0 or exposure_0 <= 0:
        return 1.0
    p = exposure_1 / (exposure_1 + exposure_0)
    if both > _EXACT:
        return 0.5 * math.erfc((first - both * p) / math.sqrt(2 * both * p * (1 - p)))
    ways = math.lgamma(both + 1)
    return min(1.0, sum(_binomial(ways, k, both, p) for k in range(first, both + 1)))


def probability_of_higher(hits_1: float, all_1: float, hits_0: float, all_0: float) -> float:
    """P(rate 1 > rate 0) of two Beta(1 + hits, 1 + misses) posteriors, by their means and variances."""
    mean_1, variance_1 = _beta(hits_1, all_1 - hits_1)
    mean_0, variance_0 = _beta(hits_0, all_0 - hits_0)
    return 0.5 * math.erfc((mean_0 - mean_1) / math.sqrt(2 * (variance_1 + variance_0)))


def discoveries(chances: Sequence[float], q: float = 0.05) -> list[bool]:
    """Which of many p-values hold when at most the share `q` of those that are believed may be chance."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    believed = 0
    for rank, place in enumerate(order, start=1):
        if chances[place] <= q * rank / len(chances):
            believed = rank
    held = set(order[:believed])
    return [place in held for place in range(len(chances))]


def _binomial(ways: float, k: int, n: int, p: float) -> float:
    return math.exp(ways - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log(1 - p))


def _beta(hits: float, misses: float) -> tuple[float, float]:
    a, b = 1 + max(hits, 0.0), 1 + max(misses, 0.0)
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


def _add(first: float | None, second: float | None) -> float | None:
    return second if first is None else first + (second or 0.0)
