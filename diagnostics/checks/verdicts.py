"""The judgements that several checks share: is a mean too high, for the service or for one of its pods."""

from __future__ import annotations

import asyncio

from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, spread, worst
from diagnostics.wording import compared, number

POD_LIMIT = 1.4
"""A single pod this many times above the baseline is bad even when the fleet's mean hides it."""


async def slow_or_not(
    look: Look, *, check: str, signal: str, histogram: str, words: str, budget_s: float | None, limit: float
) -> Finding:
    """Judge a latency histogram's mean for the service and per pod, and its p95 against a budget (seconds)."""
    await look.require("serving", f"{histogram}_count")
    mean, per_pod, p95, groups = await asyncio.gather(
        look.mean(histogram, "serving"),
        look.means(histogram, "serving", by=("pod",)),
        look.p95(histogram, "serving"),
        _groups_apart(look, signal, histogram),
    )
    if mean.now is None:
        raise CannotTellError(f"fewer than 30 observations of the {words} in the recent window")
    measures = [
        measure(signal, mean, "s"),
        measure(f"{signal}_p95", p95, "s"),
        *pod_measures(signal, per_pod, mean.baseline, "s"),
        *groups,
    ]
    complaint = _complaint(mean, p95, worst(per_pod, mean.baseline), words, budget_s, limit)
    if complaint is not None:
        return Finding.bad(check, complaint, *measures)
    if mean.baseline is None:
        return _without_baseline(check, words, mean, p95, budget_s, measures)
    return Finding.ok(check, f"The mean {words} is {compared(mean, 's')}.", *measures)


def measure(signal: str, cell: Compared, unit: str, *scope: tuple[str, str]) -> Measure:
    """A comparison as the measure that the knowledge base reads."""
    return Measure(signal=signal, value=cell.now, baseline=cell.baseline, unit=unit, scope=scope)


def pod_measures(
    signal: str, per_pod: dict[tuple[str, ...], Compared], normal: float | None, unit: str
) -> list[Measure]:
    """How far the pods are apart, and the worst pod by name when it stands out."""
    apart = spread([cell.now for key, cell in per_pod.items() if key != ("",) and cell.now is not None])
    if apart is None:
        return []
    before = spread([cell.baseline for cell in per_pod.values() if cell.baseline is not None])
    measures = [Measure(signal=f"{signal}_spread", value=apart, baseline=before, unit="x")]
    top = worst(per_pod, normal)
    if top is not None and apart >= 1.25:
        (pod,), cell = top
        measures.append(measure(signal, cell, unit, ("pod", pod)))
    return measures


async def _groups_apart(look: Look, signal: str, histogram: str) -> list[Measure]:
    """Nodes, racks or revisions that are slow while others are not, and revisions that are new."""
    found = []
    for label in ("node", "rack", "revision"):
        cells = {key[0]: cell for key, cell in (await look.means(histogram, "serving", by=(label,))).items() if key[0]}
        fast = [cell.now for cell in cells.values() if cell.now is not None]
        for value, cell in sorted(cells.items()):
            is_new = label == "revision" and cell.now is not None and cell.baseline is None
            is_apart = cell.now is not None and cell.now >= 1.25 * min(fast)
            if is_new or is_apart:
                found.append(measure(signal, cell, "s", (label, value)))
    return found


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
