"""
Are all GPUs still there?

Compares the GPUs that report to DCGM now with those of the baseline, and what Kubernetes may allocate on a node with
what the node has. Bad when a GPU vanished or cannot be allocated. When all GPUs of the service vanish at once, their
exporter is gone and nothing is known about the GPUs.
"""

from __future__ import annotations

import asyncio

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Query, Telemetry

ALLOCATABLE = "kube_node_status_allocatable"
CAPACITY = "kube_node_status_capacity"
RESOURCE = {"resource": "~nvidia_com_gpu|nvidia_com_mig.*"}


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    vanished, missing = await asyncio.gather(_vanished(look), _unallocatable(look))
    if vanished is None and missing is None:
        raise CannotTellError(f"neither {gpus.CLOCK[0]} nor {ALLOCATABLE} is exported; {remedy_for('DCGM_')}")
    gone = vanished or []
    lost = missing or {}
    count = max(float(len(gone)), sum(lost.values()))
    measures = [Measure(signal="gpus_missing", value=count, baseline=0.0, unit="GPUs")]
    measures += [
        Measure(signal="gpus_missing", value=1.0, baseline=0.0, unit="GPUs", scope=gpus.where(key)) for key in gone
    ]
    measures += [
        Measure(signal="gpus_missing", value=value, baseline=0.0, unit="GPUs", scope=(("node", node),))
        for node, value in lost.items()
        if node not in {key[0] for key in gone}
    ]
    if not count:
        return Finding.ok("gpu_missing", "All GPUs of the baseline are there.", *measures)
    said = [f"{gpus.name(key)} no longer reports." for key in gone]
    said += [f"{node} may allocate {value:.0f} GPUs fewer than it has." for node, value in sorted(lost.items())]
    return Finding.bad("gpu_missing", " ".join(said), *measures)


async def _vanished(look: Look) -> list[gpus.Key] | None:
    """GPUs that reported in the baseline and are silent now; None without DCGM or when its exporter is gone."""
    if "gpu" not in look.target.selectors:
        return None
    name = await look.exported("gpu", *gpus.CLOCK)
    if name is None:
        return None
    cells = await look.levels(name, "gpu", by=gpus.GPU)
    still = await look.telemetry.vector(Query(metric=name, where=look.where("gpu"), by=gpus.GPU), look.frame.at)
    before = {key for key, cell in cells.items() if cell.baseline is not None}
    if not still or not before:
        return None
    return sorted(before - still.keys())


async def _unallocatable(look: Look) -> dict[str, float] | None:
    """GPUs per node that exist but may not be allocated, more than in the baseline; None without kube metrics."""
    if "kubernetes" not in look.target.selectors:
        return None
    allocatable, capacity = await asyncio.gather(
        look.levels(ALLOCATABLE, "kubernetes", by=("node",), where=RESOURCE),
        look.levels(CAPACITY, "kubernetes", by=("node",), where=RESOURCE),
    )
    if not capacity:
        return None
    lost = {}
    for (node,), has in capacity.items():
        may = allocatable.get((node,), Compared())
        short = (has.now or 0.0) - (may.now if may.now is not None else has.now or 0.0)
        normally = (has.baseline or 0.0) - (may.baseline if may.baseline is not None else has.baseline or 0.0)
        if short - normally >= 0.5:
            lost[node] = float(round(short - normally))
    return lost
