"""
Simpler ways to name a cause, scored on the same cases: is the diagnosis worth its trouble?

Each gets what the diagnosis gets, and its probabilities are shares of what it considers: a lookup that knows four
candidates gives each a quarter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from diagnostics.causes.knowledge import Expected, Knowledge
from diagnostics.causes.observation import deviation_of
from diagnostics.changes.change import Change
from diagnostics.diagnosis import Scope
from diagnostics.findings import Finding
from lab.evaluation.cases import NONE, OTHER
from lab.evaluation.scoring import Answer

USUAL_CAUSES: Mapping[str, tuple[str, ...]] = {
    "LLMHighTTFT": ("S04", "S02", "S07", "S13"),
    "LLMTTFTSlo": ("S01", "S02", "S04", "S03"),
    "LLMHighITL": ("G04", "S09", "G05"),
    "LLMHighE2E": ("S11",),
    "GatewayHighLatency": ("I09",),
    "LLMQueueBacklog": ("S01", "S08", "I10"),
    "LLMKVSaturated": ("S03",),
    "LLMEngineStalled": ("S06", "G09"),
    "LLMReplicaImbalance": ("S07",),
    "LLMErrorRatio": ("I02", "S05", "G08"),
    "LLM4xx": ("I12",),
    "LLMTruncation": ("Q05",),
    "LLMReplicaLoss": ("S05", "G03", "G08"),
    "LLMMetricsAbsent": ("S14",),
    "LLMProvider429": ("I01", "I03"),
    "LLMProviderErrors": ("I02",),
    "LLMAuthErrors": ("I04",),
    "LLMSpend": ("X04", "X07", "X05"),
    "GPUXidCritical": ("G01", "G02"),
    "GPURowRemap": ("G03",),
    "GPURowRemapInfo": ("G11",),
    "GPUEccDbe": ("G02",),
    "GPUThrottle": ("G04", "G05"),
    "GPUNVLink": ("G06",),
    "GPUMissing": ("G01",),
    "LLMFormatValidity": ("Q01",),
    "LLMRefusalRate": ("Q02",),
    "LLMJudgeDrop": ("Q03", "Q04", "Q08", "G10"),
    "LLMInputDrift": ("Q06",),
    "LLMRetrievalEmpty": ("I05", "I07", "I06"),
    "LLMToolErrors": ("I08",),
    "LLMToolRate": ("X06",),
    "LLMGuardBlock": ("Q09",),
    "LLMInjection": ("X01", "X02"),
    "LLMSensitiveOutput": ("X03",),
}
"""Each alert of the pack with the causes that raise it first, the usual one in front."""

_WEIGHTS = {
    Expected.UP: 1.0,
    Expected.MAYBE_UP: 0.5,
    Expected.FLAT: 0.0,
    Expected.MAYBE_DOWN: -0.5,
    Expected.DOWN: -1.0,
}
_FARTHEST = 3.0  # tolerances; without a bound one wild signal would be the whole vector
_SHARPNESS = 10.0


def latest_change(changes: Iterable[Change], at: datetime, known: Knowledge) -> Answer:
    """Blame the newest change before the alert; its kind's usual causes are those the knowledge base lists for it."""
    before = sorted((change for change in changes if change.at <= at), key=lambda change: change.at)
    if not before:
        return Answer(ranked=((OTHER, 1.0),))
    newest = before[-1]
    priors = {name: cause.prior for name, cause in known.causes.items() if newest.kind in cause.change_kinds}
    dimension, values = next(iter(newest.scope.items()), ("fleet", ()))
    return Answer(
        ranked=_shares(priors) or ((OTHER, 1.0),),
        scope=Scope(dimension=dimension, values=tuple(values)),
        culprit=newest.id,
    )


def alert_name(alert: str, known: Knowledge) -> Answer:
    """Look the alert's name up, wherever the page's text holds it; an alert that is not of the pack says nothing."""
    named = [name for name in re.findall(r"\w+", alert) if name in USUAL_CAUSES]
    causes = [cause for cause in USUAL_CAUSES[named[0]] if cause in known.causes] if named else []
    return Answer(ranked=tuple((cause, 1 / len(causes)) for cause in causes) or ((OTHER, 1.0),))


def nearest_signature(findings: Sequence[Finding], known: Knowledge) -> Answer:
    """The cause whose expected movements have the smallest angle to what moved; no signal beyond tolerance: none."""
    moved = _deviations(findings, known)
    if all(abs(deviation) < 1.0 for deviation in moved.values()):
        return Answer(ranked=((NONE, 1.0),))
    closeness = {
        name: math.exp(_SHARPNESS * _cosine(moved, {signal: _WEIGHTS[how] for signal, how in cause.expects.items()}))
        for name, cause in known.causes.items()
    }
    return Answer(ranked=_shares(closeness))


def _deviations(findings: Sequence[Finding], known: Knowledge) -> dict[str, float]:
    """Per signal the farthest deviation that any check measured, in tolerances."""
    moved: dict[str, float] = {}
    for finding in findings:
        for measure in finding.measures:
            signal = known.signals.get(measure.signal)
            deviation = None if signal is None else deviation_of(signal, measure)
            if deviation is None:
                continue
            bounded = max(-_FARTHEST, min(_FARTHEST, deviation))
            if abs(bounded) >= abs(moved.get(measure.signal, 0.0)):
                moved[measure.signal] = bounded
    return moved


def _cosine(moved: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """Over the signals that were measured; what nobody measured has no direction."""
    seen = {signal: weight for signal, weight in expected.items() if signal in moved}
    lengths = math.hypot(*moved.values()) * math.hypot(*seen.values())
    return sum(moved[signal] * weight for signal, weight in seen.items()) / lengths if lengths else 0.0


def _shares(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """The weights as shares of their sum, best first; at a tie the order of the knowledge base."""
    whole = sum(weights.values())
    return tuple((name, weights[name] / whole) for name in sorted(weights, key=lambda name: -weights[name]))
