"""
Are prompts longer than usual?

Compares the mean prompt length in tokens with the baseline: 25 % longer is bad, since prefill time and KV cache grow
with it. Retrieval that returns more, a longer history or a new tenant are the usual reasons; much shorter prompts are
no complaint here, but say that retrieval returned nothing.
"""

from __future__ import annotations

from diagnostics import latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", f"{latency.PROMPT_TOKENS}_count")
    length = await look.mean(latency.PROMPT_TOKENS, "serving")
    if length.now is None:
        raise CannotTellError("fewer than 30 requests finished in the recent window")
    text = f"A prompt has {compared(length, 'tokens')}."
    found = measure("prompt_tokens", length, "tokens")
    if length.factor is None:
        return Finding.unknown("prompt_length", text, found)
    return (Finding.bad if length.factor >= 1.25 else Finding.ok)("prompt_length", text, found)
