"""
Do tokens follow each other as quickly as usual?

Compares the mean inter-token latency with the baseline: 15 % above it is bad for the whole service, 40 % for one pod
(one hot or throttled GPU hides in the fleet's mean). When this is bad, look at `gpu_throttling` and at the batch size
(`queue`) next.
"""

from __future__ import annotations

from diagnostics import latency
from diagnostics.checks.verdicts import slow_or_not
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    return await slow_or_not(
        look,
        check="inter_token_latency",
        signal="itl",
        histogram=latency.ITL,
        words="inter-token latency",
        budget_s=target.budgets.itl_p95_s,
        limit=1.15,
    )
