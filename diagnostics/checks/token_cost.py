"""
What does the service spend, and on what?

Reads dollars per hour, tokens per second and dollars per thousand tokens. Bad when the spend passes the budget, or
grew by 80 % over the baseline. Spend that grows with the tokens is usage; spend per token that grows is a dearer model
or a lost cache discount.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import NOTHING, CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared, number

SPEND = (("application", "llm_app_cost_usd_total"), ("gateway", "litellm_spend_metric_total"))
TOKENS = (
    ("application", "llm_app_tokens_total"),
    ("gateway", "litellm_total_tokens_metric_total"),
    ("serving", "vllm:generation_tokens_total"),
)


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    (_, per_s), (kind, tokens) = await asyncio.gather(_first(look, SPEND), _first(look, TOKENS))
    measures = [] if tokens == NOTHING else [measure("tokens_per_s", tokens, "tokens/s")]
    if per_s.now is None:
        reason = "no spend is exported: neither llm_app_cost_usd_total nor litellm_spend_metric_total"
        return Finding.unknown("token_cost", reason, *measures)
    hourly = Compared(now=_times(per_s.now, 3600), baseline=_times(per_s.baseline, 3600))
    measures.append(measure("cost_per_hour", hourly, "usd/h"))
    text = f"Spend is {compared(hourly, 'usd/h')}."
    if tokens != NOTHING and kind != "serving":  # engines count only generated tokens, which no price refers to alone
        price = Compared(now=_per_1k(per_s.now, tokens.now), baseline=_per_1k(per_s.baseline, tokens.baseline))
        measures.append(measure("cost_per_1k_tokens", price, "usd"))
        per_million = Compared(now=_times(price.now, 1000), baseline=_times(price.baseline, 1000))
        text += f" Per million tokens: {compared(per_million, 'usd')}."
    budget = target.budgets.cost_usd_per_hour
    if budget is not None and (hourly.now or 0.0) > budget:
        return Finding.bad("token_cost", f"{text} {number(budget, 'usd/h')} was promised.", *measures)
    has_grown = hourly.factor is not None and hourly.factor >= 1.8
    return (Finding.bad if has_grown else Finding.ok)("token_cost", text, *measures)


async def _first(look: Look, sources: tuple[tuple[str, str], ...]) -> tuple[str, Compared]:
    """The rate per second from the first source that has it, and that source's family."""
    for family, metric in sources:
        if family in look.target.selectors and await look.exported(family, metric):
            return family, await look.rate(metric, family)
    if not any(family in look.target.selectors for family, _ in sources):
        raise CannotTellError("the service has neither an application nor a gateway selector, so cost is not observed")
    return "", NOTHING


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _per_1k(spend: float | None, tokens: float | None) -> float | None:
    return None if spend is None or not tokens else 1000 * spend / tokens
