"""
Does the API server in front of the engine have enough CPU?

Reads the time to first token that neither queue nor prefill explains (tokenisation and the HTTP server), and how often
the engine's containers hit their CPU limit. Bad when the unexplained time gained 0.15 s and passed 0.3 s, the
containers are throttled in 30 % of periods while that time grew, or it grew on some pods and not on the others. Of an
engine that times no first token only the throttling is known: bad when it grew past 30 %, and else unknown.
"""

from __future__ import annotations

import asyncio

from diagnostics import attribution, latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, highest_then, share, worst
from diagnostics.places import places
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

PERIODS = "container_cpu_cfs_periods_total"
THROTTLED = "container_cpu_cfs_throttled_periods_total"
LEAST_GAIN = 0.15
"""Seconds of unexplained time, or share of throttled periods, that count as grown."""

_THROTTLED = 0.3


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    if await look.exported("serving", f"{latency.TTFT}_count") is None:
        return await _cpu_alone(look, await look.why_missing(f"{latency.TTFT}_count"))
    ttft, queue, prefill = await asyncio.gather(
        look.mean(latency.TTFT, "serving"), look.mean(latency.QUEUE, "serving"), look.mean(latency.PREFILL, "serving")
    )
    left = latency.frontend(ttft, queue, prefill)
    if left.now is None:
        raise CannotTellError("fewer than 30 requests finished in the recent window")
    throttled, apart = await asyncio.gather(_throttled(look), _apart(look))
    measures = [measure("frontend", left, "s"), *apart]
    text = f"Time before the engine: {compared(left, 's')}."
    top = worst(throttled or {}, highest_then(throttled or {}))
    if top is not None:
        measures.append(measure("cpu_throttled_ratio", top[1], "ratio"))
        text += f" CPU throttling: {compared(top[1], 'ratio')} of periods on the worst pod."
    has_grown = (left.gain or 0.0) >= LEAST_GAIN or bool(apart)
    is_throttled = top is not None and (top[1].now or 0.0) > _THROTTLED
    is_bad = has_grown and (left.now > 0.3 or is_throttled or bool(apart))
    return (Finding.bad if is_bad else Finding.ok)("api_server_cpu", text, *measures)


async def _cpu_alone(look: Look, why: str) -> Finding:
    """What the containers' CPU says by itself; raises CannotTellError with `why` where nobody exports that either."""
    throttled = await _throttled(look)
    top = worst(throttled or {}, highest_then(throttled or {}))
    if top is None:
        raise CannotTellError(why)
    found = measure("cpu_throttled_ratio", top[1], "ratio")
    text = f"CPU throttling: {compared(top[1], 'ratio')} of periods on the worst pod."
    if (top[1].now or 0.0) > _THROTTLED and (top[1].gain or 0.0) >= LEAST_GAIN:
        return Finding.bad("api_server_cpu", text, found)
    return Finding.unknown("api_server_cpu", f"{why}. {text}", found)


async def _throttled(look: Look) -> dict[Key, Compared] | None:
    """The share of CPU periods in which each pod's containers were held back; None when nobody exports it."""
    if "kubernetes" not in look.target.selectors or await look.exported("kubernetes", PERIODS) is None:
        return None
    held, periods, known = await asyncio.gather(
        look.rates(THROTTLED, "kubernetes", by=("pod",)),
        look.rates(PERIODS, "kubernetes", by=("pod",)),
        places(look),
    )
    ours = {key: cell for key, cell in periods.items() if key[0] in known.pods} or periods
    return {key: share(held.get(key, NOTHING), cell) for key, cell in ours.items() if cell.now}


async def _apart(look: Look) -> list[Measure]:
    """The pods whose unexplained time grew while other pods' did not; none when all grew, or only one pod is there."""
    histograms = (latency.TTFT, latency.QUEUE, latency.PREFILL)
    cells = await asyncio.gather(*(attribution.observed(look, histogram) for histogram in histograms))
    ttft, queue, prefill = (attribution.along(cell, attribution.DIMENSIONS["pod"]) for cell in cells)
    left = {
        pod: latency.frontend(cell.mean, queue[pod].mean, prefill[pod].mean)
        for pod, cell in ttft.items()
        if pod in queue and pod in prefill
    }
    grown = {pod: cell for pod, cell in left.items() if (cell.gain or 0.0) >= LEAST_GAIN}
    known = [pod for pod, cell in left.items() if cell.gain is not None]
    if len(grown) == len(known):
        return []
    return [measure("frontend", cell, "s", ("pod", pod)) for pod, cell in sorted(grown.items())]
