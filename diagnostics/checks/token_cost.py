"""
What does the service spend, and on what?

Reads dollars per hour, tokens per second, dollars per thousand tokens, and each model's part of them. Bad when the
spend passes the budget, or grew by 80 % over the baseline. The rise is split into more requests, more tokens per
request, dearer models in the mix and dearer tokens of the same models. More tokens are usage (`consumers` says whose);
a dearer mix with flat tokens is a fallback or a routing change, and the routes that moved are named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics import spend as spending
from diagnostics.checks.consumers import SOURCES
from diagnostics.checks.traffic import REQUESTS
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, total
from diagnostics.proportions import summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared, number

SPEND = (
    ("application", "llm_app_cost_usd_total", "model"),
    ("gateway", "litellm_spend_metric_total", "model"),
)

_GREW = 1.8
_EXPLAINED = 1.2  # a smaller rise is not worth a reason
_DEARER = 1.2


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    spend, tokens, requests = await asyncio.gather(_spend(look), _tokens(look), _requests(look))
    served = total(tokens) if tokens else await _generated(look)
    measures = [] if served == NOTHING else [measure("tokens_per_s", served, "tokens/s")]
    hourly = spending.hourly(total(spend))
    if hourly.now is None:
        reason = "no spend is exported: neither llm_app_cost_usd_total nor litellm_spend_metric_total"
        return Finding.unknown("token_cost", reason, *measures)
    measures.append(measure("cost_per_hour", hourly, "usd/h"))
    text = f"Spend is {compared(hourly, 'usd/h')}."
    if tokens:  # engines count only generated tokens, which no price refers to alone
        said, more = await _price(look, spend, tokens)
        text, measures = text + said, measures + more
    said, more = _reasons(spend, tokens, requests)
    measures += more
    if hourly.factor is not None and hourly.factor >= _EXPLAINED:
        text += said
    budget = target.budgets.cost_usd_per_hour
    if budget is not None and hourly.now > budget:
        return Finding.bad("token_cost", f"{text} {number(budget, 'usd/h')} was promised.", *measures)
    has_grown = hourly.factor is not None and hourly.factor >= _GREW
    return (Finding.bad if has_grown else Finding.ok)("token_cost", text, *measures)


async def _spend(look: Look) -> dict[Key, Compared]:
    """Dollars per second by model, from the first source that has them."""
    if not any(family in look.target.selectors for family, _, _ in SPEND):
        raise CannotTellError("the service has neither an application nor a gateway selector, so cost is not observed")
    for family, metric, label in SPEND:
        cells = await look.rates(metric, family, by=(label,)) if family in look.target.selectors else {}
        if cells:
            return cells
    return {}


async def _tokens(look: Look) -> dict[Key, Compared]:
    """Tokens per second by model, from the first source that has them; the same question as `consumers` asks."""
    for source in SOURCES:
        observed = source.family in look.target.selectors
        cells = await look.rates(source.metric, source.family, by=source.labels) if observed else {}
        if cells:
            return summed(cells, len(source.labels) - 1)
    return {}


async def _generated(look: Look) -> Compared:
    return await look.rate("vllm:generation_tokens_total", "serving") if "serving" in look.target.selectors else NOTHING


async def _requests(look: Look) -> Compared:
    return await look.rate(REQUESTS, "application") if "application" in look.target.selectors else NOTHING


async def _price(
    look: Look, spend: Mapping[Key, Compared], tokens: Mapping[Key, Compared]
) -> tuple[str, list[Measure]]:
    price = spending.per_1k(total(spend), total(tokens))
    measures = [measure("cost_per_1k_tokens", price, "usd")]
    moved = spending.mix_shift(tokens)
    if moved is not None:
        measures.append(Measure(signal="model_mix", value=moved, baseline=0.0, unit="ratio"))
    if price.factor is not None and price.factor >= _DEARER and "application" in look.target.selectors:
        measures += await _dearer_routes(look, spending.prices(spend, tokens))
    thousand = spending.per_1k(price, Compared(now=1.0, baseline=1.0))
    return f" Per million tokens: {compared(thousand, 'usd')}.", measures


async def _dearer_routes(look: Look, prices: Mapping[str, Compared]) -> list[Measure]:
    """The routes whose requests moved to models with a higher price per token."""
    usual = {
        model: price
        for model, cell in prices.items()
        if (price := cell.now if cell.now is not None else cell.baseline) is not None
    }
    cells = summed(await look.rates(REQUESTS, "application", by=("route", "model", "status")), 0, 1)
    found = []
    for route in sorted({route for route, _ in cells if route}):
        own = {model: cell for (name, model), cell in cells.items() if name == route and model in usual}
        asked = total({(model,): cell for model, cell in own.items()})
        if asked.now and asked.baseline:
            paid = Compared(
                now=sum(usual[model] * (cell.now or 0.0) for model, cell in own.items()) / asked.now,
                baseline=sum(usual[model] * (cell.baseline or 0.0) for model, cell in own.items()) / asked.baseline,
            )
            if paid.factor is not None and paid.factor >= _DEARER:
                found.append(measure("cost_per_1k_tokens", paid, "usd", ("route", route)))
    return found


def _reasons(
    spend: Mapping[Key, Compared], tokens: Mapping[Key, Compared], requests: Compared
) -> tuple[str, list[Measure]]:
    parts = spending.split(spend, tokens, requests)
    if parts is None:
        return "", []
    named = {
        "cost_of_more_requests": parts.requests,
        "cost_of_more_tokens_per_request": parts.tokens_per_request,
        "cost_of_model_mix": parts.mix,
        "cost_of_dearer_tokens": parts.price,
    }
    measures = [Measure(signal=signal, value=value, unit="usd/h") for signal, value in named.items()]
    return f" The rise is {parts.reason()}.", measures
