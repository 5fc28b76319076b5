"""
Which change is guilty, if any: prior x lag x scope x mechanism, with room for "none of them".

Blaming the last deploy is mostly wrong: three incidents in ten have no guilty change at all, and innocent changes lie
near most onsets. So "none" always takes part with a weight of its own, a change after the onset is out, and what a
change did (its text, its share of the traffic) counts as much as when it happened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from diagnostics.causes.knowledge import Cause
from diagnostics.changes.change import Change
from diagnostics.changes.diff import growth, new_variable_at_start, short_diff
from diagnostics.diagnosis import RankedCause, Suspect
from diagnostics.findings import Measure
from diagnostics.onset import Onset
from diagnostics.wording import number

NONE_WEIGHT = 0.3
"""What "no change is guilty" weighs against the changes' products."""

CULPRIT_SCORE = 0.45
CULPRIT_LEAD = 1.5

_INNOCENT = 0.1
_PLACES = (
    "pod", "node", "rack", "revision", "model", "api_key", "tenant", "route", "provider", "account", "tool", "agent",
    "data_source", "policy", "evaluator", "segment", "adapter",
)  # fmt: skip
_UNKNOWN_SCOPE = 0.5
_OUR_ENGINES = 0.9


@dataclass(frozen=True, kw_only=True)
class Delay:
    """How long after a change its effect begins: certain up to `plateau`, then halving."""

    plateau: timedelta
    half_life: timedelta


