"""
Are the links between the GPUs sound?

Reads NVLink replay, recovery and CRC errors per minute, NVSwitch's fatal errors, and the state of the fabric. Bad from
one link error per minute more than in the baseline, for a fatal switch error, and for a fabric that is not set up or
not healthy: GPUs that share a model then wait for each other, so prefill and tokens get slower while clocks and
temperatures stay flat. Only deployments that spread a model over several GPUs are hurt.
"""

from __future__ import annotations

import asyncio

from diagnostics import gpus
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import number

MANAGER_WORDS = {1: "is not started", 4: "failed", 5: "is not recognised"}
"""DCGM_FI_DEV_FABRIC_MANAGER_STATUS; 0 not supported, 2 in progress and 3 success are no complaint."""

HEALTH_WORDS = {2: "is unhealthy", 3: "has limited capacity"}
"""DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY; 1 is healthy, 0 not supported."""


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    look.where("gpu")
    links, manager, health, switches = await asyncio.gather(
        _errors_per_minute(look),
        gpus.cells(look, gpus.FABRIC_MANAGER),
        gpus.cells(look, gpus.FABRIC_HEALTH),
        gpus.growth(look, gpus.NVSWITCH_FATAL),
    )
    if links is None and manager is None and health is None:
        first = gpus.NVLINK_ERRORS[0][0]
        raise CannotTellError(f"{first} is not exported; {remedy_for(first)}")
    owners = await gpus.owners(look)
    faults = [
        *_fabric("manager", manager or {}, MANAGER_WORDS),
        *_fabric("health", health or {}, HEALTH_WORDS),
        *((key, "NVSwitch reported a fatal error") for key, count in (switches or {}).items() if count >= 0.5),
    ]
    noisy = {key: cell for key, cell in (links or {}).items() if (cell.gain or 0.0) >= 1.0}
    measures = _measures(links, noisy, owners)
    if manager is not None or health is not None or switches is not None:
        measures.append(Measure(signal="fabric_faults", value=float(len(faults)), baseline=0.0, unit="GPUs"))
        measures += [
            Measure(signal="fabric_faults", value=1.0, baseline=0.0, unit="GPUs", scope=owners.where(key))
            for key, _ in sorted(faults)
        ]
    said = [f"{gpus.name(key)}: {number(cell.now)} NVLink errors per minute." for key, cell in sorted(noisy.items())]
    said += [f"{gpus.name(key)}: {words}." for key, words in sorted(faults)]
    if said:
        return Finding.bad("gpu_nvlink", " ".join(said[:4]), *measures)
    if links is None:
        first = gpus.NVLINK_ERRORS[0][0]
        reason = f"The fabric is fine, but {first} is not exported; {remedy_for(first)}"
        return Finding.unknown("gpu_nvlink", reason, *measures)
    return Finding.ok("gpu_nvlink", "The NVLinks report no more errors than usual.", *measures)


async def _errors_per_minute(look: Look) -> gpus.Cells | None:
    """Errors of all kinds per GPU; None when no kind is exported."""
    names = await asyncio.gather(*(look.exported("gpu", *spellings) for spellings in gpus.NVLINK_ERRORS))
    counted = [name for name in names if name is not None]
    if not counted:
        return None
    per_gpu: gpus.Cells = {}
    for kind in await asyncio.gather(*(look.rates(name, "gpu", by=gpus.GPU) for name in counted)):
        for key, cell in kind.items():
            have = per_gpu.get(key, Compared(now=0.0, baseline=0.0))
            per_gpu[key] = Compared(
                now=(have.now or 0.0) + 60 * (cell.now or 0.0),
                baseline=(have.baseline or 0.0) + 60 * (cell.baseline or 0.0),
            )
    return per_gpu


def _fabric(part: str, cells: gpus.Cells, words: dict[int, str]) -> list[tuple[gpus.Key, str]]:
    """GPUs whose fabric is in a bad state now and was not in the baseline."""
    found = []
    for key, cell in cells.items():
        state = -1 if cell.now is None else round(cell.now)
        if state in words and round(cell.baseline or 0.0) != state:
            found.append((key, f"the fabric's {part} {words[state]}"))
    return found


def _measures(links: gpus.Cells | None, noisy: gpus.Cells, owners: gpus.Owners) -> list[Measure]:
    if links is None:
        return []
    top = max(links.values(), key=lambda cell: cell.now or 0.0, default=Compared(now=0.0, baseline=0.0))
    return [
        measure("nvlink_errors_per_min", top, "1/min"),
        *(measure("nvlink_errors_per_min", cell, "1/min", *owners.where(key)) for key, cell in sorted(noisy.items())),
    ]
