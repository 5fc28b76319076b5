"""
Do engines load their weights as quickly as usual?

Reads the seconds that each pod's engine took to load its weights. Bad when a pod took three times as long as the middle
of its peers, or of the baseline: replicas then come late, which looks like a scale-out that hangs.
"""

from __future__ import annotations

import statistics

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.places import places, pods_where
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

LOAD = "watchkeeper_probe_weight_load_seconds"
SLOW = 3.0


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    where = await pods_where(look, LOAD)
    cells = await look.levels(LOAD, "serving", by=("pod",), where=where, alone=True)
    now = {pod: cell.now for (pod,), cell in cells.items() if cell.now is not None and cell.now > 0}
    if not now:
        raise CannotTellError("no pod tells how long its weights took to load")
    before = [cell.baseline for cell in cells.values() if cell.baseline is not None and cell.baseline > 0]
    usual = statistics.median(before or list(now.values()))
    slow = {pod: seconds for pod, seconds in sorted(now.items()) if seconds >= SLOW * usual}
    top = Compared(now=max(now.values()), baseline=usual)
    known = await places(look)
    measures = [measure("weight_load", top, "s")]
    measures += [measure("weight_load", Compared(now=s, baseline=usual), "s", *known.where(p)) for p, s in slow.items()]
    text = f"The slowest engine loaded its weights in {compared(top, 's')}."
    return (Finding.bad if slow else Finding.ok)("model_load", text, *measures)