_ROLLOUT = Delay(plateau=timedelta(minutes=10), half_life=timedelta(minutes=15))
_DELAYS = {
    "prompt": Delay(plateau=timedelta(minutes=3), half_life=timedelta(minutes=4)),  # label plus a client cache of 60 s
    "flag": Delay(plateau=timedelta(minutes=5), half_life=timedelta(minutes=5)),
    "policy": Delay(plateau=timedelta(minutes=5), half_life=timedelta(minutes=8)),
    "gateway": Delay(plateau=timedelta(minutes=5), half_life=timedelta(minutes=10)),
    "index": Delay(plateau=timedelta(minutes=60), half_life=timedelta(minutes=30)),
    "secret": Delay(plateau=timedelta(minutes=60), half_life=timedelta(hours=6)),
    "infra": Delay(plateau=timedelta(minutes=15), half_life=timedelta(hours=1)),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the changes are held against: service with its engines, onset, the causes as measured, and the measures."""

    service: str
    engines: frozenset[str] = frozenset()  # names of its engine deployments
    onset: Onset | None
    causes: Sequence[RankedCause]
    knowledge: Mapping[str, Cause]
    measures: Sequence[Measure]


@dataclass(frozen=True, kw_only=True)
class _Factor:
    value: float
    reason: str | None = None


def rank_changes(changes: Sequence[Change], scene: Scene) -> tuple[Suspect, ...]:
    """The suspects with scores that sum to less than 1, best first; changes after the onset are not among them."""
    weighed = []
    for change in changes:
        lag = _lag(change, scene.onset)
        if lag.value == 0.0 or change.is_symptom:
            continue
        factors = (lag, _scope(change, scene), _mechanism(change, scene))
        reasons = tuple(factor.reason for factor in factors if factor.reason is not None)
        weighed.append((math.prod(factor.value for factor in factors), change, reasons))
    whole = sum(weight for weight, _, _ in weighed) + NONE_WEIGHT
    weighed.sort(key=lambda entry: entry[0], reverse=True)
    return tuple(
        Suspect(
            change=change,
            score=round(weight / whole, 4),
            reasons=reasons,
            diff=diff_of(change),
        )
        for weight, change, reasons in weighed
    )


def culprit(suspects: Sequence[Suspect], top: RankedCause, knowledge: Mapping[str, Cause]) -> str | None:
    """The id of the guilty change, or None: it must lead clearly and be of a kind that brings the top cause about."""
    cause = knowledge.get(top.cause)
    if not suspects or cause is None:
        return None
    first, *others = suspects
    leads = not others or first.score >= CULPRIT_LEAD * others[0].score
    fits = first.change.kind in cause.change_kinds
    return first.change.id if fits and leads and first.score >= CULPRIT_SCORE else None


def _lag(change: Change, onset: Onset | None) -> _Factor:
    if onset is None:
        return _Factor(value=0.4, reason="when the trouble began is not known, so its time says little")
    if change.at > onset.latest:
        return _Factor(value=0.0)
    delay = _DELAYS.get(change.kind, _ROLLOUT)
    waited = max(onset.at - change.at, timedelta(0))
    beyond = max(waited - delay.plateau, timedelta(0))
    value = 0.5 ** (beyond / delay.half_life)
    minutes = waited.total_seconds() / 60
    words = "right at the onset" if minutes < 1 else f"{minutes:.0f} min before the onset"
    return _Factor(value=max(value, 0.02), reason=f"it came {words}")


def _scope(change: Change, scene: Scene) -> _Factor:
    """Does what the change touched cover what went wrong?"""
    if change.service and change.service != scene.service:
        return _Factor(value=0.25, reason=f"it belongs to another service ({change.service})")
    carried = _traffic_share(change, scene.measures)
    if carried is not None:
        value = min(max(carried, 0.05) * 1.5, 1.0)
        return _Factor(value=value, reason=f"it carries {number(carried, 'ratio')} of the service's requests")
    for label in _PLACES:
        touched = set(change.scope.get(label, ()))
        anomalous = {dict(m.scope)[label] for m in scene.measures if label in dict(m.scope)}
        if touched and anomalous:
            overlap = len(touched & anomalous) / len(touched | anomalous)
            if overlap == 0:
                return _Factor(value=_INNOCENT, reason=f"the trouble is elsewhere ({label}) than what it touched")
            return _Factor(value=0.7 + 0.5 * overlap, reason=f"it touched where the trouble is ({label})")
    engines = scene.engines.intersection(change.scope.get("deployment", ()))
    if engines:
        return _Factor(value=_OUR_ENGINES, reason=f"it changed the engines ({', '.join(sorted(engines))})")
    return _Factor(value=_UNKNOWN_SCOPE)


def _traffic_share(change: Change, measures: Sequence[Measure]) -> float | None:
    names, versions = change.scope.get("prompt", ()), change.scope.get("prompt_version", ())
    for measure in measures:
        where = dict(measure.scope)
        is_it = where.get("prompt_name") in names and where.get("prompt_version") in versions
        if measure.signal == "prompt_version_share" and is_it:
            return measure.value
    return None


def _mechanism(change: Change, scene: Scene) -> _Factor:
    """Could a change of this kind, and this text, bring about what was measured?"""
    able = [
        (ranked.probability, scene.knowledge[ranked.cause])
        for ranked in scene.causes
        if ranked.cause in scene.knowledge and change.kind in scene.knowledge[ranked.cause].change_kinds
    ]
    probability = sum(weight for weight, _ in able)
    if probability < 0.05:
        return _Factor(value=0.05, reason=f"a {change.kind} change does not bring about what was measured")
    text = _text_evidence(change, max(able, key=lambda entry: entry[0])[1])
    return _Factor(value=min(probability, 1.0) * text.value, reason=text.reason)


def _text_evidence(change: Change, cause: Cause) -> _Factor:
    """What the change's text says about the likeliest cause that it could bring about."""
    if change.kind != "prompt" or change.before is None or change.after is None:
        return _Factor(value=0.6)
    if change.before == change.after:
        return _Factor(value=_INNOCENT, reason="its text did not change")
    if cause.id == "S04":
        return _cache_evidence(change.before, change.after)
    if cause.id in {"S02", "I12"}:
        return _length_evidence(change.before, change.after)
    return _Factor(value=0.7)


def _cache_evidence(before: str, after: str) -> _Factor:
    variable = new_variable_at_start(before, after)
    if variable is not None:
        return _Factor(value=1.0, reason=f"the prompt now has a variable part near its start: {variable}")
    return _Factor(value=0.15, reason="the start of the prompt does not vary more than before")


def _length_evidence(before: str, after: str) -> _Factor:
    times = growth(before, after)
    if times >= 1.2:
        return _Factor(value=1.0, reason=f"the prompt's text is {times:.1f} times as long as before")
    return _Factor(value=0.2, reason="the prompt's text is not longer than before")


def diff_of(change: Change) -> str:
    """What it changed, as a short unified diff under the names of its versions."""
    before, after = _sides(change)
    return short_diff(change.before, change.after, before_name=before, after_name=after)


def _sides(change: Change) -> tuple[str, str]:
    undo = change.undo
    if "version" in undo and "previous_version" in undo:
        what = f"{undo.get('prompt', '')} version".strip()
        return f"{what} {undo['previous_version']}", f"{what} {undo['version']}"
    if "deployment" in undo and "revision" in undo:
        return f"{undo['deployment']} before", f"{undo['deployment']} revision {undo['revision']}"
    return "before", "after"
