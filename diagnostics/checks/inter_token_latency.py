"""
Do tokens follow each other as quickly as usual?

Compares the mean inter-token latency with the baseline: 15 % above it is bad for the whole service, 40 % for one pod
(one hot or throttled GPU hides in the fleet's mean). Says as well whether a new revision is the slow one. When this is
bad, look at `gpu_throttling` and at the batch size (`queue`) next.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from diagnostics import attribution, latency
from diagnostics.checks.verdicts import slow_or_not
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import Look
from diagnostics.places import places
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry

LIMIT = 1.15
APART = 1.25
"""How much slower a new revision must be: more than the larger batches of a busy hour explain."""


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    finding = await slow_or_not(
        look,
        check="inter_token_latency",
        signal="itl",
        histogram=latency.ITL,
        words="inter-token latency",
        budget_s=target.budgets.itl_p95_s,
        limit=LIMIT,
    )
    follows = await _follows_revision(look)
    return finding if follows is None else replace(finding, measures=(*finding.measures, follows))


async def _follows_revision(look: Look) -> Measure | None:
    """
    Whether a new revision is slower than the old one, or than everybody was before it replaced the old one.

    None where nobody tells revisions, so that an unlabelled fleet does not look like one without a rollout.
    """
    cells, known = await asyncio.gather(attribution.observed(look, latency.ITL), places(look))
    merged = attribution.along(cells, attribution.DIMENSIONS["revision"])
    if not merged:
        return None
    new = sum((cell for value, cell in merged.items() if value in known.new_revisions), attribution.Cell())
    old = sum((cell for value, cell in merged.items() if value not in known.new_revisions), attribution.Cell())
    usual = old.mean.baseline if old.mean.now is None else old.mean.now
    is_slow = new.mean.now is not None and usual is not None and new.mean.now >= APART * usual
    return Measure(signal="itl_follows_revision", value=float(is_slow), baseline=0.0)
