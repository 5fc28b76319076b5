"""The judgements that several checks share: is a mean too high, for the service or for one of its pods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics import attribution
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, spread, worst
from diagnostics.places import Place, Places, places
from diagnostics.telemetry.model import Key
from diagnostics.wording import compared, number

POD_LIMIT = 1.4
"""A single pod this many times above the baseline is bad even when the fleet's mean hides it."""


async def slow_or_not(
    look: Look, *, check: str, signal: str, histogram: str, words: str, budget_s: float | None, limit: float
) -> Finding:
    """Judge a latency histogram's mean for the service and per pod, and its p95 against a budget (seconds)."""
    await look.require("serving", f"{histogram}_count")
    cells, p95, known = await asyncio.gather(
        attribution.observed(look, histogram), look.p95(histogram, "serving"), places(look)
    )
    mean = sum(cells.values(), attribution.Cell()).mean
    if mean.now is None:
        raise CannotTellError(f"fewer than 30 observations of the {words} in the recent window")
    per_pod: dict[Key, Compared] = {
        (pod,): cell.mean for pod, cell in attribution.along(cells, attribution.DIMENSIONS["pod"]).items()
    }
    measures = [
        measure(signal, mean, "s"),
        measure(f"{signal}_p95", p95, "s"),
        *_spread_of(signal, per_pod),
        *_groups_apart(cells, signal, known),
    ]
    complaint = _complaint(mean, p95, worst(per_pod, mean.baseline), words, budget_s, limit)
    if complaint is not None:
        moved = _moved(cells)
        return Finding.bad(check, f"{complaint}{moved}", *measures)
    if mean.baseline is None:
        return _without_baseline(check, words, mean, p95, budget_s, measures)
    return Finding.ok(check, f"The mean {words} is {compared(mean, 's')}.", *measures)


def measure(signal: str, cell: Compared, unit: str, *scope: tuple[str, str]) -> Measure:
    """A comparison as the measure that the knowledge base reads."""
    return Measure(signal=signal, value=cell.now, baseline=cell.baseline, unit=unit, scope=scope)


def pod_measures(signal: str, per_pod: dict[Key, Compared], normal: float | None, unit: str) -> list[Measure]:
    """How far the pods are apart, and the worst pod by name when it stands out."""
    measures = _spread_of(signal, per_pod)
    top = worst(per_pod, normal)
    if top is not None and measures and (measures[0].value or 0.0) >= 1.25:
        (pod,), cell = top
        measures.append(measure(signal, cell, unit, ("pod", pod)))
    return measures


def _spread_of(signal: str, per_pod: Mapping[Key, Compared]) -> list[Measure]:
    """How far the slowest pod is from the middle one; nothing for fewer than two pods."""
    apart = spread([cell.now for key, cell in per_pod.items() if key != ("",) and cell.now is not None])
    before = spread([cell.baseline for cell in per_pod.values() if cell.baseline is not None])
    return [] if apart is None else [Measure(signal=f"{signal}_spread", value=apart, baseline=before, unit="x")]


def _groups_apart(cells: Mapping[Place, attribution.Cell], signal: str, known: Places) -> list[Measure]:
    """Pods, nodes, racks, revisions and models that are slow while others are not, and revisions that are new."""
    found = []
    for name, value_of in attribution.DIMENSIONS.items():
        merged = attribution.along(cells, value_of)
        apart = {one.value: one.mean for one in attribution.standing_apart(merged)} if len(merged) > 1 else {}
        if name == "revision":
            apart |= {value: merged[value].mean for value in merged if value in known.new_revisions}
        found += [measure(signal, mean, "s", (name, value)) for value, mean in sorted(apart.items())]
    return found


def _moved(cells: Mapping[Place, attribution.Cell]) -> str:
    """Says when the mean moved because traffic did: then nothing got slower."""
    for name in ("model", "revision", "pod"):
        merged = attribution.along(cells, attribution.DIMENSIONS[name])
        found = attribution.effects(merged) if len(merged) > 1 else None
        if found is not None and found.is_mix:
            return (
                f" Mostly traffic that moved between {name}s ({number(found.mix, 's')}); nothing got slower by itself."
            )
    return ""


def _complaint(
    mean: Compared,
    p95: Compared,
    top: tuple[tuple[str, ...], Compared] | None,
    words: str,
    budget_s: float | None,
    limit: float,
) -> str | None:
    if mean.factor is not None and mean.factor >= limit:
        return f"The mean {words} is {compared(mean, 's')}: {mean.factor:.2f} times as long."
    if top is not None and top[1].factor is not None and top[1].factor >= POD_LIMIT:
        return f"On pod {top[0][0]} the mean {words} is {compared(top[1], 's')}; the service's mean hides it."
    has_moved = mean.factor is not None and mean.factor >= 1.1
    if has_moved and budget_s is not None and p95.now is not None and p95.now > budget_s:
        return f"The 95th percentile of the {words} is {number(p95.now, 's')}; {number(budget_s, 's')} was promised."
    return None


def _without_baseline(
    check: str, words: str, mean: Compared, p95: Compared, budget_s: float | None, measures: list[Measure]
) -> Finding:
    if budget_s is None or p95.now is None:
        reason = f"The mean {words} is {number(mean.now, 's')}, with no baseline and no budget to hold it against."
        return Finding.unknown(check, reason, *measures)
    text = f"The 95th percentile of the {words} is {number(p95.now, 's')}; {number(budget_s, 's')} was promised."
    return Finding.ok(check, text, *measures) if p95.now <= budget_s else Finding.bad(check, text, *measures)
