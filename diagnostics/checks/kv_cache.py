"""
Is there enough KV cache for the running requests?

Reads the fullest engine's KV cache, preemptions per second, and the number of cache blocks each engine was started
with. Bad when an engine is above 95 % full or preempts more than 0.1 requests per second, or when the blocks shrank by
more than 10 %: fewer blocks are a configuration change, a full cache with the old blocks is load or longer requests.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import Compared, Look, highest_then, worst
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Query, Telemetry
from diagnostics.wording import compared

CONFIG = "vllm:cache_config_info"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", "vllm:kv_cache_usage_perc")
    usage, preemptions, blocks_now, blocks_then = await asyncio.gather(
        look.levels("vllm:kv_cache_usage_perc", "serving", by=("pod",), aggregation=Aggregation.MAX),
        look.rate("vllm:num_preemptions_total", "serving"),
        _blocks(look, frame.at),
        _blocks(look, frame.baseline_end),
    )
    top = worst(usage, highest_then(usage))
    blocks = Compared(now=blocks_now, baseline=blocks_then)
    measures = [measure("preemptions_per_s", preemptions, "1/s"), measure("kv_blocks", blocks, "blocks")]
    text = "No engine reports its KV cache now."
    if top is not None:
        (pod,), cell = top
        measures += [measure("kv_usage", cell, "ratio"), measure("kv_usage", cell, "ratio", ("pod", pod))]
        text = f"The fullest KV cache is {compared(cell, 'ratio')}, with {compared(preemptions, 'preemptions/s')}."
    if blocks.factor is not None and blocks.factor < 0.9:
        return Finding.bad("kv_cache", f"{text} An engine has {compared(blocks, 'blocks')}.", *measures)
    is_full = top is not None and (top[1].now or 0.0) > 0.95
    is_preempting = (preemptions.now or 0.0) > 0.1
    if top is None:
        return Finding.unknown("kv_cache", text, *measures)
    return (Finding.bad if is_full or is_preempting else Finding.ok)("kv_cache", text, *measures)


async def _blocks(look: Look, at: datetime) -> float | None:
    """The smallest number of blocks that any engine was started with, from the info metric's label."""
    query = Query(metric=CONFIG, where=look.where("serving"), by=("num_gpu_blocks",), aggregation=Aggregation.COUNT)
    labels = [blocks for (blocks,) in await look.telemetry.vector(query, at) if blocks.isdigit()]
    return min((float(blocks) for blocks in labels), default=None)
