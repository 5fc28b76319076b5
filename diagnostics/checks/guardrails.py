"""
Do guardrails let good requests pass, quickly?

Reads the time spent in guardrails and the share of decisions that block. Bad when the time gained 0.3 s, or blocks
tripled or gained five percentage points. Slow is the guardrail service; more blocks at the old speed are either an
attack or a policy that blocks what it should not.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

DECISIONS = "llm_app_guardrail_total"
STAGE = "llm_app_stage_seconds"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    decisions, before, after = await asyncio.gather(
        look.rates(DECISIONS, "application", by=("decision",)),
        look.mean(STAGE, "application", {"stage": "guardrail_in"}),
        look.mean(STAGE, "application", {"stage": "guardrail_out"}),
    )
    if not decisions and before == NOTHING and after == NOTHING:
        raise CannotTellError(f"neither {DECISIONS} nor {STAGE} with a guardrail stage is exported by the application")
    time = Compared(now=_sum(before.now, after.now), baseline=_sum(before.baseline, after.baseline))
    measures = [] if time == NOTHING else [measure("guardrail", time, "s")]
    blocked = NOTHING
    if decisions:
        blocked = share(decisions.get(("block",), NOTHING), total(decisions))
        measures.append(measure("guardrail_block_ratio", blocked, "ratio"))
    complaints = []
    if (time.gain or 0.0) >= 0.3:
        complaints.append(f"Time in guardrails: {compared(time, 's')}.")
    if (blocked.gain or 0.0) >= 0.05 or ((blocked.factor or 0.0) >= 3 and (blocked.gain or 0.0) >= 0.01):
        complaints.append(f"Blocked: {compared(blocked, 'ratio')}.")
    if complaints:
        return Finding.bad("guardrails", " ".join(complaints), *measures)
    return Finding.ok("guardrails", "Guardrails are as quick and as strict as usual.", *measures)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)
