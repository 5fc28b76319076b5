"""
Where the time of a request goes, and which stage made it slower.

Works on means, since means add up over stages and quantiles do not. The identity: a request's time is gateway +
guardrail + retrieval + tools + [engine: frontend + queue + prefill + decode], where frontend is what is left of the
time to first token after queue and prefill. A service without an engine of its own has the provider's calls there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnostics.diagnosis import Stage
from diagnostics.look import NOTHING, CannotTellError, Compared, Look
from diagnostics.minutes import difference, error_of_change, minutes
from diagnostics.request_latency import ProviderLatency, provider_latency

TTFT = "vllm:time_to_first_token_seconds"
ITL = "vllm:inter_token_latency_seconds"
QUEUE = "vllm:request_queue_time_seconds"
PREFILL = "vllm:request_prefill_time_seconds"
DECODE = "vllm:request_decode_time_seconds"
PROMPT_TOKENS = "vllm:request_prompt_tokens"
OUTPUT_TOKENS = "vllm:request_generation_tokens"
PREFIX_HITS = "vllm:prefix_cache_hits_total"
PREFIX_QUERIES = "vllm:prefix_cache_queries_total"

LEAST_CHANGE = 0.10
"""A total that moved by less than this part of its baseline is no regression, whatever its stages do."""

LEAST_SHARE = 0.5
"""A stage is named as the reason when it carries at least this share of the change."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A reason within one stage, in seconds of that stage's change."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """
    The stages now and in the baseline, judged twice: up to the first token, and over the whole request.

    A `..._reason` is the stage that carries the change, None when there is no regression or no stage carries half.
    Both also need the change to be twice its standard error, which `standard_error_s` holds for the time to first
    token; None when there are too few minutes. `called` is how long calls of models take, where somebody times them:
    the stage `provider` of a service without an engine, and beside the stages of one that has its own.
    """

    stages: tuple[Stage, ...]
    first_token: Compared
    first_token_reason: str | None
    total: Compared
    total_reason: str | None
    is_regression: bool
    standard_error_s: float | None
    prefill_parts: tuple[Part, ...] = ()
    decode_parts: tuple[Part, ...] = ()
    called: ProviderLatency | None = None


@dataclass(frozen=True, kw_only=True)
class _Engine:
    """The engine's own means, which the stages are derived from."""

    ttft: Compared
    queue: Compared
    prefill: Compared
    decode: Compared
    itl: Compared
    prompt_tokens: Compared
    output_tokens: Compared
    hit_ratio: Compared


async def breakdown(look: Look) -> Breakdown:
    """
    Break the recent time per request down against the baseline.

    Raises CannotTellError where neither an engine nor calls of a provider are timed.
    """
    called, has_engine = await asyncio.gather(provider_latency(look), _has_engine(look))
    if not has_engine and called is not None:
        return await _without_engine(look, called)
    await look.require("serving", f"{TTFT}_count", f"{QUEUE}_count")
    engine, outside, errors = await asyncio.gather(_engine(look), _outside(look), _errors(look))
    inside = {
        "frontend": frontend(engine.ttft, engine.queue, engine.prefill),
        "queue": engine.queue,
        "prefill": engine.prefill,
        "decode": engine.decode,
    }
    if all(cell.now is None for cell in inside.values()):
        raise CannotTellError(
            "fewer than 30 requests finished in the recent window, so there is no mean to break down; "
            "an engine that hangs finishes none (see engine_progress)"
        )
    cells = {**outside, **inside}
    total, stages = shares(cells, errors)
    first_token, until_first = shares({name: cell for name, cell in cells.items() if name != "decode"}, errors)
    is_late = is_regression(first_token, errors.get("ttft"))
    is_slow = is_regression(total, _together(errors, "ttft", "decode"))
    return Breakdown(
        stages=stages,
        first_token=first_token,
        first_token_reason=dominant(until_first) if is_late else None,
        total=total,
        total_reason=dominant(stages) if is_slow else None,
        is_regression=is_late or is_slow,
        standard_error_s=errors.get("ttft"),
        prefill_parts=split_prefill(engine.prefill, engine.prompt_tokens, engine.hit_ratio),
        decode_parts=split_decode(engine.decode, engine.output_tokens, engine.itl),
        called=called,
    )


