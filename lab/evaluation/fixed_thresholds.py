"""
The baseline of fixed thresholds: the ten rules and defaults of vllm-doctor 0.6.0, each read as the cause it hints at.

It knows neither baselines of the service nor GPUs, changes, quality or security. A rule whose metric is not there does
not fire, which is what a threshold does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from diagnostics import latency
from diagnostics.causes.knowledge import Knowledge
from diagnostics.diagnosis import Frame
from diagnostics.look import CannotTellError, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry, TelemetryError
from lab.evaluation.cases import NONE
from lab.evaluation.scoring import Answer

_STRONG, _WEAK = 0.8, 0.4
_FINISHED = "vllm:request_success_total"

Strength = float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One question with fixed limits, answered by how strongly it fires (0: not), and the cause it hints at."""

    cause: str
    fires: Callable[[Look], Awaitable[Strength]]


async def fixed_thresholds(target: Target, telemetry: Telemetry, frame: Frame, known: Knowledge) -> Answer:
    """The causes that the firing rules hint at; `none` when no rule fires."""
    look = Look(target, telemetry, frame)
    rules = [rule for rule in RULES if rule.cause in known.causes]
    votes: dict[str, float] = {}
    for rule, strength in zip(rules, await asyncio.gather(*(_ask(rule, look) for rule in rules)), strict=True):
        if strength:
            votes[rule.cause] = max(votes.get(rule.cause, 0.0), strength)
    whole = max(1.0, sum(votes.values()))
    ranked = sorted(votes, key=lambda cause: -votes[cause])
    return Answer(ranked=tuple((cause, votes[cause] / whole) for cause in ranked) or ((NONE, 1.0),))


async def _ask(rule: Rule, look: Look) -> Strength:
    try:
        return await rule.fires(look)
    except (CannotTellError, TelemetryError):
        return 0.0


async def _queue(look: Look) -> Strength:
    waiting, running = await asyncio.gather(
        look.level("vllm:num_requests_waiting", "serving", aggregation=Aggregation.SUM),
        look.level("vllm:num_requests_running", "serving", aggregation=Aggregation.SUM),
    )
    return _STRONG if (waiting.now or 0) > 5 and (running.now or 0) > 50 else 0.0


async def _queue_time(look: Look) -> Strength:
    return await _above(look, latency.QUEUE, 1.0)


async def _cache_full(look: Look) -> Strength:
    return _WEAK if await _fullest(look) >= 0.90 else 0.0


async def _preemption(look: Look) -> Strength:
    rate, fullest = await asyncio.gather(look.rate("vllm:num_preemptions_total", "serving"), _fullest(look))
    return _STRONG if (rate.now or 0) > 0 and fullest >= 0.80 else 0.0


async def _errors(look: Look) -> Strength:
    failed, whole = await asyncio.gather(
        look.rate("http_requests_total", "serving", where={"status": "~5.."}),
        look.rate("http_requests_total", "serving"),
    )
    return _STRONG if whole.now and (failed.now or 0) / whole.now >= 0.05 else 0.0


async def _aborts(look: Look) -> Strength:
    aborted, whole = await asyncio.gather(
        look.rate(_FINISHED, "serving", where={"finished_reason": "abort"}), look.rate(_FINISHED, "serving")
    )
    return _STRONG if whole.now and (aborted.now or 0) / whole.now >= 0.10 else 0.0


async def _first_token(look: Look) -> Strength:
    return _WEAK * bool(await _above(look, latency.TTFT, 2.0))


async def _per_token(look: Look) -> Strength:
    return await _above(look, latency.ITL, 0.2)


async def _prefix(look: Look) -> Strength:
    hits, queries = await asyncio.gather(
        look.rate(latency.PREFIX_HITS, "serving"), look.rate(latency.PREFIX_QUERIES, "serving")
    )
    if not queries.now:
        return 0.0
    ratio = (hits.now or 0) / queries.now
    return _STRONG if ratio < 0.2 else _WEAK if ratio < 0.5 else 0.0


async def _imbalance(look: Look) -> Strength:
    pods = await look.levels("vllm:num_requests_running", "serving", by=("pod",))
    running = [cell.now for cell in pods.values() if cell.now is not None]
    if len(running) < 2 or sum(running) < 5:
        return 0.0
    return _STRONG if max(running) >= 2 * max(min(running), 1.0) else 0.0


async def _above(look: Look, histogram: str, limit_s: float) -> Strength:
    p95 = await look.p95(histogram, "serving")
    return _STRONG if p95.now is not None and p95.now >= limit_s else 0.0


async def _fullest(look: Look) -> float:
    usage = await look.level("vllm:kv_cache_usage_perc", "serving", aggregation=Aggregation.MAX)
    return usage.now or 0.0


RULES = (
    Rule(cause="S01", fires=_queue),
    Rule(cause="S01", fires=_queue_time),
    Rule(cause="S03", fires=_cache_full),
    Rule(cause="S03", fires=_preemption),
    Rule(cause="S05", fires=_errors),
    Rule(cause="I10", fires=_aborts),
    Rule(cause="S02", fires=_first_token),
    Rule(cause="S09", fires=_per_token),
    Rule(cause="S04", fires=_prefix),
    Rule(cause="S07", fires=_imbalance),
)
