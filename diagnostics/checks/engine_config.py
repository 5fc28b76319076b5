"""
Do the engines run with the configuration that they had?

Compares what the engines say about themselves (the labels of vllm:cache_config_info: KV blocks, memory utilisation,
prefix caching) with the baseline, and whether one sleeps. Bad when an engine has 10 % fewer KV blocks, prefix caching
went off, or an engine sleeps. A difference also finds a change that nobody announced.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.places import places
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Query, Telemetry
from diagnostics.wording import compared

CONFIG = "vllm:cache_config_info"
SLEEP = "vllm:engine_sleep_state"
BLOCKS = "num_gpu_blocks"
CACHING = "enable_prefix_caching"
SETTINGS = (BLOCKS, "block_size", "gpu_memory_utilization", CACHING, "cache_dtype", "sliding_window")

Settings = dict[str, dict[str, str]]  # by pod


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("serving", CONFIG)
    now, then, known, asleep = await asyncio.gather(
        _settings(look, frame.at), _settings(look, frame.baseline_end), places(look), _asleep(look)
    )
    if not now:
        raise CannotTellError("no engine tells its configuration now")
    usual = _most_blocks(then)
    blocks = Compared(now=min(_blocks(now).values(), default=None), baseline=usual)
    shrunk = {pod: count for pod, count in _blocks(now).items() if usual is not None and count < 0.9 * usual}
    measures = [measure("kv_blocks", blocks, "blocks")]
    measures += [
        measure("kv_blocks", Compared(now=count, baseline=usual), "blocks", *known.where(pod))
        for pod, count in sorted(shrunk.items())
    ]
    if asleep is not None:
        measures.append(Measure(signal="engines_asleep", value=float(len(asleep)), baseline=0.0, unit="pods"))
    if not then:
        return Finding.unknown("engine_config", "No engine told its configuration in the baseline.", *measures)
    said = _differences(now, then)
    if asleep:
        said.insert(0, f"Asleep: {', '.join(asleep)}.")
    if shrunk:
        said.insert(0, f"An engine has {compared(blocks, 'blocks')}.")
    if shrunk or asleep or _went_off(now, then):
        return Finding.bad("engine_config", " ".join(said[:4]), *measures)
    text = " ".join(said[:4]) or f"The engines are configured as before, with {compared(blocks, 'blocks')}."
    return Finding.ok("engine_config", text, *measures)


async def _settings(look: Look, at: datetime) -> Settings:
    """Each pod's settings at an instant; a label that the engine does not export is left out."""
    query = Query(metric=CONFIG, where=look.where("serving"), by=("pod", *SETTINGS), aggregation=Aggregation.COUNT)
    found: Settings = {}
    for pod, *values in await look.telemetry.vector(query, at):
        found[pod] = {name: value for name, value in zip(SETTINGS, values, strict=True) if value}
    return found


async def _asleep(look: Look) -> list[str] | None:
    """Pods whose engine sleeps (its weights or cache are given up); None when no engine tells."""
    if await look.exported("serving", SLEEP) is None:
        return None
    states = await look.peak(SLEEP, "serving", by=("pod", "sleep_state"))
    return sorted({pod for (pod, state), value in states.items() if value >= 0.5 and state not in {"", "awake"}})


def _blocks(settings: Settings) -> dict[str, float]:
    return {pod: float(own[BLOCKS]) for pod, own in settings.items() if own.get(BLOCKS, "").isdigit()}


def _most_blocks(settings: Settings) -> float | None:
    """What most engines had; the smaller where two sizes are equally frequent."""
    counts = sorted(_blocks(settings).values())
    return max(counts, key=counts.count, default=None)


def _differences(now: Settings, then: Settings) -> list[str]:
    """Settings that have a value now which no engine had in the baseline."""
    said = []
    for name in SETTINGS[1:]:
        before = {own[name] for own in then.values() if name in own}
        after = {own[name] for own in now.values() if name in own}
        if before and after - before:
            said.append(f"{name} was {', '.join(sorted(before))} and is {', '.join(sorted(after - before))}.")
    return said


def _went_off(now: Settings, then: Settings) -> bool:
    was_on = any(own.get(CACHING, "").lower() == "true" for own in then.values())
    return was_on and any(own.get(CACHING, "").lower() == "false" for own in now.values())