async def _has_engine(look: Look) -> bool:
    """Whether an engine of the service's own times its requests; TGI for one knows no first token."""
    if "serving" not in look.target.selectors:
        return False
    return await look.exported("serving", f"{TTFT}_count", f"{QUEUE}_count") is not None


async def _without_engine(look: Look, called: ProviderLatency) -> Breakdown:
    """The stages of a service that has its answers from providers: what is around the call, and the call."""
    cell = called.together
    if cell.mean.now is None:
        raise CannotTellError("fewer than 30 calls of a model ended in the recent window, so there is no mean")
    cells = {**await _outside(look), "provider": cell.mean}
    errors = {} if cell.error is None else {"provider": cell.error}
    total, stages = shares(cells, errors)
    is_slow = is_regression(total, cell.error)
    return Breakdown(
        stages=stages,
        first_token=NOTHING,
        first_token_reason=None,
        total=total,
        total_reason=dominant(stages) if is_slow else None,
        is_regression=is_slow,
        standard_error_s=None,
        called=called,
    )


def frontend(ttft: Compared, queue: Compared, prefill: Compared) -> Compared:
    """What is left of the time to first token after queue and prefill: tokenisation and the API server's CPU."""

    def left(first: float | None, waiting: float | None, computing: float | None) -> float | None:
        if first is None or waiting is None or computing is None:
            return None
        return max(first - waiting - computing, 0.0)

    return Compared(
        now=left(ttft.now, queue.now, prefill.now), baseline=left(ttft.baseline, queue.baseline, prefill.baseline)
    )


def split_prefill(prefill: Compared, prompt_tokens: Compared, hit_ratio: Compared) -> tuple[Part, ...]:
    """
    Split prefill's change into longer prompts, fewer cache hits and slower compute (seconds each, summing to it).

    Prefill time is close to proportional to the tokens it must compute, prompt x (1 - hit ratio); what that does not
    explain is compute. Empty when a number is missing.
    """
    known = (prefill.now, prefill.baseline, prompt_tokens.now, prompt_tokens.baseline)
    if None in known or hit_ratio.now is None or hit_ratio.baseline is None:
        return ()
    now, before, tokens_now, tokens_before = (float(value) for value in known if value is not None)
    computed_before = tokens_before * (1 - hit_ratio.baseline)
    if computed_before <= 0:
        return ()
    per_token = before / computed_before
    longer = per_token * (tokens_now - tokens_before) * (1 - hit_ratio.baseline)
    fewer_hits = per_token * tokens_now * (hit_ratio.baseline - hit_ratio.now)
    return (
        Part(name="longer prompts", seconds=longer),
        Part(name="fewer cache hits", seconds=fewer_hits),
        Part(name="slower compute", seconds=now - before - longer - fewer_hits),
    )


def split_decode(decode: Compared, output_tokens: Compared, itl: Compared) -> tuple[Part, ...]:
    """Split decode's change into longer outputs (at the old pace) and slower tokens; empty when a number is missing."""
    numbers = (output_tokens.now, output_tokens.baseline, itl.now, itl.baseline, decode.now, decode.baseline)
    if any(value is None for value in numbers):
        return ()
    tokens_now, tokens_before, pace_now, pace_before, *_ = (float(value) for value in numbers if value is not None)
    return (
        Part(name="longer outputs", seconds=(tokens_now - tokens_before) * pace_before),
        Part(name="slower tokens", seconds=(pace_now - pace_before) * tokens_now),
    )


def decode_of(itl: Compared, output_tokens: Compared) -> Compared:
    """The decode time of an engine that does not time it: as many steps as there are tokens after the first."""

    def taken(step: float | None, tokens: float | None) -> float | None:
        return None if step is None or tokens is None else step * max(tokens - 1.0, 0.0)

    return Compared(now=taken(itl.now, output_tokens.now), baseline=taken(itl.baseline, output_tokens.baseline))


async def hit_ratio(look: Look, by: tuple[str, ...] = ()) -> dict[tuple[str, ...], Compared]:
    """Prefix cache hit ratio per group: hit tokens over asked tokens."""
    hits, queries = await asyncio.gather(
        look.rates(PREFIX_HITS, "serving", by=by), look.rates(PREFIX_QUERIES, "serving", by=by)
    )
    cells = {}
    for key, asked in queries.items():
        hit = hits.get(key, NOTHING)
        cells[key] = Compared(now=_over(hit.now, asked.now), baseline=_over(hit.baseline, asked.baseline))
    return cells


