"""What a finding says of slow providers, and of the callers whose requests got slower than everybody else's."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostics.attribution import Apart
from diagnostics.checks.verdicts import measure
from diagnostics.findings import Measure
from diagnostics.latency import Breakdown
from diagnostics.look import Compared, Look
from diagnostics.request_latency import REQUESTS, Along, ProviderLatency, along, exported
from diagnostics.wording import compared, number

_NAMED = 3
_LEAST_MOVED = 0.05
"""Seconds of traffic that moved which are worth a sentence."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """Sentences, empty where there is nothing to say, and the measures behind them."""

    words: str = ""
    measures: tuple[Measure, ...] = ()


def providers(result: Breakdown) -> Said:
    """How long outside providers take, by name those that got slower; nothing where nobody tells providers."""
    called = result.called
    if called is None or not called.providers:
        return Said()
    slower = called.slower
    measures = [
        measure("provider_latency", called.together.mean, "s"),
        measure("provider_share", _share(result, called), "ratio"),
        *(measure("provider_latency", called.providers[name].mean, "s", ("provider", name)) for name in slower),
        *(
            measure("provider_first_token", called.first_tokens[name].mean, "s", ("provider", name))
            for name in slower
            if name in called.first_tokens
        ),
    ]
    words = " ".join(_slow_provider(name, result, called) for name in slower[:_NAMED])
    return Said(words=words, measures=tuple(measures))


async def whose_got_slower(look: Look, result: Breakdown) -> Said:
    """
    The providers, models, keys, tenants, routes and prompt versions that got slower than the others.

    Of whole requests where the service got slower and they are timed by any of these, else of the calls of models.
    """
    timed = await exported(look, REQUESTS) if result.is_regression else None
    called = result.called
    found = [] if timed is None else await along(look, timed)
    signal = "request_time"
    if not found and called is not None:
        found, signal = await along(look, called.timed), "provider_latency"
    sentences = [sentence for one in found if (sentence := _sentence(one))]
    measures = [
        measure(signal, cell.mean, "s", (one.dimension, cell.value)) for one in found for cell in one.apart[:_NAMED]
    ]
    return Said(words=" ".join(sentences), measures=tuple(measures))


def _slow_provider(name: str, result: Breakdown, called: ProviderLatency) -> str:
    mean, share = called.providers[name].mean, _share(result, called)
    first = called.first_tokens.get(name)
    until = f" (first token after {compared(first.mean, 's')})" if first is not None and first.mean.now else ""
    part = f"providers' part of {_of(result)} is {compared(share, 'ratio')}"
    return f"Calls of {name} take {compared(mean, 's')}{until}; {part}."


def _of(result: Breakdown) -> str:
    return "a request's time" if _is_a_stage(result) else "the time of all calls of models"


def _is_a_stage(result: Breakdown) -> bool:
    return any(stage.stage == "provider" for stage in result.stages)


def _share(result: Breakdown, called: ProviderLatency) -> Compared:
    """The part that providers have of a request's time; beside an engine, of the time of all calls of models."""
    mine, whole = called.together, called.whole
    if _is_a_stage(result):
        return Compared(
            now=_over(mine.mean.now, result.total.now), baseline=_over(mine.mean.baseline, result.total.baseline)
        )
    return Compared(now=_over(mine.sum_now, whole.sum_now), baseline=_over(mine.sum_then, whole.sum_then))


def _over(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _sentence(one: Along) -> str:
    what = one.dimension.replace("_", " ")
    if one.effects.is_mix and one.effects.mix >= _LEAST_MOVED:
        return f"Mostly traffic that moved between {what}s ({number(one.effects.mix, 's')}); none got slower by itself."
    if not one.apart:
        return ""
    named = ", ".join(_named(cell) for cell in one.apart[:_NAMED])
    more = f" and {len(one.apart) - _NAMED} more" if len(one.apart) > _NAMED else ""
    moved = f"; traffic that moved adds {number(one.effects.mix, 's')}" if one.effects.mix >= _LEAST_MOVED else ""
    return f"Slower than the others: {what} {named}{more}{moved}."


def _named(cell: Apart) -> str:
    return f"{cell.value} ({compared(cell.mean, 's')}, {number(cell.carried, 'ratio')} of what got slower)"
