"""
Does a GPU run slower than it could?

Compares each GPU's SM clock with its baseline, with temperature, power and the clock events that DCGM counts. Bad when
a clock lost 12 %, or heat (thermal events) or a power brake slows a GPU down. Hot and slow is cooling; cool and slow
is power: a brake, a lost feed, or a cap that somebody changed.
"""

from __future__ import annotations

import asyncio

from diagnostics import gpus
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

THERMAL = ("sw_thermal", "hw_thermal")
POWER_BRAKE = ("hw_power_brake",)
POWER_CAP = ("power_cap", "sw_power_cap")  # normal at full load: counts only with a lower clock

Cells = dict[gpus.Key, Compared]


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    clock_name = await look.require("gpu", *gpus.CLOCK)
    clocks, temperatures, powers, utils, events = await asyncio.gather(
        look.levels(clock_name, "gpu", by=gpus.GPU),
        _cells(look, gpus.TEMPERATURE),
        _cells(look, gpus.POWER),
        _cells(look, gpus.UTILISATION),
        _events(look),
    )
    slow = sorted(key for key, cell in clocks.items() if cell.factor is not None and cell.factor < 0.88)
    worst = min(clocks, key=lambda key: clocks[key].factor or 1.0, default=None)
    measures = [] if worst is None else _gpu_measures(worst, clocks, temperatures, powers, stands_out=worst in slow)
    measures.append(measure("gpu_util", _average(utils), "%"))
    hot = brakes = None
    if events is not None:
        hot = _with_event(events, THERMAL)
        brakes = _with_event(events, POWER_BRAKE) | (_with_event(events, POWER_CAP) & set(slow))
        measures += [_count("thermal_slowdowns", hot), _count("power_brakes", brakes)]
    throttled = sorted({*slow, *(hot or ()), *(brakes or ())})
    measures.append(
        Measure(signal="throttled_nodes", value=float(len({key[0] for key in throttled})), baseline=0.0, unit="nodes")
    )
    if not throttled:
        return Finding.ok("gpu_throttling", "No GPU runs below its usual clock.", *measures)
    measures += [measure("sm_clock", clocks.get(key, NOTHING), "MHz", *gpus.where(key)) for key in throttled]
    text = " ".join(_sentence(key, clocks, temperatures, hot or set(), brakes or set()) for key in throttled[:4])
    return Finding.bad("gpu_throttling", text, *measures)


async def _cells(look: Look, names: tuple[str, ...]) -> Cells:
    name = await look.exported("gpu", *names)
    return {} if name is None else await look.levels(name, "gpu", by=gpus.GPU)


async def _events(look: Look) -> dict[str, set[gpus.Key]] | None:
    """GPUs by clock event in the recent window; None when DCGM does not count events."""
    name = await look.exported("gpu", *gpus.CLOCK_EVENTS)
    if name is None:
        return None
    events: dict[str, set[gpus.Key]] = {}
    for (*gpu, event), count in (await look.peak(name, "gpu", by=(*gpus.GPU, "clock_event"))).items():
        if count > 0:
            events.setdefault(event, set()).add(tuple(gpu))
    return events


def _with_event(events: dict[str, set[gpus.Key]], names: tuple[str, ...]) -> set[gpus.Key]:
    return set().union(*(events.get(name, set()) for name in names))


def _gpu_measures(
    key: gpus.Key, clocks: Cells, temperatures: Cells, powers: Cells, *, stands_out: bool
) -> list[Measure]:
    """The slowest GPU's numbers, as the service's and (when it stands out) under its own name."""
    found = []
    for signal, cells, unit in (
        ("sm_clock", clocks, "MHz"),
        ("gpu_temperature", temperatures, "C"),
        ("gpu_power", powers, "W"),
    ):
        if key in cells:
            found.append(measure(signal, cells[key], unit))
            if stands_out and signal != "sm_clock":
                found.append(measure(signal, cells[key], unit, *gpus.where(key)))
    return found


def _count(signal: str, where: set[gpus.Key]) -> Measure:
    return Measure(signal=signal, value=float(len(where)), baseline=0.0, unit="GPUs")


def _average(cells: Cells) -> Compared:
    now = [cell.now for cell in cells.values() if cell.now is not None]
    then = [cell.baseline for cell in cells.values() if cell.baseline is not None]
    return Compared(now=sum(now) / len(now) if now else None, baseline=sum(then) / len(then) if then else None)


def _sentence(key: gpus.Key, clocks: Cells, temperatures: Cells, hot: set[gpus.Key], brakes: set[gpus.Key]) -> str:
    why = " because of heat" if key in hot else " because of a power brake or cap" if key in brakes else ""
    warm = f", at {compared(temperatures[key], 'C')}" if key in temperatures else ""
    return f"{gpus.name(key)} runs at {compared(clocks.get(key, NOTHING), 'MHz')}{why}{warm}."
