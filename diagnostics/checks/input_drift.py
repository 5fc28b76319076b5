"""
Do users ask something else than in the reference week?

Reads the drift monitor's AUC by segment: how well a classifier tells today's inputs from the reference week's (0.5:
not at all). Bad when a segment reaches 0.65 and gained 0.1. A new language or tenant is no fault of the service:
nothing is to be rolled back. One key whose inputs drift while its traffic grows may have been leaked.
"""

from __future__ import annotations

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry
from diagnostics.wording import compared

AUC = "llm_app_input_drift_auc"

_LIMIT = 0.65
_GAIN = 0.1
_NO_DRIFT = 0.5  # what a segment without a past is held against


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", AUC)
    found = await look.levels(AUC, "application", by=("segment",), aggregation=Aggregation.MAX)
    segments = {
        key[0]: Compared(now=cell.now, baseline=_NO_DRIFT if cell.baseline is None else cell.baseline)
        for key, cell in found.items()
        if cell.now is not None and 0 <= cell.now <= 1
    }
    if not segments:
        raise CannotTellError(f"{AUC} has no value between 0 and 1 in the recent window")
    top = max(segments, key=lambda name: segments[name].gain or 0.0)
    measures = [measure("input_drift_auc", segments[top], "")]
    drifted = {
        name: cell for name, cell in segments.items() if (cell.now or 0.0) >= _LIMIT and (cell.gain or 0.0) >= _GAIN
    }
    if not drifted:
        return Finding.ok("input_drift", f"AUC of the inputs: {compared(segments[top])}.", *measures)
    measures += [
        measure("input_drift_auc", cell, "", ("segment", name)) for name, cell in sorted(drifted.items()) if name
    ]
    said = "; ".join(f"{name or 'all inputs'}: AUC {compared(cell)}" for name, cell in sorted(drifted.items()))
    return Finding.bad("input_drift", f"Inputs differ from the reference week's. {said}.", *measures)
