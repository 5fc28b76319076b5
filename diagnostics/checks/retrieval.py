"""
Does retrieval find what it should, in time?

Reads the time spent in retrieval, the shares of retrievals that come back empty or fail, and the similarity of the
best passage. Bad when the time gained 0.5 s, empty results 0.1, failures 0.05, or the similarity lost 0.05. Slow and
empty is a database that times out, quick and failing a mismatch of dimensions, quick and empty a wrong index.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, Compared, Look, share, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

CALLS = "llm_app_retrieval_total"
SCORE = "llm_app_retrieval_score"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", CALLS)
    outcomes, sources, score, time = await asyncio.gather(
        look.rates(CALLS, "application", by=("outcome",)),
        look.rates(CALLS, "application", by=("data_source",), where={"outcome": "!ok"}),
        look.mean(SCORE, "application"),
        look.mean("llm_app_stage_seconds", "application", {"stage": "retrieval"}),
    )
    whole = total(outcomes)
    empty = share(outcomes.get(("empty",), NOTHING), whole)
    failed = share(total({key: outcomes[key] for key in outcomes if key[0] in {"error", "timeout"}}), whole)
    measures = [measure("retrieval_empty_ratio", empty, "ratio"), measure("retrieval_error_ratio", failed, "ratio")]
    measures += [measure("retrieval", time, "s")] if time != NOTHING else []
    measures += [measure("retrieval_score", score, "")] if score != NOTHING else []
    complaints = _complaints(empty, failed, score, time)
    if not complaints:
        return Finding.ok("retrieval", f"Empty retrievals: {compared(empty, 'ratio')}.", *measures)
    source = max(sources, key=lambda key: sources[key].gain or sources[key].now or 0.0, default=("",))[0]
    measures.append(measure("retrieval_empty_ratio", empty, "ratio", ("data_source", source)))
    return Finding.bad("retrieval", " ".join(complaints), *measures)


def _complaints(empty: Compared, failed: Compared, score: Compared, time: Compared) -> list[str]:
    said = []
    if (empty.gain or 0.0) >= 0.1:
        said.append(f"Empty retrievals: {compared(empty, 'ratio')}.")
    if (failed.gain or 0.0) >= 0.05:
        said.append(f"Failing retrievals: {compared(failed, 'ratio')}.")
    if (score.gain or 0.0) <= -0.05:
        said.append(f"Similarity of the best passage: {compared(score)}.")
    if (time.gain or 0.0) >= 0.5:
        said.append(f"Time in retrieval: {compared(time, 's')}.")
    return said
