"""
Who is hurt, and how many?

Reads the share of requests that fail (5xx, 429, given up, and 4xx beyond the usual ones), that are slower than the
service promised, and the answers that nobody can use; the tenants whose requests fail more than they did; and how many
times too fast the promised budget goes. Bad when users notice. It says nothing about causes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from diagnostics import latency
from diagnostics.answer_quality import BY_VERSION, EMPTY, FORMAT, REFUSAL, TRUNCATED, cells_of, service
from diagnostics.checks.error_ratio import kind_of
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.impact import Impact, burn_rate, share_above
from diagnostics.look import ENOUGH, NOTHING, CannotTellError, Compared, Look
from diagnostics.proportions import NO_EVENTS, SURE, Share, folded, named, shares
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry

DURATION = "llm_app_request_duration_seconds"

_RARELY = timedelta(minutes=12)
_FAILED = frozenset({"5xx", "429", "aborted"})


@dataclass(frozen=True, kw_only=True)
class _Source:
    family: str
    metric: str
    by: tuple[str, ...]  # the tenant first, the status last


_SOURCES = (
    _Source(family="application", metric="llm_app_requests_total", by=("tenant", "api_key", "status")),
    _Source(family="gateway", metric="litellm_proxy_total_requests_metric_total", by=("team", "status_code")),
)


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    by_tenant, slow, spoiled = await asyncio.gather(_requests(look), _slow(look), _spoiled(look))
    whole = folded(by_tenant).get((), NO_EVENTS)
    failing = whole.compared(ENOUGH)
    if failing.now is None and slow.now is None and spoiled.now is None:
        raise CannotTellError(
            "neither requests by status (llm_app_requests_total), nor a promised time with its histogram, "
            "nor answers by outcome (llm_app_responses_total) are observed"
        )
    tenants = {key[0]: cell for key, cell in folded(by_tenant, 0).items() if key[0] and cell.all_now >= 1}
    hurt = _hurt(tenants, whole, target.budgets.error_ratio or 0.01)
    found = Impact(
        failing=failing,
        slow=slow,
        spoiled=spoiled,
        tenants=len(tenants) or None,
        hurt=tuple(sorted(hurt)),
        burn_rate=burn_rate(failing.now, slow.now, target.budgets.error_ratio),
    )
    return (Finding.bad if found.is_felt else Finding.ok)("impact", found.sentence(), *_measures(found, hurt))


def _measures(found: Impact, hurt: Mapping[str, Compared]) -> list[Measure]:
    cells = {"failing_ratio": found.failing, "slow_ratio": found.slow, "spoiled_ratio": found.spoiled}
    measures = [measure(signal, cell, "ratio") for signal, cell in cells.items() if cell.now is not None]
    if found.tenants is not None:
        measures.append(Measure(signal="tenants_seen", value=float(found.tenants), unit="tenants"))
        measures.append(Measure(signal="tenants_hurt", value=float(len(hurt)), unit="tenants"))
    if found.burn_rate is not None:
        measures.append(Measure(signal="burn_rate", value=found.burn_rate, unit="x"))
    return measures + [measure("failing_ratio", cell, "ratio", ("tenant", name)) for name, cell in sorted(hurt.items())]


async def _requests(look: Look) -> dict[Key, Share]:
    """Failing requests by tenant; 4xx that are as usual are the callers' own."""
    for source in _SOURCES:
        observed = source.family in look.target.selectors
        cells = named(await look.rates(source.metric, source.family, by=source.by)) if observed else {}
        if cells:
            failed = shares(cells, look.frame, lambda status: kind_of(status) in _FAILED)
            refused = shares(cells, look.frame, lambda status: kind_of(status) == "4xx")
            return {key: _with_excess(cell, refused[key]) for key, cell in failed.items()}
    return {}


def _with_excess(failed: Share, refused: Share) -> Share:
    usual = refused.hits_then / refused.all_then * refused.all_now if refused.all_then else refused.hits_now
    return Share(
        hits_now=failed.hits_now + max(refused.hits_now - usual, 0.0),
        all_now=failed.all_now,
        hits_then=failed.hits_then,
        all_then=failed.all_then,
    )


def _hurt(tenants: Mapping[str, Share], whole: Share, allowed: float) -> dict[str, Compared]:
    """The tenants that fail more often than allowed, and than they did, beyond chance."""
    found = {}
    for name, cell in tenants.items():
        past = cell if cell.all_then >= ENOUGH else whole
        against = Share(hits_now=cell.hits_now, all_now=cell.all_now, hits_then=past.hits_then, all_then=past.all_then)
        ratio = against.compared(ENOUGH)
        is_more = (ratio.now or 0.0) >= max(allowed, 2 * (ratio.baseline or 0.0))
        if ratio.gain is not None and is_more and against.chance < SURE:
            found[name] = ratio
    return found


async def _slow(look: Look) -> Compared:
    """The share of requests beyond a promised time: end to end, or else until the first token; the worse of both."""
    promised = (
        ("application", DURATION, look.target.budgets.e2e_p95_s),
        ("serving", latency.TTFT, look.target.budgets.ttft_p95_s),
    )
    found = [
        await _slower(look, family, histogram, limit)
        for family, histogram, limit in promised
        if limit is not None and family in look.target.selectors
    ]
    return max((cell for cell in found if cell.now is not None), key=lambda cell: cell.now or 0.0, default=NOTHING)


async def _slower(look: Look, family: str, histogram: str, limit: float) -> Compared:
    cells = await _buckets(look, histogram, family)
    now: dict[float, float] = {}
    then: dict[float, float] = {}
    for (edge,), cell in cells.items():
        try:
            upper = float(edge)
        except ValueError:
            continue  # a bucket without a readable edge counts nowhere
        if math.isnan(upper):
            continue
        if cell.now is not None:
            now[upper] = cell.now
        if cell.baseline is not None:
            then[upper] = cell.baseline
    return Compared(now=share_above(now, limit), baseline=share_above(then, limit))


async def _buckets(look: Look, histogram: str, family: str) -> dict[Key, Compared]:
    """The rates of the buckets; where they are scraped so rarely that five minutes hold no pair, over twelve."""
    cells = await look.rates(f"{histogram}_bucket", family, by=("le",))
    if any(cell.now is not None for cell in cells.values()):
        return cells
    longer = await look.increase(f"{histogram}_bucket", family, by=("le",), window=_RARELY)
    return {key: Compared(now=longer.get(key), baseline=cell.baseline) for key, cell in cells.items()}


async def _spoiled(look: Look) -> Compared:
    """Answers that nobody can use: refused, empty, cut off, or in a format that nobody can read."""
    if "application" not in look.target.selectors:
        return NOTHING
    found = await asyncio.gather(
        *(cells_of(look, aspect, BY_VERSION) for aspect in (REFUSAL, EMPTY, TRUNCATED, FORMAT))
    )
    refused, empty, cut_off, valid = (service(cells) for cells in found)
    outcomes = Share(
        hits_now=refused.hits_now + empty.hits_now + cut_off.hits_now,
        all_now=refused.all_now,
        hits_then=refused.hits_then + empty.hits_then + cut_off.hits_then,
        all_then=refused.all_then,
    ).compared()
    formats = valid.compared()
    malformed = Compared(
        now=None if formats.now is None else 1 - formats.now,
        baseline=None if formats.baseline is None else 1 - formats.baseline,
    )
    known = [cell for cell in (outcomes, malformed) if cell.now is not None]
    return max(known, key=lambda cell: cell.gain or 0.0, default=NOTHING)
