"""
Does somebody try to inject instructions, and did any succeed?

Reads the detector's hits per request: in what users write, and in retrieved or tool content. Bad when one of them
tripled, with five hits or more, beyond chance. Few principals with most of the hits are a campaign; one data source
with most of them is a poisoned document. Succeeded means that answers leak more, or that more writes go unapproved, in
the same minutes. Keep hashes, not texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics.checks.sensitive_output import HITS as LEAKS
from diagnostics.checks.sensitive_output import LABELS as LEAK_LABELS
from diagnostics.checks.sensitive_output import answers, hits_of, is_rising
from diagnostics.checks.tool_calls import CALLS, unapproved_writes
from diagnostics.checks.tool_calls import LABELS as CALL_LABELS
from diagnostics.checks.traffic import REQUESTS
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.proportions import ENOUGH_EVENTS, ENOUGH_VOTES, NO_EVENTS, SURE, Share
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared, number

DETECTIONS = "llm_app_injection_detections_total"
LABELS = ("surface", "principal", "data_source")

_SURFACES = {
    "injection_ratio": ("what users write", frozenset({"user"})),
    "injection_retrieved_ratio": ("retrieved or tool content", frozenset({"retrieved", "tool"})),
}
_FEW = 5
_PART = 0.05


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", DETECTIONS)
    rates, requests = await asyncio.gather(
        look.rates(DETECTIONS, "application", by=LABELS), look.rate(REQUESTS, "application")
    )
    exposed = _exposed(requests, look)
    if exposed.all_now < ENOUGH_EVENTS or exposed.all_then < ENOUGH_EVENTS:
        raise CannotTellError(f"{REQUESTS} counts too few requests to hold the detections against")
    cells = {key: _share(cell, exposed, look) for key, cell in rates.items()}
    complaints, measures = [], []
    for signal, (words, surfaces) in _SURFACES.items():
        own = {key[1:]: cell for key, cell in cells.items() if key[0] in surfaces}
        whole = _sum(own, exposed)
        measures.append(measure(signal, whole.compared(), "ratio"))
        if is_rising(whole):
            complaints.append(f"Injection attempts in {words}: {compared(whole.compared(), 'ratio')} of the requests")
            said, more = _who(signal, own, exposed)
            complaints[-1] += f"{said}."
            measures += more
    if not complaints:
        return Finding.ok("injection", "Injection attempts are as rare as usual.", *measures)
    said, succeeded = await _success(look)
    return Finding.bad("injection", f"{' '.join(complaints)} {said}", *measures, *succeeded)


def _exposed(requests: Compared, look: Look) -> Share:
    return Share(
        all_now=(requests.now or 0.0) * look.frame.recent.total_seconds(),
        all_then=(requests.baseline or 0.0) * look.baseline_window.total_seconds(),
    )


def _share(cell: Compared, exposed: Share, look: Look) -> Share:
    return Share(
        hits_now=(cell.now or 0.0) * look.frame.recent.total_seconds(),
        all_now=exposed.all_now,
        hits_then=(cell.baseline or 0.0) * look.baseline_window.total_seconds(),
        all_then=exposed.all_then,
    )


def _sum(cells: Mapping[Key, Share], exposed: Share) -> Share:
    return Share(
        hits_now=sum(cell.hits_now for cell in cells.values()),
        all_now=exposed.all_now,
        hits_then=sum(cell.hits_then for cell in cells.values()),
        all_then=exposed.all_then,
    )


def _who(signal: str, cells: Mapping[Key, Share], exposed: Share) -> tuple[str, list[Measure]]:
    """How concentrated the hits are on principals and on data sources, and those that carry them."""
    said, measures = "", []
    for position, words, label, limit, most in (
        (0, "principals", "api_key", _FEW, "injection_top_principals_share"),
        (1, "data sources", "data_source", 1, "injection_top_source_share"),
    ):
        grouped = _grouped(cells, position, exposed)
        if not grouped:
            continue
        whole = sum(cell.hits_now for cell in grouped.values())
        top = sorted(grouped, key=lambda name: grouped[name].hits_now, reverse=True)
        carried = sum(grouped[name].hits_now for name in top[:limit]) / whole if whole else 0.0
        measures.append(Measure(signal=most, value=carried, unit="ratio"))
        said += f", {number(carried, 'ratio')} of them from {min(limit, len(top))} of {len(top)} {words}"
        risen = [name for name in top if grouped[name].hits_now >= _PART * whole and is_rising(grouped[name])]
        measures += [measure(signal, grouped[name].compared(1), "ratio", (label, name)) for name in risen]
    return said, measures


def _grouped(cells: Mapping[Key, Share], position: int, exposed: Share) -> dict[str, Share]:
    names = {key[position] for key in cells if key[position]}
    return {name: _sum({k: c for k, c in cells.items() if k[position] == name}, exposed) for name in names}


async def _success(look: Look) -> tuple[str, list[Measure]]:
    """Whether leaks or unapproved writes rise at the same time; without either metric nobody can say."""
    leaks, exposed, calls = await asyncio.gather(
        look.rates(LEAKS, "application", by=LEAK_LABELS),
        answers(look),
        look.rates(CALLS, "application", by=CALL_LABELS),
    )
    signs = []
    if is_rising(hits_of(leaks, exposed, look).get((), NO_EVENTS)):
        signs.append("more answers hold sensitive data")
    writes = unapproved_writes(calls, look.frame)
    if (writes.compared(ENOUGH_VOTES).gain or 0.0) >= 0.1 and writes.chance < SURE:
        signs.append("more tools write without approval")
    if signs:
        found = Measure(signal="injection_succeeded", value=1.0, baseline=0.0)
        return f"Some seem to succeed: {' and '.join(signs)}.", [found]
    if not leaks and not calls:
        return "Whether any succeeded is not known: neither leaks nor tool calls are exported.", []
    found = Measure(signal="injection_succeeded", value=0.0, baseline=0.0)
    return "No sign that any succeeded.", [found]
