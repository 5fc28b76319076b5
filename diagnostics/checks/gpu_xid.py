"""
Did a GPU report an XID since the baseline?

Reads the codes that appeared since the baseline (half an hour at least): from DCGM's count per code, its "last XID"
gauge (which keeps a code for ever, so only a change counts) and the kernel log's counter. Bad for codes that need
somebody; a code that NVIDIA says to ignore (63, a remapped row) is reported and ok. A code that workloads bring on (13,
31, 43) is the software's when two nodes show it or only one revision does, and the GPU's when one GPU shows it under
two workloads.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from diagnostics import gpus, xids
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Function, Query, Telemetry, Vector

STEP = timedelta(seconds=30)
MOST_CHANGED = 50
"""GPUs whose codes are read one by one; when more change at once, the first fifty tell what happened."""

Seen = Mapping[int, set[gpus.Key]]


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    counted, last, kernel = await asyncio.gather(_counted(look), _changed(look), _kernel(look))
    known = [source for source in (counted, last, kernel) if source is not None]
    if not known:
        raise CannotTellError(f"{gpus.LAST_XID[0]} is not exported; {remedy_for(gpus.LAST_XID[0])}")
    seen = _together(known)
    owners = await gpus.owners(look) if seen else gpus.NOBODY
    kept = {code: {key for key in where if not owners.is_strangers(key)} for code, where in seen.items()}
    seen = {code: where for code, where in kept.items() if where}
    measures = _measures(seen, owners, is_blind=kernel is None and await _lost_sight(look))
    if not seen:
        return Finding.ok("gpu_xid", "No GPU reported an XID since the baseline.", *measures)
    text = " ".join(_sentence(code, where, owners) for code, where in sorted(seen.items()))
    is_bad = any(xids.needs_action(code) for code in seen)
    return (Finding.bad if is_bad else Finding.ok)("gpu_xid", text, *measures)


async def _counted(look: Look) -> Seen | None:
    """Codes that DCGM counts (a five-minute window of its own); None when it does not."""
    name = await look.exported("gpu", *gpus.XID_COUNT)
    if name is None:
        return None
    query = Query(
        metric=name,
        where=look.where("gpu"),
        function=Function.MAX_OVER_TIME,
        window=look.since_baseline,
        by=(*gpus.GPU, "xid"),
        aggregation=Aggregation.MAX,
    )
    return _by_code(await look.telemetry.vector(query, look.frame.at))


async def _changed(look: Look) -> Seen | None:
    """Values that the sticky gauge took since the baseline and did not have then; None without the gauge."""
    name = await look.exported("gpu", *gpus.LAST_XID)
    if name is None:
        return None
    query = Query(metric=name, where=look.where("gpu"), by=gpus.GPU, aggregation=Aggregation.MAX)
    often = replace(query, function=Function.CHANGES, window=look.since_baseline)
    changes = await look.telemetry.vector(often, look.frame.at)
    changed = sorted({uuid for (_, _, uuid), count in changes.items() if count > 0})[:MOST_CHANGED]
    if not changed:
        return {}
    only = {**query.where, "UUID": "~" + "|".join(re.escape(uuid) for uuid in changed)}
    start = look.frame.at - look.since_baseline
    matrix = await look.telemetry.matrix(replace(query, where=only), start, look.frame.at, STEP)
    seen: dict[int, set[gpus.Key]] = defaultdict(set)
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
    where = await gpus.node_where(look, "gpu", gpus.KERNEL_XID[0])
    if where is None:
        return None
    query = Query(metric=gpus.KERNEL_XID[0], where=where, by=("node", "gpu", "UUID", "xid"))
    now, then = await asyncio.gather(
        look.telemetry.vector(query, look.frame.at), look.telemetry.vector(query, look.frame.baseline_end)
    )
    return _by_code({key: _more(count, then.get(key, 0.0)) for key, count in now.items()})


def _more(now: float, then: float) -> float:
    """By how much a count grew; one that fell began anew, as the kernel's log does when the node reboots."""
    return now - then if now >= then else now


