"""
Does the first token come as quickly as usual?

Compares the mean time to first token with the baseline, and the 95th percentile with the service's budget where one is
set. A mean 25 % above the baseline is bad, for the whole service or for one pod 40 % above it. The percentile alone
convicts only when the mean moved too: it is no finer than the histogram's buckets. When this is bad, look at
`latency_breakdown` next: it says which stage the time went to.
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
        check="time_to_first_token",
        signal="ttft",
        histogram=latency.TTFT,
        words="time to first token",
        budget_s=target.budgets.ttft_p95_s,
        limit=1.25,
    )
