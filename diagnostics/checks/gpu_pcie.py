"""
Are the GPUs' PCIe links at full speed, and clean?

Reads PCIe replays per minute, and the link's generation and width. Bad above the rate from which DCGM warns for this
link (31 per minute for sixteen lanes of generation 5), and for a link with fewer lanes than in the baseline, or without
one, than it can have. Its generation is not judged, since an idle GPU lowers it. A narrow link shows when weights are
loaded and when tensors leave the GPU.
"""

from __future__ import annotations

import asyncio
import math

from diagnostics import gpus
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import number

PER_LANE = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
"""Replays per minute and lane that are still normal, by PCIe generation (DcgmGPUHardwareLimits.h)."""

_USUAL_LINK = (5.0, 16.0)


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    name = await look.require("gpu", *gpus.PCIE_REPLAYS)
    replays, generations, widths, most_width = await asyncio.gather(
        look.rates(name, "gpu", by=gpus.GPU),
        gpus.cells(look, gpus.PCIE_GENERATION),
        gpus.cells(look, gpus.PCIE_WIDTH),
        gpus.cells(look, gpus.PCIE_MOST_WIDTH),
    )
    per_minute = {key: _per_minute(cell) for key, cell in replays.items() if cell.now is not None}
    if not per_minute:
        raise CannotTellError(f"{name} has no samples in the recent window; {remedy_for(name)}")
    noisy = {
        key: cell
        for key, cell in per_minute.items()
        if (cell.now or 0.0) > limit_of(_now(generations, key, 0), _now(widths, key, 1))
    }
    narrow = _narrow(widths or {}, most_width or {})
    top = max(per_minute.values(), key=lambda cell: cell.now or 0.0)
    owners = await gpus.owners(look)
    measures = [measure("pcie_replays_per_min", top, "1/min")]
    measures += [measure("pcie_replays_per_min", cell, "1/min", *owners.where(key)) for key, cell in noisy.items()]
    if widths is not None:
        measures.append(Measure(signal="pcie_links_narrowed", value=float(len(narrow)), baseline=0.0, unit="GPUs"))
    said = [f"{gpus.name(key)}: {number(cell.now)} PCIe replays per minute." for key, cell in sorted(noisy.items())]
    said += [
        f"{gpus.name(key)}: its PCIe link has {number(cell.now)} lanes instead of {number(cell.baseline)}."
        for key, cell in sorted(narrow.items())
    ]
    if said:
        return Finding.bad("gpu_pcie", " ".join(said[:4]), *measures)
    return Finding.ok("gpu_pcie", f"At most {number(top.now)} PCIe replays per minute.", *measures)


def limit_of(generation: float, width: float) -> float:
    """Replays per minute from which a link of this generation and width is suspicious: 31 for generation 5, x16."""
    return math.ceil(PER_LANE.get(int(generation), PER_LANE[5]) * width)


def _per_minute(cell: Compared) -> Compared:
    return Compared(
        now=None if cell.now is None else 60 * cell.now,
        baseline=None if cell.baseline is None else 60 * cell.baseline,
    )


def _now(cells: gpus.Cells | None, key: gpus.Key, part: int) -> float:
    found = (cells or {}).get(key)
    return found.now if found is not None and found.now else _USUAL_LINK[part]


def _narrow(widths: gpus.Cells, most: gpus.Cells) -> gpus.Cells:
    """Links with fewer lanes than in the baseline, or than they can have. (Their generation falls when idle.)"""
    found = {}
    for key, cell in widths.items():
        could = cell.baseline if cell.baseline is not None else most[key].now if key in most else None
        if cell.now is not None and could is not None and cell.now < could - 0.5:
            found[key] = Compared(now=cell.now, baseline=could)
    return found
