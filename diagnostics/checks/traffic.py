"""
Did the traffic change: more requests, or retries, or all to one pod?

Reads requests per second, requests per session (above 1.2 they are retries), how evenly the load spreads over pods, and
each prompt version's share. Bad when requests grew by half, the retries by 20 %, or one pod carries 1.6 times the
middle pod's load. More traffic is no fault in itself: `queue` says whether it hurts, `consumers` who sends it.
"""

from __future__ import annotations

import asyncio

from diagnostics import latency
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, share, spread, total
from diagnostics.proportions import summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared, number

REQUESTS = "llm_app_requests_total"
SESSIONS = "llm_app_sessions_total"

_GREW = {"requests_per_s": 1.5, "requests_per_session": 1.2}
_APART = 1.6


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    requests = await _requests(look)
    measures = [measure("requests_per_s", requests, "1/s")]
    complaints = [_complaint("Requests per second", requests, _GREW["requests_per_s"])]
    if "application" in target.selectors:
        retries = await _retries(look, requests)
        measures.append(measure("requests_per_session", retries, "x"))
        complaints.append(_complaint("Requests per session", retries, _GREW["requests_per_session"]))
        measures.extend(await _versions(look))
    if "serving" in target.selectors:
        measures.extend(await _pods_apart(look))
        complaints.append(_apart(measures))
    said = [complaint for complaint in complaints if complaint]
    if said:
        return Finding.bad("traffic", " ".join(said), *measures)
    return Finding.ok("traffic", f"Requests per second: {compared(requests)}.", *measures)


async def _requests(look: Look) -> Compared:
    """Requests per second at the service's edge, from the first source that knows them."""
    for family, metric in (
        ("application", REQUESTS),
        ("gateway", "litellm_proxy_total_requests_metric_total"),
        ("serving", f"{latency.TTFT}_count"),
    ):
        if family in look.target.selectors and await look.exported(family, metric):
            return await look.rate(metric, family)
    raise CannotTellError("no request counter is exported: neither by the application, the gateway nor the engines")


async def _retries(look: Look, requests: Compared) -> Compared:
    sessions = await look.rate(SESSIONS, "application")
    return Compared(
        now=requests.now / sessions.now if requests.now and sessions.now else None,
        baseline=requests.baseline / sessions.baseline if requests.baseline and sessions.baseline else None,
    )


async def _versions(look: Look) -> list[Measure]:
    """Each prompt version's share of the requests, so that a change can be held against what it touches."""
    cells = await look.rates(REQUESTS, "application", by=("route", "prompt_name", "prompt_version"))
    named = {key: cell for key, cell in summed(cells, 1, 2).items() if key[0]}
    whole = total(cells)
    return [
        measure("prompt_version_share", share(cell, whole), "ratio", ("prompt_name", name), ("prompt_version", version))
        for (name, version), cell in sorted(named.items())
        if cell.now
    ]


async def _pods_apart(look: Look) -> list[Measure]:
    started, finished = await asyncio.gather(
        look.rates(f"{latency.TTFT}_count", "serving", by=("pod",)),
        look.rates("vllm:request_success_total", "serving", by=("pod",)),
    )
    cells = {key: cell for key, cell in (started or finished).items() if key != ("",)}
    apart = spread([cell.now for cell in cells.values() if cell.now is not None])
    before = spread([cell.baseline for cell in cells.values() if cell.baseline is not None])
    if apart is None:
        return []
    found = [Measure(signal="load_spread", value=apart, baseline=before, unit="x")]
    if apart >= _APART:
        (pod,), cell = max(cells.items(), key=lambda entry: entry[1].now or 0.0)
        found.append(measure("load_spread", Compared(now=apart, baseline=before), "x", ("pod", pod)))
        found.append(measure("requests_per_s", cell, "1/s", ("pod", pod)))
    return found


def _complaint(words: str, cell: Compared, limit: float) -> str | None:
    return f"{words}: {compared(cell)}." if cell.factor is not None and cell.factor >= limit else None


def _apart(measures: list[Measure]) -> str | None:
    for found in measures:
        if found.signal == "load_spread" and found.scope and found.value is not None:
            return f"Pod {found.scope[0][1]} gets {number(found.value)} times the middle pod's requests."
    return None