async def _lost_sight(look: Look) -> bool:
    """Whether a GPU stopped reporting since the baseline began: DCGM cannot tell with which code it went."""
    name = await look.exported("gpu", *gpus.LAST_XID, *gpus.CLOCK)
    if name is None:
        return False
    query = Query(metric=name, where=look.where("gpu"), by=gpus.GPU, aggregation=Aggregation.COUNT)
    long = replace(query, function=Function.MAX_OVER_TIME, window=look.since_start)
    still, ever = await asyncio.gather(
        look.telemetry.vector(query, look.frame.at), look.telemetry.vector(long, look.frame.at)
    )
    return bool(ever.keys() - still.keys())


def _by_code(vector: Vector) -> Seen:
    seen: dict[int, set[gpus.Key]] = defaultdict(set)
    for (*where, code), value in vector.items():
        if value > 0 and code.isdigit() and code != "0":
            seen[int(code)].add(tuple(where))
    return seen


def _together(sources: list[Seen]) -> Seen:
    """All sources' codes; a GPU that one source knows without its UUID is the one that another names in full."""
    seen: dict[int, set[gpus.Key]] = defaultdict(set)
    for source in sources:
        for code, where in source.items():
            seen[code] |= where
    for where in seen.values():
        named = {(node, index) for node, index, uuid in where if uuid} | {(node, "") for node, _, uuid in where if uuid}
        where -= {key for key in where if not key[2] and key[:2] in named}
    return {code: where for code, where in seen.items() if where}


def _measures(seen: Seen, owners: gpus.Owners, *, is_blind: bool) -> list[Measure]:
    """
    One count per meaning, and one per GPU.

    Zero where nothing was seen, since the exporter would have told; nothing at all where it is blind to a GPU.
    """
    measures = []
    for signal in (*dict.fromkeys(xids.SIGNALS.values()), "xid_other"):
        where = {key for code, keys in seen.items() if _signal(code, keys, owners) == signal for key in keys}
        unit = "nodes" if signal == "xid_application" else "GPUs"
        count = len({node for node, *_ in where}) if unit == "nodes" else len(where)
        if count or not is_blind:
            measures.append(Measure(signal=signal, value=float(count), baseline=0.0, unit=unit))
        measures += [
            Measure(signal=signal, value=1.0, baseline=0.0, unit=unit, scope=_scope(key, owners))
            for key in sorted(where)
        ]
    return measures


def _signal(code: int, where: set[gpus.Key], owners: gpus.Owners) -> str | None:
    """What a code speaks for; a workload's code that stays on one GPU whatever runs there is that GPU's."""
    if code in xids.BLAMES_THE_WORKLOAD and _is_the_gpus(where, owners):
        return "xid_other"
    return xids.signal_of(code)


def _is_the_gpus(where: set[gpus.Key], owners: gpus.Owners) -> bool:
    return len(where) == 1 and all(len(owners.revisions_of(key)) >= 2 for key in where)


def _scope(key: gpus.Key, owners: gpus.Owners) -> gpus.Scope:
    """The GPU's place, with the revision that runs there: the new one where the GPU had both."""
    pods = owners.pods_of(key)
    revisions = owners.places.new_among(pods) or owners.revisions_of(key)
    return (*owners.where(key), *(("revision", revision) for revision in sorted(revisions)))


def _sentence(code: int, where: set[gpus.Key], owners: gpus.Owners) -> str:
    said = f"{xids.in_words(code)} on {', '.join(gpus.name(key) for key in sorted(where)[:4])}"
    said += f" and {len(where) - 4} more" if len(where) > 4 else ""
    if code in xids.BLAMES_THE_WORKLOAD:
        return f"{said}: {_whose_fault(where, owners)}."
    action = xids.XIDS[code].action if code in xids.XIDS else "look it up in NVIDIA's catalogue"
    again = ", and run the field diagnosis when the same GPU shows it twice" if code in xids.REPLACE_ON_REPEAT else ""
    return f"{said}; NVIDIA says: {action}{again}."


def _whose_fault(where: set[gpus.Key], owners: gpus.Owners) -> str:
    nodes = {node for node, *_ in where}
    if len(nodes) >= 2:
        return f"the software, since {len(nodes)} nodes show it"
    if _is_the_gpus(where, owners):
        return "the GPU, since several revisions met it there (run dcgmi diag -r 3)"
    return "probably the workload"
