"""
Are all GPUs still there, and does their driver answer?

Compares the GPUs that report to DCGM now with those of the baseline, what Kubernetes may allocate on a node with what
the node has, and whether nvidia-smi answers there. Bad when a GPU vanished or cannot be allocated, or the driver hangs.
When all GPUs of the service vanish at once, their exporter is gone and nothing is known about the GPUs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Query, Telemetry

ALLOCATABLE = "kube_node_status_allocatable"
CAPACITY = "kube_node_status_capacity"
RESOURCE = {"resource": "~nvidia_com_gpu|nvidia_com_mig.*"}


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    vanished, missing, hung = await asyncio.gather(_vanished(look), _unallocatable(look), _hung(look))
    if vanished is None and missing is None and hung is None:
        raise CannotTellError(f"neither {gpus.CLOCK[0]} nor {ALLOCATABLE} is exported; {remedy_for('DCGM_')}")
    gone = list(await gpus.ours(look, dict.fromkeys(vanished, True))) if vanished else []
    lost = {node: value for node, value in (missing or {}).items() if value}
    owners = await gpus.owners(look) if gone else gpus.NOBODY
    measures = _measures(gone, lost, owners) if vanished is not None or missing is not None else []
    if hung is not None:
        measures += _on_nodes("nvidia_smi_fails", "nodes", dict.fromkeys(hung, 1.0))
    said = [f"{gpus.name(key)} no longer reports." for key in gone]
    said += [f"{node} may allocate {value:.0f} GPUs fewer than it has." for node, value in sorted(lost.items())]
    said += [f"nvidia-smi does not answer on {node}." for node in hung or ()]
    if said:
        return Finding.bad("gpu_missing", " ".join(said[:4]), *measures)
    if vanished is None and missing is None:
        reason = f"nvidia-smi answers, but neither {gpus.CLOCK[0]} nor {ALLOCATABLE} is there; {remedy_for('DCGM_')}"
        return Finding.unknown("gpu_missing", reason, *measures)
    return Finding.ok("gpu_missing", "All GPUs of the baseline are there.", *measures)


def _measures(gone: list[gpus.Key], lost: dict[str, float], owners: gpus.Owners) -> list[Measure]:
    count = max(float(len(gone)), sum(lost.values()))
    silent = {key[0] for key in gone}
    return [
        Measure(signal="gpus_missing", value=count, baseline=0.0, unit="GPUs"),
        *(
            Measure(signal="gpus_missing", value=1.0, baseline=0.0, unit="GPUs", scope=owners.where(key))
            for key in gone
        ),
        *_on_nodes("gpus_missing", "GPUs", {node: value for node, value in lost.items() if node not in silent})[1:],
    ]


def _on_nodes(signal: str, unit: str, nodes: dict[str, float]) -> list[Measure]:
    """The whole count first, then each node's."""
    return [
        Measure(signal=signal, value=sum(nodes.values()), baseline=0.0, unit=unit),
        *(
            Measure(signal=signal, value=value, baseline=0.0, unit=unit, scope=(("node", node),))
            for node, value in sorted(nodes.items())
        ),
    ]


async def _vanished(look: Look) -> list[gpus.Key] | None:
    """GPUs that reported in the baseline and are silent now; None without DCGM or when its exporter is gone."""
    if "gpu" not in look.target.selectors:
        return None
    name = await look.exported("gpu", *gpus.CLOCK, *gpus.TEMPERATURE, *gpus.LAST_XID)
    if name is None:
        return None
    query = Query(metric=name, where=look.where("gpu"), by=gpus.GPU, aggregation=Aggregation.COUNT)
    spellings = gpus.CLOCK if name in gpus.CLOCK else (name,)  # where DCGM is upgraded node by node, a GPU has either
    now = (look.telemetry.vector(replace(query, metric=spelling), look.frame.at) for spelling in spellings)
    cells, answers = await asyncio.gather(look.levels(name, "gpu", by=gpus.GPU), asyncio.gather(*now))
    still = {key for answer in answers for key in answer}
    before = {key for key, cell in cells.items() if cell.baseline is not None}
    if not still or not before:
        return None
    known = {uuid for *_, uuid in still if uuid}  # an exporter's new pod may tell another Hostname for the same GPU
    gone = sorted(key for key in before - still if key[-1] not in known)
    unused = await _still_report(look, spellings, {uuid for *_, uuid in gone if uuid}) if gone else set()
    return [key for key in gone if key[-1] not in unused]


async def _still_report(look: Look, spellings: Sequence[str], uuids: set[str]) -> set[str]:
    """Those of the GPUs that answer DCGM, whoever has them: on a drained node none is the service's any more."""
    where = {"UUID": "~" + "|".join(sorted(map(re.escape, uuids)))}
    queries = (Query(metric=name, where=where, by=("UUID",), aggregation=Aggregation.COUNT) for name in spellings)
    answers = await asyncio.gather(*(look.telemetry.vector(query, look.frame.at) for query in queries))
    return {uuid for answer in answers for (uuid,) in answer}


async def _unallocatable(look: Look) -> dict[str, float] | None:
    """GPUs per node that exist but may not be allocated, more than in the baseline; None without kube metrics."""
    if "kubernetes" not in look.target.selectors:
        return None
    where = await gpus.node_where(look, "kubernetes", CAPACITY)
    if where is None:
        return None
    allocatable, capacity = await asyncio.gather(
        look.levels(ALLOCATABLE, "kubernetes", by=("node",), where={**where, **RESOURCE}, alone=True),
        look.levels(CAPACITY, "kubernetes", by=("node",), where={**where, **RESOURCE}, alone=True),
    )
    if not capacity:
        return None
    short = {}
    for (node,), has in capacity.items():
        may = allocatable.get((node,), Compared())
        now = (has.now or 0.0) - (may.now if may.now is not None else has.now or 0.0)
        normally = (has.baseline or 0.0) - (may.baseline if may.baseline is not None else has.baseline or 0.0)
        short[node] = max(float(round(now - normally)), 0.0)
    return short


async def _hung(look: Look) -> list[str] | None:
    """Nodes on which nvidia-smi answered in the baseline and does not now; None without the probe."""
    if "gpu" not in look.target.selectors:
        return None
    name = gpus.SMI_OK[0]
    where = await gpus.node_where(look, "gpu", name)
    if where is None:
        return None
    query = Query(metric=name, where=where, by=("node",), aggregation=Aggregation.MIN)
    now, then = await asyncio.gather(
        look.telemetry.vector(query, look.frame.at), look.telemetry.vector(query, look.frame.baseline_end)
    )
    return sorted(node for (node,), value in now.items() if value == 0 and then.get((node,), 1.0) != 0)
