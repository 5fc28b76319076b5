"""
Do answers run longer than usual, or into their limit?

Compares the mean number of generated tokens with the baseline (40 % longer is bad), and the share of answers cut off
by the length limit (bad when it gained 0.15, or passed 0.2 having grown). Longer answers and more cut-offs together
mean runaway generation; shorter answers with more cut-offs mean that the limit was lowered, and so does a lower limit
in the requests, where the engine tells it.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

FINISHED = "vllm:request_success_total"
ASKED = "vllm:request_params_max_tokens"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    name, length, asked, reasons = await asyncio.gather(
        look.exported("serving", f"{latency.OUTPUT_TOKENS}_count"),
        look.mean(latency.OUTPUT_TOKENS, "serving"),
        look.mean(ASKED, "serving"),
        look.rates(FINISHED, "serving", by=("finished_reason",)),
    )
    if name is not None and length.now is None:
        raise CannotTellError("fewer than 30 requests finished in the recent window")
    measures = [measure("output_tokens", length, "tokens")] if name else []
    text = f"An answer has {compared(length, 'tokens')}." if name else ""
    if asked.now is not None:
        measures.append(measure("max_tokens", asked, "tokens"))
        text += f" A request asks for at most {compared(asked, 'tokens')}."
    cut_off = NOTHING
    if set(reasons) - {("",)}:  # an engine that tells no reasons cuts off an unknown share, not none
        whole = total(reasons)
        cut_off = share(reasons.get(("length",), NOTHING), whole)
        aborted = share(reasons.get(("abort",), NOTHING), whole)
        measures += [measure("length_finish_ratio", cut_off, "ratio"), measure("abort_ratio", aborted, "ratio")]
        text += f" Cut off by the length limit: {compared(cut_off, 'ratio')}."
    if _is_cut_off(cut_off) or (length.factor or 0.0) >= 1.4:
        return Finding.bad("output_length", text.strip(), *measures)
    if name is None:
        return Finding.unknown("output_length", await look.why_missing(f"{latency.OUTPUT_TOKENS}_count"), *measures)
    return (Finding.unknown if length.factor is None else Finding.ok)("output_length", text, *measures)


def _is_cut_off(ratio: Compared) -> bool:
    if ratio.now is None or ratio.gain is None:
        return False
    return ratio.gain >= 0.15 or (ratio.now > 0.2 and ratio.gain >= 0.06)
