"""
What do the driver and DCGM themselves recommend for the GPUs?

Reads the recovery action that the driver asks for (reset, drain, reboot) and DCGM's own health verdict. Bad for any
action and any failed watch. The action counts more than every table of codes; a healthy verdict of DCGM does not
outweigh it, since DCGM calls a GPU healthy while a reset is pending.
"""

from __future__ import annotations

import asyncio

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry, Vector

FAILED = 20.0  # DCGM_EXP_GPU_HEALTH_STATUS: 0 pass, 10 warn, 20 fail
WARNED = 10.0


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    look.where("gpu")
    actions, health = await asyncio.gather(
        gpus.peaks(look, gpus.RECOVERY_ACTION), gpus.peaks(look, gpus.HEALTH, (*gpus.GPU, "health_watch"))
    )
    if actions is None and health is None:
        names = f"neither {gpus.RECOVERY_ACTION[0]} nor {gpus.HEALTH[0]} is exported"
        raise CannotTellError(f"{names}; {remedy_for(gpus.HEALTH[0])}")
    owners = await gpus.owners(look)
    wanted = {key: int(value) for key, value in (actions or {}).items() if int(value) in gpus.RECOVERY_WORDS}
    failed = _watches(health or {}, FAILED)
    measures = []
    if actions is not None:
        measures += _measures("gpu_recovery_action", set(wanted), owners)
    if health is not None:
        measures += _measures("gpu_health_failed", set(failed), owners)
    said = [f"{gpus.name(key)}: {gpus.RECOVERY_WORDS[action]}." for key, action in sorted(wanted.items())]
    said += [f"{gpus.name(key)}: DCGM's watch {', '.join(names)} fails." for key, names in sorted(failed.items())]
    if said:
        return Finding.bad("gpu_health", " ".join(said[:4]), *measures)
    warned = _watches(health or {}, WARNED)
    text = f" DCGM warns about {len(warned)} of them." if warned else ""
    return Finding.ok("gpu_health", f"No GPU asks for a reset or a reboot.{text}", *measures)


def _watches(health: Vector, least: float) -> dict[gpus.Key, list[str]]:
    """The watches of each GPU that are at least this bad."""
    found: dict[gpus.Key, list[str]] = {}
    for (*where, watch), value in sorted(health.items()):
        if least <= value <= FAILED:
            found.setdefault(tuple(where), []).append(watch or "ALL")
    return found


def _measures(signal: str, where: set[gpus.Key], owners: gpus.Owners) -> list[Measure]:
    return [
        Measure(signal=signal, value=float(len(where)), baseline=0.0, unit="GPUs"),
        *(
            Measure(signal=signal, value=1.0, baseline=0.0, unit="GPUs", scope=owners.where(key))
            for key in sorted(where)
        ),
    ]
