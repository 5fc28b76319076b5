"""
From measures to probabilities: how well does each cause explain what the checks measured?

Each measured signal is up, flat or down against its baseline, softly around its tolerance. A cause says how it moves
each signal; the likelihoods of all measured signals, shared out within groups that move together and tempered since
they are not independent, give its weight. `none` expects everything flat, `other` expects a little of everything, so a
pattern that no cause explains goes to them. A signal that nobody measured says nothing, for or against.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diagnostics.causes.knowledge import Cause, Expected, Knowledge, Signal
from diagnostics.diagnosis import RankedCause, Suspect
from diagnostics.findings import Finding, Measure
from diagnostics.wording import change, number

NONE_TITLE = "nothing is wrong that the telemetry shows"
OTHER_TITLE = "something that the knowledge base does not describe"

# P(up), P(flat), P(down) under what a cause expects; `other` moves any signal now and then.
_LIKELIHOODS = {
    Expected.UP: (0.85, 0.13, 0.02),
    Expected.MAYBE_UP: (0.48, 0.48, 0.04),
    Expected.FLAT: (0.04, 0.92, 0.04),
    Expected.MAYBE_DOWN: (0.04, 0.48, 0.48),
    Expected.DOWN: (0.02, 0.13, 0.85),
}
_OTHER = (0.09, 0.84, 0.07)
_NONE = (0.03, 0.94, 0.03)
_NONE_LEAST = 0.0005  # a healthy service now and then passes a tolerance, but hardly ever by far
_FLAT_LEAST = 0.01  # a cause has side effects that it does not mention, but seldom large ones

_PRIOR_NONE = 4.5
_PRIOR_OTHER = 4.0
_TEMPER = 0.6  # signals are correlated beyond their groups: without this, answers are surer than they are right
_DECISIVE = 1.6
_SENTENCES = 6


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured signal with the soft share of each state, and its distance from normal in tolerances."""

    signal: Signal
    measure: Measure
    distance: float
    up: float
    flat: float
    down: float


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


def rank(
    observed: Mapping[str, Observation], suspects: Sequence[Suspect], knowledge: Knowledge, *, changes_known: bool
) -> tuple[RankedCause, ...]:
    """
    The causes with their probabilities, best first; `none` and `other` are always among them.

    `changes_known` says that every change source answered, so that the absence of a change means something.
    """
    group_sizes = Counter(seen.signal.group for seen in observed.values())
    weights = {
        cause.id: math.log(cause.prior)
        + _evidence(observed, group_sizes, cause)
        + _change_evidence(cause, suspects, changes_known=changes_known)
        for cause in knowledge.causes.values()
    }
    prior_none = _PRIOR_NONE if observed else 1.0  # silence is no sign of health
    weights["none"] = math.log(prior_none) + _evidence_for_none(observed, group_sizes)
    weights["other"] = math.log(_PRIOR_OTHER) + _TEMPER * sum(
        math.log(_likelihood(seen, _OTHER)) / math.sqrt(group_sizes[seen.signal.group]) for seen in observed.values()
    )
    top = max(weights.values())
    raw = {name: math.exp(weight - top) for name, weight in weights.items()}
    whole = sum(raw.values())
    ranked = sorted(raw, key=lambda name: raw[name], reverse=True)
    shown = [name for name in ranked if raw[name] / whole >= 0.01 or name in {"none", "other"}]
    return tuple(_ranked(name, raw[name] / whole, observed, knowledge) for name in shown)


def _evidence(observed: Mapping[str, Observation], group_sizes: Mapping[str, int], cause: Cause) -> float:
    total = 0.0
    for name, seen in observed.items():
        weight = _DECISIVE if name in cause.decisive else 1.0
        expected = cause.expects.get(name, Expected.FLAT)
        table = (
            _calm(seen, _LIKELIHOODS[expected], _FLAT_LEAST) if expected is Expected.FLAT else _LIKELIHOODS[expected]
        )
        likelihood = _likelihood(seen, table)
        total += weight * math.log(likelihood) / math.sqrt(group_sizes[seen.signal.group])
    return _TEMPER * total


def _evidence_for_none(observed: Mapping[str, Observation], group_sizes: Mapping[str, int]) -> float:
    """How well "nothing is wrong" explains the measures: the farther a signal is out, the worse."""
    total = 0.0
    for seen in observed.values():
        likelihood = _likelihood(seen, _calm(seen, _NONE, _NONE_LEAST))
        total += math.log(likelihood) / math.sqrt(group_sizes[seen.signal.group])
    return _TEMPER * total


