"""
Is the telemetry itself there?

Bad when the engines' metrics are gone, or their scrapes fail, while the application or the gateway still serves
requests: then the service works and nobody sees it. When requests stopped as well, silence is no telemetry fault.
A scrape counts where its target exports engine metrics, or did: the selector's namespace may hold other exporters.
"""

from __future__ import annotations

import asyncio

from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry

EDGES = (
    ("application", "llm_app_requests_total"),
    ("gateway", "litellm_proxy_total_requests_metric_total"),
    ("gateway", "litellm_request_total_latency_metric_count"),
)
ENGINE = "vllm:num_requests_running"
TARGET = ("pod", "instance", "job")


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    scrapes, last, engines, traffic = await asyncio.gather(
        look.levels("up", "serving", by=TARGET),
        look.peak("up", "serving", by=TARGET),
        look.levels(ENGINE, "serving", by=TARGET),
        _traffic(look),
    )
    ours = {key: value for key, value in last.items() if key in engines} or last
    down = sorted("/".join(part for part in key if part) for key, value in ours.items() if value == 0)
    measures = [Measure(signal="scrapes_down", value=float(len(down)), baseline=0.0, unit="targets")] if scrapes else []
    if all(engine.now is None for engine in engines.values()):
        was_there = any(engine.baseline is not None for engine in engines.values())
        return _gone(measures, was_there=was_there, traffic=traffic)
    measures.append(Measure(signal="engine_metrics_absent", value=0.0, baseline=0.0))
    if down:
        return Finding.bad("telemetry_present", f"Scrapes fail: {', '.join(down)}.", *measures)
    return Finding.ok("telemetry_present", "The engines' metrics arrive.", *measures)


def _gone(measures: list[Measure], *, was_there: bool, traffic: float | None) -> Finding:
    if not was_there:
        raise CannotTellError("the engines' metrics are not there, and were not in the baseline either")
    if traffic is None:
        raise CannotTellError("the engines' metrics are gone, and no request counter says whether the service works")
    if traffic == 0:
        return Finding.ok("telemetry_present", "The engines' metrics are gone, and so are the requests.", *measures)
    measures.append(Measure(signal="engine_metrics_absent", value=1.0, baseline=0.0))
    text = f"The engines' metrics are gone while {traffic:.1f} requests per second are served."
    return Finding.bad("telemetry_present", text, *measures)


async def _traffic(look: Look) -> float | None:
    """Requests per second that the edges still count; None when no edge is observed."""
    known: float | None = None
    for family, metric in EDGES:
        if family in look.target.selectors:
            rate = (await look.rate(metric, family)).now
            known = rate if known is None else max(known, rate or 0.0)
    return known