async def _engine(look: Look) -> _Engine:
    names = (TTFT, QUEUE, PREFILL, DECODE, ITL, PROMPT_TOKENS, OUTPUT_TOKENS)
    means = await asyncio.gather(*(look.mean(name, "serving") for name in names))
    hits = (await hit_ratio(look)).get((), NOTHING)
    ttft, queue, prefill, decode, itl, prompt_tokens, output_tokens = means
    return _Engine(
        ttft=ttft,
        queue=queue,
        prefill=prefill,
        decode=decode_of(itl, output_tokens) if decode == NOTHING else decode,
        itl=itl,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        hit_ratio=hits,
    )


async def _outside(look: Look) -> dict[str, Compared]:
    """The stages around the engine, from the application's own histogram or else from the gateway's."""
    stages: dict[str, Compared] = {}
    if "application" in look.target.selectors:
        cells = await look.means("llm_app_stage_seconds", "application", by=("stage",))
        for (stage,), cell in cells.items():
            name = {"guardrail_in": "guardrail", "guardrail_out": "guardrail"}.get(stage, stage)
            if name in {"gateway", "guardrail", "retrieval", "tool"}:
                stages[name] = _plus(stages.get(name), cell)
    if "gateway" in look.target.selectors:
        if "gateway" not in stages:
            stages["gateway"] = await look.mean("litellm_overhead_latency_metric", "gateway")
        if "guardrail" not in stages:
            stages["guardrail"] = await look.mean("litellm_guardrail_latency_seconds", "gateway")
    order = ("gateway", "guardrail", "retrieval", "tool")
    return {name: stages[name] for name in order if name in stages and stages[name] != NOTHING}


async def _errors(look: Look) -> dict[str, float]:
    """The standard error of each stage's change, and of the time to first token's; unknown ones are left out."""
    found = await minutes(look, {"ttft": TTFT, "queue": QUEUE, "prefill": PREFILL, "decode": DECODE})
    found["frontend"] = difference(found["ttft"], found["queue"], found["prefill"])
    errors = {name: error_of_change(points, look) for name, points in found.items()}
    return {name: error for name, error in errors.items() if error is not None}


def _together(errors: Mapping[str, float], *names: str) -> float | None:
    """The error of a sum of stages that scatter independently; None when nothing is known."""
    known = [errors[name] for name in names if name in errors]
    return math.hypot(*known) if known else None


def shares(cells: dict[str, Compared], errors: Mapping[str, float]) -> tuple[Compared, tuple[Stage, ...]]:
    """Each stage's share of the change; where stages moved both ways, of the sum of all moves."""
    both = {name: cell for name, cell in cells.items() if cell.gain is not None}
    moved = sum(abs(cell.gain or 0.0) for cell in both.values())
    total = Compared(
        now=sum(cell.now or 0.0 for cell in both.values()) if both else None,
        baseline=sum(cell.baseline or 0.0 for cell in both.values()) if both else None,
    )
    stages = tuple(
        Stage(
            stage=name,
            now_s=cell.now,
            baseline_s=cell.baseline,
            share=cell.gain / moved if cell.gain is not None and moved > 0 else None,
            error_s=errors.get(name),
        )
        for name, cell in cells.items()
    )
    return total, stages


def is_regression(total: Compared, error: float | None) -> bool:
    if total.gain is None or not total.baseline:
        return False
    return total.gain > max(LEAST_CHANGE * total.baseline, 2 * (error or 0.0))


def dominant(stages: Sequence[Stage]) -> str | None:
    known = [stage for stage in stages if stage.share is not None]
    if not known:
        return None
    top = max(known, key=lambda stage: stage.share or 0.0)
    gain = (top.now_s or 0.0) - (top.baseline_s or 0.0)
    is_sure = gain > 2 * (top.error_s or 0.0)
    return top.stage if is_sure and (top.share or 0.0) >= LEAST_SHARE else None


def _plus(first: Compared | None, second: Compared) -> Compared:
    if first is None:
        return second
    return Compared(now=_sum(first.now, second.now), baseline=_sum(first.baseline, second.baseline))


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)


def _over(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
