"""
Does the API server in front of the engine have enough CPU?

Reads the time to first token that neither queue nor prefill explains (tokenisation and the HTTP server), and how often
the engine's containers hit their CPU limit. Bad when the unexplained time gained 0.15 s and passed 0.3 s, or the
containers are throttled in 30 % of periods while that time grew.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

PERIODS = "container_cpu_cfs_periods_total"
THROTTLED = "container_cpu_cfs_throttled_periods_total"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", f"{latency.TTFT}_count")
    ttft, queue, prefill = await asyncio.gather(
        look.mean(latency.TTFT, "serving"), look.mean(latency.QUEUE, "serving"), look.mean(latency.PREFILL, "serving")
    )
    left = latency.frontend(ttft, queue, prefill)
    if left.now is None:
        raise CannotTellError("fewer than 30 requests finished in the recent window")
    throttled = await _throttled(look)
    measures = [measure("frontend", left, "s")]
    text = f"Time before the engine: {compared(left, 's')}."
    if throttled is not None:
        measures.append(measure("cpu_throttled_ratio", throttled, "ratio"))
        text += f" CPU throttling: {compared(throttled, 'ratio')} of periods."
    has_grown = (left.gain or 0.0) >= 0.15
    is_throttled = throttled is not None and (throttled.now or 0.0) > 0.3
    is_bad = has_grown and (left.now > 0.3 or is_throttled)
    return (Finding.bad if is_bad else Finding.ok)("api_server_cpu", text, *measures)


async def _throttled(look: Look) -> Compared | None:
    """The share of CPU periods in which the containers were held back; None when nobody exports it."""
    if "kubernetes" not in look.target.selectors or await look.exported("kubernetes", PERIODS) is None:
        return None
    held, periods = await asyncio.gather(look.rate(THROTTLED, "kubernetes"), look.rate(PERIODS, "kubernetes"))
    return share(held, periods) if periods != NOTHING else None
