"""
What was measured, as states: each signal is up, flat or down against its baseline, softly around its tolerance.

A measure far out counts as out for sure, one at its tolerance half; a signal that nobody measured is not here at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from diagnostics.causes.knowledge import Expected, Knowledge, Signal
from diagnostics.findings import Finding, Measure

# P(up), P(flat), P(down) under what a cause expects. These and the engine's numbers are chosen on tuning cases, never
# on those that are reported (docs/diagnosis.md).
_LIKELIHOODS = {
    Expected.UP: (0.90, 0.08, 0.02),
    Expected.MAYBE_UP: (0.42, 0.55, 0.03),
    Expected.FLAT: (0.04, 0.92, 0.04),
    Expected.MAYBE_DOWN: (0.03, 0.55, 0.42),
    Expected.DOWN: (0.02, 0.08, 0.90),
}
_EITHER = (0.40, 0.20, 0.40)
_UNTOLD = (0.16, 0.68, 0.16)  # a decisive signal under a fault that only resembles the cause
_OTHER = (0.07, 0.87, 0.06)  # a fault that resembles nothing moves any signal now and then
_NONE = (0.035, 0.93, 0.035)
_NONE_LEAST = 0.002  # a healthy service now and then passes a tolerance, but hardly ever by far
_FLAT_LEAST = 0.001  # a cause has side effects that it does not mention, but seldom large ones

Table = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured signal with the soft share of each state, and its distance from normal in tolerances."""

    signal: Signal
    measure: Measure
    distance: float
    up: float
    flat: float
    down: float

    @property
    def state(self) -> str:
        """up, flat or down, whichever is likelier than not."""
        if self.up >= 0.5:
            return "up"
        return "down" if self.down >= 0.5 else "flat"

    def likelihood(self, expected: Expected) -> float:
        """How likely this is under a cause that moves the signal so."""
        table = _LIKELIHOODS[expected]
        return self._under(self._calm(table, _FLAT_LEAST) if expected is Expected.FLAT else table)

    def likelihood_of_both(self, one: Expected, another: Expected) -> float:
        """How likely this is when two causes act at once: what moves a signal prevails over what leaves it alone."""
        if one is another or another is Expected.FLAT:
            return self.likelihood(one)
        if one is Expected.FLAT:
            return self.likelihood(another)
        sides = {expected.value.removeprefix("maybe_") for expected in (one, another)}
        if len(sides) == 2:
            return self._under(_EITHER)
        return max(self.likelihood(one), self.likelihood(another))

    def likelihood_of_kin(self) -> float:
        """How likely this is, as a decisive signal, under an unknown fault that resembles the cause in the rest."""
        return self._under(_UNTOLD)

    def likelihood_of_none(self) -> float:
        """How likely this is where nothing is wrong: the farther out, the less."""
        return self._under(self._calm(_NONE, _NONE_LEAST))

    def likelihood_of_other(self) -> float:
        """How likely this is under something unknown, which may move anything."""
        return self._under(_OTHER)

    def _calm(self, table: Table, least: float) -> Table:
        """The table of a signal that should be flat: the farther it is out, the less likely that is by chance."""
        side = max(table[0] * math.exp(1.0 - max(self.distance, 1.0)), least)
        return side, table[1], side

    def _under(self, table: Table) -> float:
        up, flat, down = table
        return self.up * up + self.flat * flat + self.down * down


def observe(findings: Iterable[Finding], knowledge: Knowledge) -> dict[str, Observation]:
    """The signals that were measured: the service's own measure first, otherwise the scoped one that moved most."""
    observed: dict[str, Observation] = {}
    for finding in findings:
        for measure in finding.measures:
            signal = knowledge.signals.get(measure.signal)
            new = None if signal is None else _observation(signal, measure)
            old = observed.get(measure.signal)
            if new is not None and (old is None or _replaces(new, old)):
                observed[measure.signal] = new
    return observed


def deviation_of(signal: Signal, measure: Measure) -> float | None:
    """How many tolerances a measure lies above (or, negative, below) its baseline; None when nobody can say."""
    value = measure.value
    if value is None or not math.isfinite(value):
        return None
    if signal.is_event:
        return 3.0 if value >= 0.5 else 0.0
    if signal.above is not None:
        return value / signal.above * 3.0 - 2.0 if value > 0.67 * signal.above else 0.0
    baseline = measure.baseline
    return None if baseline is None or not math.isfinite(baseline) else _against_baseline(signal, value, baseline)


def _observation(signal: Signal, measure: Measure) -> Observation | None:
    deviation = deviation_of(signal, measure)
    if deviation is None:
        return None
    up, down = _soft(deviation), _soft(-deviation)
    flat = max(1.0 - up - down, 0.0)
    return Observation(signal=signal, measure=measure, distance=abs(deviation), up=up, flat=flat, down=down)


def _against_baseline(signal: Signal, value: float, baseline: float) -> float:
    if signal.absolute is not None:
        return (value - baseline) / signal.absolute
    tolerance = math.log1p(signal.relative or 0.0)
    if value <= 0 or baseline <= 0:
        return 0.0 if value == baseline else math.copysign(3.0, value - baseline)
    return math.log(value / baseline) / tolerance


def _soft(deviation: float) -> float:
    """About 0.02 at no deviation, one half at the tolerance, 0.98 at twice the tolerance."""
    return 1.0 / (1.0 + math.exp(-4.0 * (min(deviation, 10.0) - 1.0))) if deviation > -10 else 0.0


def _replaces(new: Observation, old: Observation) -> bool:
    if bool(new.measure.scope) != bool(old.measure.scope):
        return not new.measure.scope
    return bool(new.measure.scope) and 1 - new.flat > 1 - old.flat
