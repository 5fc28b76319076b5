"""
Did a GPU report an XID since the baseline?

Reads the codes that appeared since the baseline (half an hour at least): from DCGM's count per code, its "last XID"
gauge (which keeps a code for ever, so only codes that are new count) and the kernel log's counter. Bad for codes that
need action; a code that NVIDIA says to ignore (63, a remapped row) is reported and ok. An application's code (13, 31,
43) on two nodes or more points at software, on one GPU under many workloads at the GPU.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Function, Query, Telemetry, Vector

STEP = timedelta(seconds=30)

Seen = dict[int, set[gpus.Key]]


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    counted, last, kernel = await asyncio.gather(_counted(look), _changed(look), _kernel(look))
    known = [source for source in (counted, last, kernel) if source is not None]
    if not known:
        raise CannotTellError(f"{gpus.LAST_XID[0]} is not exported; {remedy_for(gpus.LAST_XID[0])}")
    seen: Seen = defaultdict(set)
    for source in known:
        for code, where in source.items():
            seen[code] |= where
    measures = _measures(seen)
    if not seen:
        return Finding.ok("gpu_xid", "No GPU reported an XID since the baseline.", *measures)
    text = " ".join(_sentence(code, where) for code, where in sorted(seen.items()))
    is_bad = any(code not in gpus.HARMLESS_XIDS for code in seen)
    return (Finding.bad if is_bad else Finding.ok)("gpu_xid", text, *measures)


async def _counted(look: Look) -> Seen | None:
    """Codes that DCGM counts (a five-minute window of its own); None when it does not."""
    name = await look.exported("gpu", *gpus.XID_COUNT)
    if name is None:
        return None
    labels = (*gpus.GPU, "xid")
    query = Query(
        metric=name,
        where=look.where("gpu"),
        function=Function.MAX_OVER_TIME,
        window=look.since_baseline,
        by=labels,
        aggregation=Aggregation.MAX,
    )
    return _by_code(await look.telemetry.vector(query, look.frame.at))


async def _changed(look: Look) -> Seen | None:
    """Values that the sticky gauge took since the baseline and did not have then; None without the gauge."""
    name = await look.exported("gpu", *gpus.LAST_XID)
    if name is None:
        return None
    query = Query(metric=name, where=look.where("gpu"), by=gpus.GPU, aggregation=Aggregation.MAX)
    frame = look.frame
    matrix = await look.telemetry.matrix(query, frame.at - look.since_baseline, frame.at, STEP)
    seen: Seen = defaultdict(set)
    for key, points in matrix.items():
        before = points[0][1]
        for _, value in points[1:]:
            if value not in {before, 0.0} and 0 < value < 1000:
                seen[int(value)].add(key)
    return seen


async def _kernel(look: Look) -> Seen | None:
    """
    Codes from the kernel log, as a probe on the node counts them; None without the probe.

    The probe's counter is born with the first XID, at 1: its increase would be zero, so the counts are subtracted.
    """
    if await look.exported("gpu", *gpus.KERNEL_XID) is None:
        return None
    query = Query(metric=gpus.KERNEL_XID[0], where=look.where("gpu"), by=("node", "gpu", "UUID", "xid"))
    now, then = await asyncio.gather(
        look.telemetry.vector(query, look.frame.at), look.telemetry.vector(query, look.frame.baseline_end)
    )
    return _by_code({key: count - then.get(key, 0.0) for key, count in now.items()})


def _by_code(vector: Vector) -> Seen:
    seen: Seen = defaultdict(set)
    for (*where, code), value in vector.items():
        if value > 0 and code.isdigit() and code != "0":
            seen[int(code)].add(tuple(where))
    return seen


def _measures(seen: Seen) -> list[Measure]:
    """One count per meaning, zero where nothing was seen (the exporter would have told), and one per GPU."""
    measures = []
    for signal in dict.fromkeys(gpus.XID_SIGNALS.values()):
        where = {key for code, keys in seen.items() if gpus.XID_SIGNALS.get(code) == signal for key in keys}
        unit = "nodes" if signal == "xid_application" else "GPUs"
        count = len({node for node, *_ in where}) if unit == "nodes" else len(where)
        measures.append(Measure(signal=signal, value=float(count), baseline=0.0, unit=unit))
        measures += [
            Measure(signal=signal, value=1.0, baseline=0.0, unit=unit, scope=gpus.where(key)) for key in sorted(where)
        ]
    return measures


def _sentence(code: int, where: set[gpus.Key]) -> str:
    words = gpus.XID_WORDS.get(code)
    meaning = f" ({words})" if words else ""
    return f"XID {code}{meaning} on {', '.join(gpus.name(key) for key in sorted(where))}."
