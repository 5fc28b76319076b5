"""
From measures to probabilities: how well does each cause explain what the checks measured?

A cause says how it moves each signal; the likelihoods of all measured signals, shared out within groups that move
together and tempered since they are not independent, give its weight. `none` expects everything flat. `other` is what
nobody has described yet: a fault that resembles a known cause in all but what is decisive for it, or one that resembles
nothing. Two causes at once are hypotheses of their own; what such a pair weighs is shared by its two, so that a pair
never makes one of them look certain. A cause that leaves the mark of another unexplained is not held for nearly
certain either: the rest is `other`, since more than one thing may be wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnostics.causes import evidence
from diagnostics.causes.knowledge import Cause, Expected, Knowledge
from diagnostics.causes.observation import Observation
from diagnostics.causes.unexplained import unexplained
from diagnostics.diagnosis import RankedCause, Suspect


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """
    The few numbers that turn likelihoods into probabilities that mean what they say.

    `temper` allows for signals that are correlated beyond their groups. `decisive` is how much more a decisive signal
    weighs. `kin` is the prior odds of an unknown fault that resembles a cause, `pair` of two causes at once.
    `sharpness` is applied to the finished weights. `doubtful` is the most that a cause gets which leaves the mark of
    another unexplained.
    """

    none: float = 1.5
    other: float = 6.0
    kin: float = 0.1
    temper: float = 0.8
    decisive: float = 1.5
    pair: float = 0.015
    sharpness: float = 1.3
    doubtful: float = 0.75


CALIBRATION = Calibration()
_SHOWN = 3
"""So many causes are named however unlikely: whoever reads wants to see what was considered."""

_PARTNERS = 10
"""Pairs are formed from the best so many causes with every other one."""


def rank(
    observed: Mapping[str, Observation],
    suspects: Sequence[Suspect],
    knowledge: Knowledge,
    *,
    changes_known: bool,
    calibration: Calibration = CALIBRATION,
) -> tuple[RankedCause, ...]:
    """
    The causes with their probabilities, best first; `none` and `other` are always among them.

    `changes_known` says that every change source answered, so that the absence of a change means something.
    """
    weighing = _Weighing(observed, calibration)
    priors = {
        cause.id: math.log(cause.prior) + _change_evidence(cause, suspects, changes_known=changes_known)
        for cause in knowledge.causes.values()
    }
    weights = {cause.id: priors[cause.id] + weighing.cause(cause) for cause in knowledge.causes.values()}
    pairs = _pairs(weights, priors, weighing, knowledge, math.log(calibration.pair))
    prior_none = calibration.none if observed else 1.0  # silence is no sign of health
    weights["none"] = math.log(prior_none) + weighing.none()
    unlike = math.log(calibration.other) + weighing.other()
    alike = [priors[cause.id] + math.log(calibration.kin) + weighing.kin(cause) for cause in knowledge.causes.values()]
    weights["other"] = _log_sum([unlike, *alike])
    shares = _doubted(_shares(weights, pairs, calibration.sharpness), observed, knowledge, calibration.doubtful)
    order = sorted(shares, key=lambda name: shares[name], reverse=True)
    first = {"none", "other", *[name for name in order if name in knowledge.causes][:_SHOWN]}
    shown = [name for name in order if shares[name] >= 0.01 or name in first]
    # Rounding down keeps the sum at most 1.
    return tuple(evidence.ranked(name, math.floor(shares[name] * 10000) / 10000, observed, knowledge) for name in shown)


class _Weighing:
    """The logarithm of each hypothesis' likelihood over all observations; each signal's part is worked out once."""

    def __init__(self, observed: Mapping[str, Observation], calibration: Calibration) -> None:
        self._observed = observed
        self._calibration = calibration
        sizes = Counter(seen.signal.group for seen in observed.values())
        self._weights = {
            name: calibration.temper / math.sqrt(sizes[seen.signal.group]) for name, seen in observed.items()
        }
        self._single = {
            name: {expected: math.log(seen.likelihood(expected)) for expected in Expected}
            for name, seen in observed.items()
        }
        self._double: dict[tuple[str, Expected, Expected], float] = {}

    def cause(self, cause: Cause) -> float:
        return sum(self._part(name, cause) for name in self._observed)

    def kin(self, cause: Cause) -> float:
        """Of an unknown fault that moves all but the decisive signals as this cause does."""
        return sum(
            self._weights[name] * math.log(seen.likelihood_of_kin())
            if name in cause.decisive
            else self._part(name, cause)
            for name, seen in self._observed.items()
        )

    def pair_gain(self, one: Cause, another: Cause) -> float:
        """By how much both together explain more than the first alone; only what the second moves can change."""
        gain = 0.0
        for name in another.expects.keys() | another.decisive:
            if name not in self._observed:
                continue
            mine, theirs = one.expects.get(name, Expected.FLAT), another.expects.get(name, Expected.FLAT)
            weight = self._weight(name, one, another)
            gain += weight * self._both(name, mine, theirs) - self._part(name, one)
        return gain

    def none(self) -> float:
        return sum(self._weights[name] * math.log(seen.likelihood_of_none()) for name, seen in self._observed.items())

    def other(self) -> float:
        return sum(self._weights[name] * math.log(seen.likelihood_of_other()) for name, seen in self._observed.items())

    def _part(self, name: str, cause: Cause) -> float:
        return self._weight(name, cause) * self._single[name][cause.expects.get(name, Expected.FLAT)]

    def _weight(self, name: str, *causes: Cause) -> float:
        is_decisive = any(name in cause.decisive for cause in causes)
        return self._weights[name] * (self._calibration.decisive if is_decisive else 1.0)

    def _both(self, name: str, one: Expected, another: Expected) -> float:
        key = (name, one, another)
        if key not in self._double:
            self._double[key] = math.log(self._observed[name].likelihood_of_both(one, another))
        return self._double[key]


def _log_sum(weights: Sequence[float]) -> float:
    top = max(weights)
    return top + math.log(sum(math.exp(weight - top) for weight in weights))


def _pairs(
    weights: Mapping[str, float],
    priors: Mapping[str, float],
    weighing: _Weighing,
    knowledge: Knowledge,
    odds: float,
) -> dict[tuple[str, str], float]:
    """The weights of two causes at once, for the best causes with every other."""
    best = sorted(weights, key=lambda name: weights[name], reverse=True)[:_PARTNERS]
    found: dict[tuple[str, str], float] = {}
    for one in best:
        for another in weights.keys() - {one}:
            key = (min(one, another), max(one, another))
            if key not in found:
                gain = weighing.pair_gain(knowledge.causes[one], knowledge.causes[another])
                found[key] = weights[one] + gain + priors[another] + odds
    return found


def _shares(weights: Mapping[str, float], pairs: Mapping[tuple[str, str], float], sharpness: float) -> dict[str, float]:
    """Every single hypothesis' share of the whole; a pair's is split between its two."""
    top = max([*weights.values(), *pairs.values()])
    raw = {name: math.exp(sharpness * (weight - top)) for name, weight in weights.items()}
    for (one, another), weight in pairs.items():
        both = math.exp(sharpness * (weight - top)) / 2
        raw[one] += both
        raw[another] += both
    whole = sum(raw.values())
    return {name: share / whole for name, share in raw.items()}


def _doubted(
    shares: Mapping[str, float], observed: Mapping[str, Observation], knowledge: Knowledge, most: float
) -> Mapping[str, float]:
    """The shares, with no more than `most` for a first cause that does not explain the mark of another."""
    first = max(shares, key=lambda name: shares[name])
    cause = knowledge.causes.get(first)
    if cause is None or shares[first] <= most or not unexplained(cause, observed, knowledge):
        return shares
    return {**shares, first: most, "other": shares["other"] + shares[first] - most}


def _change_evidence(cause: Cause, suspects: Sequence[Suspect], *, changes_known: bool) -> float:
    """A fitting change at the right time speaks for a cause that changes bring; its absence a little against."""
    if not cause.change_kinds:
        return 0.0
    fitting = [suspect.score for suspect in suspects if suspect.change.kind in cause.change_kinds]
    if fitting:
        return math.log(1.0 + 1.5 * max(fitting))
    return math.log(0.7) if changes_known else 0.0
