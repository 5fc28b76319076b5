"""
Do requests wait before the engine starts on them?

Reads the number of waiting requests and the mean queue time. Bad when more than 8 requests wait on some pod, or the
mean queue time gained 0.2 s and doubled. Waiting says that load is above capacity: look at `traffic` (more load),
`kv_cache` and `replicas` (less capacity) next.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure, pod_measures
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, Compared, Look, highest_then, total, worst
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared, number


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", "vllm:num_requests_waiting")
    waiting, running, queue_time = await asyncio.gather(
        look.levels("vllm:num_requests_waiting", "serving", by=("pod",)),
        look.levels("vllm:num_requests_running", "serving", by=("pod",)),
        look.mean(latency.QUEUE, "serving"),
    )
    top = worst(waiting, highest_then(waiting))
    measures = [
        measure("waiting", top[1] if top else NOTHING, "requests"),
        measure("running", total(running), "requests"),
        measure("queue", queue_time, "s"),
        *pod_measures("running", running, None, "requests"),
    ]
    text = f"{_waiting(top)}; the mean queue time is {compared(queue_time, 's')}."
    is_bad = (top is not None and (top[1].now or 0.0) > 8) or _is_long(queue_time)
    return (Finding.bad if is_bad else Finding.ok)("queue", text, *measures)


def _waiting(top: tuple[tuple[str, ...], Compared] | None) -> str:
    if top is None:
        return "Nothing reports waiting requests now"
    return f"At most {number(round(top[1].now or 0.0, 1))} requests wait on one pod ({top[0][0] or 'unnamed'})"


def _is_long(queue_time: Compared) -> bool:
    gain, factor = queue_time.gain, queue_time.factor
    return gain is not None and gain >= 0.2 and (factor is None or factor >= 2)
