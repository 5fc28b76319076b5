"""
Is there enough KV cache for the running requests?

Reads the fullest engine's KV cache, and preemptions per second. Bad when an engine is above 95 % full or preempts more
than 0.1 requests per second. A full cache with fewer blocks than before (`engine_config`) is a configuration change,
one with the old blocks is load or longer requests.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure, pod_measures
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import Look, highest_then, worst
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry
from diagnostics.wording import compared

USAGE = "vllm:kv_cache_usage_perc"
PREEMPTIONS = "vllm:num_preemptions_total"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    name, usage, preemptions = await asyncio.gather(
        look.exported("serving", USAGE),
        look.levels(USAGE, "serving", by=("pod",), aggregation=Aggregation.MAX),
        look.rate(PREEMPTIONS, "serving"),
    )
    normal = highest_then(usage)
    top = worst(usage, normal)
    measures = [measure("preemptions_per_s", preemptions, "1/s")]
    if name is None:
        return Finding.unknown("kv_cache", await look.why_missing(USAGE), *measures)
    if top is None:
        return Finding.unknown("kv_cache", "No engine reports its KV cache now.", *measures)
    (pod,), cell = top
    measures += [measure("kv_usage", cell, "ratio"), *pod_measures("kv_usage", usage, normal, "ratio")]
    text = f"The fullest KV cache ({pod or 'unnamed'}) is {compared(cell, 'ratio')}"
    text += f", with {compared(preemptions, 'preemptions/s')}."
    is_full = (cell.now or 0.0) > 0.95
    is_preempting = (preemptions.now or 0.0) > 0.1
    return (Finding.bad if is_full or is_preempting else Finding.ok)("kv_cache", text, *measures)
