"""
Do the engines compute?

Compares each pod's engine steps per second with its running requests; where the engine counts no steps, its tokens. A
pod with running requests and no step is stalled: it holds its requests, its latency histograms fall silent (they only
count what finishes), and /health may still answer 200. That silence is bad, not good. `gpu_xid` and `gpu_missing` tell
a dead GPU firmware (XID 119, nvidia-smi hangs) from an engine that hangs by itself.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.places import places
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

STEPS = "vllm:iteration_tokens_total_count"
TOKENS = "vllm:generation_tokens_total"
RUNNING = "vllm:num_requests_running"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    heartbeat = await look.exported("serving", STEPS, TOKENS) or await look.require("serving", STEPS)
    steps, running, known = await asyncio.gather(
        look.rates(heartbeat, "serving", by=("pod",)), look.levels(RUNNING, "serving", by=("pod",)), places(look)
    )
    alive = {pod: cell for (pod,), cell in steps.items() if cell.now is not None}
    if not alive:
        raise CannotTellError("no engine reported progress in the recent window")
    stalled = sorted(pod for pod, cell in alive.items() if _is_stalled(cell, running.get((pod,), Compared())))
    pace = _average([cell for pod, cell in alive.items() if pod not in stalled])
    measures = [measure("steps_per_s", pace, "1/s")] if heartbeat == STEPS else []
    measures.append(Measure(signal="stalled_pods", value=float(len(stalled)), baseline=0.0, unit="pods"))
    measures += [
        Measure(signal="stalled_pods", value=1.0, baseline=0.0, unit="pods", scope=known.where(pod)) for pod in stalled
    ]
    if stalled:
        text = f"No engine step while requests run: {', '.join(stalled)}."
        return Finding.bad("engine_progress", text, *measures)
    what = "Engine steps" if heartbeat == STEPS else "Tokens"
    return Finding.ok("engine_progress", f"{what} per second and pod: {compared(pace)}.", *measures)


def _is_stalled(steps: Compared, running: Compared) -> bool:
    return (steps.now or 0.0) == 0.0 and (running.now or 0.0) >= 0.5


def _average(cells: list[Compared]) -> Compared:
    now = [cell.now for cell in cells if cell.now is not None]
    then = [cell.baseline for cell in cells if cell.baseline is not None]
    return Compared(now=sum(now) / len(now) if now else None, baseline=sum(then) / len(then) if then else None)
