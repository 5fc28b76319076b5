"""
Does a GPU run slower than it could?

Compares each GPU's SM clock with its baseline, with temperature, power and the reasons that the driver gives: DCGM's
counts of clock events, its mask of reasons, or the time it counts as capped by heat. Bad when a clock lost 12 %, or
heat (thermal events) or a power brake slows a GPU down. Hot and slow is cooling; cool and slow is power: a brake, a
lost feed, or a cap that somebody changed. A power cap alone is normal at full load, and a low clock without work.
Where the clock is not exported, heat, power and the reasons still tell of a GPU that is slowed down, but not of health.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from diagnostics import gpus
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.gpus import Cells
from diagnostics.look import NOTHING, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Query, Telemetry
from diagnostics.wording import compared

THERMAL = ("sw_thermal", "hw_thermal")
POWER_BRAKE = ("hw_power_brake",)
POWER_CAP = ("power_cap", "sw_power_cap")  # normal at full load: counts only with a lower clock
REASON_BITS = {0x20: "sw_thermal", 0x40: "hw_thermal", 0x80: "hw_power_brake", 0x4: "power_cap"}
"""The bits of DCGM_FI_DEV_CLOCKS_EVENT_REASONS (nvml.h) under the names that DCGM counts events by."""

MOST_CAPPED = 0.01
"""The share of time capped by heat from which it is a slowdown and not a touch of the limit."""

Events = dict[str, set[gpus.Key]]


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    told, temperatures, powers, utils, events = await asyncio.gather(
        gpus.cells(look, gpus.CLOCK),
        gpus.cells(look, gpus.TEMPERATURE),
        gpus.cells(look, gpus.POWER),
        gpus.cells(look, gpus.UTILISATION),
        _events(look),
    )
    if told is None and not temperatures and not powers and events is None:
        await look.require("gpu", *gpus.CLOCK)
    known = {*(told or ()), *(temperatures or ()), *(powers or ())}
    new = {key for key in known if _is_newly_busy((utils or {}).get(key), (powers or {}).get(key))}
    clocks = _against_busy(told or {}, new)
    readings = (clocks, _against_busy(temperatures or {}, new), _against_busy(powers or {}, new))
    busy = {key: cell for key, cell in clocks.items() if not _is_idle((utils or {}).get(key), (powers or {}).get(key))}
    slow = sorted(key for key, cell in busy.items() if cell.factor is not None and cell.factor < 0.88)
    worst = min(busy or clocks, key=lambda key: clocks[key].factor or 1.0, default=_worst_without_clocks(readings))
    hot = brakes = None
    if events is not None:
        hot = _with_event(events, THERMAL)
        brakes = _with_event(events, POWER_BRAKE) | (_with_event(events, POWER_CAP) & set(slow))
    throttled = sorted({*slow, *(hot or ()), *(brakes or ())})
    owners = await gpus.owners(look) if throttled else gpus.NOBODY
    measures = [] if worst is None else _gpu_measures(worst, readings, owners, stands_out=worst in throttled)
    measures.append(measure("gpu_util", _average(utils or {}), "%"))
    if hot is not None and brakes is not None:
        measures += [_count("thermal_slowdowns", hot), _count("power_brakes", brakes)]
    measures.append(
        Measure(signal="throttled_nodes", value=float(len({key[0] for key in throttled})), baseline=0.0, unit="nodes")
    )
    if not throttled and told is None:
        return Finding.unknown("gpu_throttling", await look.why_missing(gpus.CLOCK[0]), *measures)
    if not throttled:
        return Finding.ok("gpu_throttling", "No GPU runs below its usual clock.", *measures)
    measures += [measure("sm_clock", clocks.get(key, NOTHING), "MHz", *owners.where(key)) for key in throttled]
    text = " ".join(_sentence(key, readings, hot or set(), brakes or set()) for key in throttled[:4])
    return Finding.bad("gpu_throttling", text, *measures)


def _worst_without_clocks(readings: tuple[Cells, Cells, Cells]) -> gpus.Key | None:
    """A GPU that is slowed down draws less, whatever the reason; where power is not told either, it may be hot."""
    _, temperatures, powers = readings
    if powers:
        return min(powers, key=lambda key: powers[key].factor or 1.0)
    return max(temperatures, key=lambda key: temperatures[key].gain or 0.0, default=None)


def _is_idle(util: Compared | None, power: Compared | None) -> bool:
    """A GPU that lost its work clocks down by itself; that is no throttling. Told by its use, or else by its power."""
    cell = util or power
    return cell is not None and cell.factor is not None and cell.factor < 0.3


def _is_newly_busy(util: Compared | None, power: Compared | None) -> bool:
    """A GPU that got its work since the baseline, as in a rollout: its own past is that of an idle GPU."""
    cell = util if util is not None and util.factor is not None else power
    if util is not None and util.baseline == 0 and (util.now or 0.0) > 0:
        return True
    return cell is not None and cell.factor is not None and cell.factor > 3.3


def _against_busy(cells: Cells, new: set[gpus.Key]) -> Cells:
    """The cells with the middle busy GPU's baseline for those that are newly busy; none where all are new."""
    usual = sorted(cell.baseline for key, cell in cells.items() if key not in new and cell.baseline is not None)
    normal = usual[len(usual) // 2] if usual else None
    return {key: Compared(now=cell.now, baseline=normal) if key in new else cell for key, cell in cells.items()}


async def _events(look: Look) -> Events | None:
    """GPUs by the reason that slowed them down in the recent window; None when DCGM tells no reasons at all."""
    sources = await asyncio.gather(_counted(look), _masked(look), _capped(look))
    known = [source for source in sources if source is not None]
    if not known:
        return None
    events: Events = {}
    for source in known:
        for event, where in source.items():
            events.setdefault(event, set()).update(where)
    return events


async def _counted(look: Look) -> Events | None:
    counts = await gpus.peaks(look, gpus.CLOCK_EVENTS, (*gpus.GPU, "clock_event"))
    if counts is None:
        return None
    events: Events = {}
    for (*gpu, event), count in counts.items():
        if count > 0:
            events.setdefault(event, set()).add(tuple(gpu))
    return events


async def _masked(look: Look) -> Events | None:
    """Reasons from the mask: every bit that was set in some sample of the recent window."""
    name = await look.exported("gpu", *gpus.EVENT_REASONS)
    if name is None:
        return None
    query = Query(metric=name, where=look.where("gpu"), by=gpus.GPU, aggregation=Aggregation.MAX)
    start = look.frame.at - look.frame.recent
    matrix = await look.telemetry.matrix(query, start, look.frame.at, timedelta(seconds=60))
    events: Events = {}
    for key, points in matrix.items():
        for mask in {int(value) for _, value in points if 0 < value < 2**32}:
            for bit, event in REASON_BITS.items():
                if mask & bit:
                    events.setdefault(event, set()).add(key)
    return events


async def _capped(look: Look) -> Events | None:
    """GPUs that spent more of their time capped by heat than in the baseline (DCGM counts nanoseconds)."""
    name = await look.exported("gpu", *gpus.THERMAL_VIOLATION)
    if name is None:
        return None
    shares = await look.rates(name, "gpu", by=gpus.GPU)
    return {"hw_thermal": {key for key, cell in shares.items() if (cell.gain or 0.0) / 1e9 > MOST_CAPPED}}


def _with_event(events: Events, names: tuple[str, ...]) -> set[gpus.Key]:
    return set().union(*(events.get(name, set()) for name in names))


def _gpu_measures(
    key: gpus.Key, readings: tuple[Cells, Cells, Cells], owners: gpus.Owners, *, stands_out: bool
) -> list[Measure]:
    """The slowest GPU's numbers, as the service's and (when it stands out) under its own name."""
    found = []
    for signal, cells, unit in zip(
        ("sm_clock", "gpu_temperature", "gpu_power"), readings, ("MHz", "C", "W"), strict=True
    ):
        if key in cells:
            found.append(measure(signal, cells[key], unit))
            if stands_out and signal != "sm_clock":
                found.append(measure(signal, cells[key], unit, *owners.where(key)))
    return found


def _count(signal: str, where: set[gpus.Key]) -> Measure:
    return Measure(signal=signal, value=float(len(where)), baseline=0.0, unit="GPUs")


def _average(cells: Cells) -> Compared:
    now = [cell.now for cell in cells.values() if cell.now is not None]
    then = [cell.baseline for cell in cells.values() if cell.baseline is not None]
    return Compared(now=sum(now) / len(now) if now else None, baseline=sum(then) / len(then) if then else None)


def _sentence(key: gpus.Key, readings: tuple[Cells, Cells, Cells], hot: set[gpus.Key], brakes: set[gpus.Key]) -> str:
    clocks, temperatures, _ = readings
    why = " because of heat" if key in hot else " because of a power brake or cap" if key in brakes else ""
    warm = f", at {compared(temperatures[key], 'C')}" if key in temperatures else ""
    return f"{gpus.name(key)} runs at {compared(clocks.get(key, NOTHING), 'MHz')}{why}{warm}."
