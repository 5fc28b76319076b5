"""
Does the engine still find the start of prompts in its prefix cache?

Compares the share of prompt tokens found in the cache with the baseline: bad when it lost more than 0.1 and a quarter
of its baseline. A lost cache makes every prompt be computed in full, so prefill and the time to first token grow while
prompts are no longer than before. The usual reason is a prompt template whose beginning now varies.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", latency.PREFIX_QUERIES)
    cells, tokens = await asyncio.gather(latency.hit_ratio(look), look.rate("vllm:prompt_tokens_total", "serving"))
    ratio = cells.get((), NOTHING)
    if ratio.now is None:
        raise CannotTellError("no prompt asked the prefix cache in the recent window")
    measures = (measure("prefix_hit_ratio", ratio, "ratio"), measure("prompt_tokens_per_s", tokens, "tokens/s"))
    if ratio.baseline is None:
        return Finding.unknown("prefix_cache", f"The prefix cache hit ratio is {compared(ratio, 'ratio')}.", *measures)
    text = f"The prefix cache hit ratio is {compared(ratio, 'ratio')}."
    has_fallen = ratio.now < ratio.baseline - 0.1 and ratio.now < 0.75 * ratio.baseline
    return (Finding.bad if has_fallen else Finding.ok)("prefix_cache", text, *measures)
