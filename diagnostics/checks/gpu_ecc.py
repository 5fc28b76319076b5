"""
Is the GPUs' memory sound?

Reads uncorrectable (double-bit) and corrected (single-bit) errors since the baseline, and the state of row remapping.
Bad for any uncorrectable error, a failed remap (the GPU must be replaced) or a pending one (it needs a reset), also
when DCGM still calls the GPU healthy. A remap that waited before the trouble is bad too, but no evidence of its cause.
A row remapped for correctable errors is ok: the GPU repaired itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry, Vector
from diagnostics.wording import number

_GREW = {
    "ecc_double_bit": (gpus.DOUBLE_BIT, "errors"),
    "ecc_single_bit": (gpus.SINGLE_BIT, "errors"),
    "rows_remapped": (gpus.REMAPPED_CORRECTABLE, "rows"),
    "rows_remapped_uncorrectable": (gpus.REMAPPED_UNCORRECTABLE, "rows"),
}
_FLAGS = {
    "row_remap_pending": (gpus.REMAP_PENDING, gpus.RETIRE_PENDING),
    "row_remap_failed": (gpus.REMAP_FAILED,),
}
_WORDS = {
    "ecc_double_bit": "uncorrectable memory errors",
    "rows_remapped_uncorrectable": "rows remapped for uncorrectable errors",
    "row_remap_pending": "a row remap waits for a reset",
    "row_remap_failed": "a row remap failed",
}


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    look.where("gpu")
    grew = await asyncio.gather(*(gpus.growth(look, names) for names, _ in _GREW.values()))
    flags = await asyncio.gather(*(_flags(look, spellings) for spellings in _FLAGS.values()))
    known = {
        **{signal: cells for signal, cells in zip(_GREW, grew, strict=True) if cells is not None},
        **{signal: found.new for signal, found in zip(_FLAGS, flags, strict=True) if found is not None},
    }
    if not known:
        raise CannotTellError(f"{gpus.REMAP_FAILED[0]} is not exported; {remedy_for(gpus.REMAP_FAILED[0])}")
    owners = await gpus.owners(look)
    measures = [found for signal, cells in known.items() for found in _measures(signal, cells, owners)]
    complaints = [
        f"{gpus.name(key)}: {_WORDS[signal]} ({number(round(value))})."
        for signal, cells in known.items()
        if signal in _WORDS
        for key, value in sorted(cells.items())
        if value >= 0.5
    ]
    complaints += [
        f"{gpus.name(key)}: {_WORDS[signal]}, and did before the trouble."
        for signal, found in zip(_FLAGS, flags, strict=True)
        if found is not None
        for key in found.old
    ]
    if complaints:
        return Finding.bad("gpu_ecc", " ".join(complaints), *measures)
    if "ecc_double_bit" not in known:
        reason = f"No remap trouble, but {gpus.DOUBLE_BIT[0]} is not exported; {remedy_for(gpus.DOUBLE_BIT[0])}"
        return Finding.unknown("gpu_ecc", reason, *measures)
    return Finding.ok("gpu_ecc", "No new uncorrectable memory error; no remap became pending or failed.", *measures)


@dataclass(frozen=True, kw_only=True)
class _Flags:
    """A flag that is set now: 1 for the GPUs where it is new since the baseline, and the GPUs that had it then."""

    new: Vector
    old: list[Key]


async def _flags(look: Look, spellings: tuple[tuple[str, ...], ...]) -> _Flags | None:
    """GPUs on which a flag is set now; None when nobody exports it."""
    found = [cells for names in spellings if (cells := await gpus.cells(look, names)) is not None]
    if not found:
        return None
    is_set: dict[Key, float] = {}
    old: set[Key] = set()
    for cells in found:  # of two flags that one GPU has, either is enough
        for key, cell in cells.items():
            is_now, was_then = (cell.now or 0.0) > 0, (cell.baseline or 0.0) > 0.5
            is_set[key] = max(float(is_now and not was_then), is_set.get(key, 0.0))
            if is_now and was_then:
                old.add(key)
    return _Flags(new=is_set, old=sorted(old))


def _measures(signal: str, cells: Vector, owners: gpus.Owners) -> list[Measure]:
    unit = _GREW[signal][1] if signal in _GREW else "GPUs"
    hit = {key: float(round(value)) for key, value in cells.items() if value >= 0.5}
    return [
        Measure(signal=signal, value=sum(hit.values()), baseline=0.0, unit=unit),
        *(
            Measure(signal=signal, value=value, baseline=0.0, unit=unit, scope=owners.where(key))
            for key, value in sorted(hit.items())
        ),
    ]
