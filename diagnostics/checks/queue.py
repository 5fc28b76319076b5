"""
Do requests wait before the engine starts on them?

Reads the number of waiting requests (and what for, where the engine tells) and the mean queue time. Bad when more than
8 requests wait on some pod, or the mean queue time gained 0.2 s and doubled. Waiting says that load is above capacity:
look at `traffic` (more load), `kv_cache` and `replicas` (less capacity) next.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure, pod_measures
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, Compared, Look, highest_then, total, worst
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Query, Telemetry
from diagnostics.wording import compared, number

BY_REASON = "vllm:num_requests_waiting_by_reason"
LORA = "vllm:lora_requests_info"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", "vllm:num_requests_waiting")
    waiting, running, queue_time, reasons, adapters = await asyncio.gather(
        look.levels("vllm:num_requests_waiting", "serving", by=("pod",)),
        look.levels("vllm:num_requests_running", "serving", by=("pod",)),
        look.mean(latency.QUEUE, "serving"),
        look.peak(BY_REASON, "serving", by=("reason",)),
        _waiting_adapters(look),
    )
    top = worst(waiting, highest_then(waiting))
    measures = [
        measure("waiting", top[1] if top else NOTHING, "requests"),
        measure("running", total(running), "requests"),
        measure("queue", queue_time, "s"),
        *pod_measures("running", running, None, "requests"),
    ]
    text = f"{_waiting(top)}; the mean queue time is {compared(queue_time, 's')}."
    text += _why({reason: count for (reason,), count in reasons.items()}, adapters)
    is_bad = (top is not None and (top[1].now or 0.0) > 8) or _is_long(queue_time)
    return (Finding.bad if is_bad else Finding.ok)("queue", text, *measures)


async def _waiting_adapters(look: Look) -> list[str]:
    """LoRA adapters that requests wait for: the newest report of each pod, which has its time as its value."""
    query = Query(
        metric=LORA,
        where=look.where("serving"),
        by=("pod", "waiting_lora_adapters"),
        aggregation=Aggregation.MAX,
    )
    newest: dict[str, tuple[float, str]] = {}
    for (pod, names), reported in (await look.telemetry.vector(query, look.frame.at)).items():
        newest[pod] = max(newest.get(pod, (0.0, "")), (reported, names))
    return sorted({name for _, names in newest.values() for name in names.split(",") if name})


def _why(reasons: dict[str, float], adapters: list[str]) -> str:
    """What the engine itself says about the waiting: no room, or an adapter that is not loaded."""
    told = [f"{number(round(count, 1))} for {reason}" for reason, count in sorted(reasons.items()) if count >= 0.5]
    text = f" Waiting: {', '.join(told)}." if told else ""
    return f"{text} LoRA adapters waited for: {', '.join(adapters[:4])}." if adapters else text


def _waiting(top: tuple[tuple[str, ...], Compared] | None) -> str:
    if top is None:
        return "Nothing reports waiting requests now"
    return f"At most {number(round(top[1].now or 0.0, 1))} requests wait on one pod ({top[0][0] or 'unnamed'})"


def _is_long(queue_time: Compared) -> bool:
    gain, factor = queue_time.gain, queue_time.factor
    return gain is not None and gain >= 0.2 and (factor is None or factor >= 2)