def _calm(seen: Observation, table: tuple[float, float, float], least: float) -> tuple[float, float, float]:
    """The table of a signal that should be flat: the farther it is out, the less likely that is by chance."""
    side = max(table[0] * math.exp(1.0 - max(seen.distance, 1.0)), least)
    return side, table[1], side


def _likelihood(seen: Observation, table: tuple[float, float, float]) -> float:
    up, flat, down = table
    return seen.up * up + seen.flat * flat + seen.down * down


def _change_evidence(cause: Cause, suspects: Sequence[Suspect], *, changes_known: bool) -> float:
    """A fitting change at the right time speaks for a cause that changes bring; its absence a little against."""
    if not cause.change_kinds:
        return 0.0
    fitting = [suspect.score for suspect in suspects if suspect.change.kind in cause.change_kinds]
    if fitting:
        return math.log(1.0 + 1.5 * max(fitting))
    return math.log(0.7) if changes_known else 0.0


def _observation(signal: Signal, measure: Measure) -> Observation | None:
    deviation = deviation_of(signal, measure)
    if deviation is None:
        return None
    up, down = _soft(deviation), _soft(-deviation)
    flat = max(1.0 - up - down, 0.0)
    return Observation(signal=signal, measure=measure, distance=abs(deviation), up=up, flat=flat, down=down)


def deviation_of(signal: Signal, measure: Measure) -> float | None:
    """How many tolerances a measure lies above (or, negative, below) its baseline; None when nobody can say."""
    value = measure.value
    if value is None or not math.isfinite(value):
        return None
    if signal.is_event:
        return 3.0 if value >= 0.5 else 0.0
    if signal.above is not None:
        return value / signal.above * 3.0 - 2.0 if value > 0.67 * signal.above else 0.0
    return None if measure.baseline is None else _against_baseline(signal, value, measure.baseline)


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


def _ranked(name: str, probability: float, observed: Mapping[str, Observation], knowledge: Knowledge) -> RankedCause:
    probability = math.floor(probability * 10000) / 10000  # rounding down keeps the sum at most 1
    cause = knowledge.causes.get(name)
    if cause is None:
        moved = tuple(_sentence(seen) for seen in _strongest(observed.values()) if seen.flat < 0.5)[:_SENTENCES]
        if name == "none":
            calm = () if moved else ("every signal that was measured is within its normal range",)
            return RankedCause(
                cause=name, title=NONE_TITLE, probability=probability, evidence_for=calm, evidence_against=moved
            )
        return RankedCause(cause=name, title=OTHER_TITLE, probability=probability)
    evidence_for, evidence_against = _sentences(cause, observed)
    return RankedCause(
        cause=name,
        title=cause.title,
        probability=probability,
        evidence_for=evidence_for,
        evidence_against=evidence_against,
    )


def _sentences(cause: Cause, observed: Mapping[str, Observation]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What speaks for a cause and what against it, decisive signals first."""
    ordered = sorted(_strongest(observed.values()), key=lambda seen: seen.signal.name not in cause.decisive)
    speaks_for: list[str] = []
    against: list[str] = []
    for seen in ordered:
        expected = cause.expects.get(seen.signal.name, Expected.FLAT)
        state = _state(seen)
        if expected is Expected.FLAT:
            if state != "flat":
                against.append(f"{_sentence(seen)}, which it does not explain")
            elif seen.signal.name in cause.decisive:
                speaks_for.append(f"{_sentence(seen)}, as it should be then")
        elif state == expected.value.removeprefix("maybe_"):
            speaks_for.append(_sentence(seen))
        elif state != "flat" or not expected.value.startswith("maybe_"):
            against.append(f"{_sentence(seen)}, but should be {expected.value.removeprefix('maybe_')}")
    return tuple(speaks_for[:_SENTENCES]), tuple(against[:_SENTENCES])


def _strongest(observations: Iterable[Observation]) -> list[Observation]:
    return sorted(observations, key=lambda seen: seen.flat)


def _state(seen: Observation) -> str:
    if seen.up >= 0.5:
        return "up"
    return "down" if seen.down >= 0.5 else "flat"


def _sentence(seen: Observation) -> str:
    measure, signal = seen.measure, seen.signal
    where = "".join(f" on {label} {value}" for label, value in measure.scope if value)
    if signal.is_event or signal.above is not None:
        return f"{signal.words}: {number(measure.value, '' if signal.unit == 'x' else signal.unit)}{where}"
    if _state(seen) == "flat":
        return f"{signal.words} stays at {number(measure.value, signal.unit)}{where}"
    return f"{signal.words} {change(measure.value, measure.baseline, signal.unit)}{where}"
