"""
Do outside model providers answer?

Reads the providers' own error codes: 429, 5xx and overload, 401/403, used-up quota or credit, context length; and the
rate-limit headroom they report. Bad when a kind gained two percentage points of one provider's requests. A 429 with
headroom left or with a quota code is a billing limit, which no waiting cures.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import ENOUGH, NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry
from diagnostics.wording import compared, number

FAILURES = "litellm_deployment_failure_responses_total"
ASKED = "litellm_deployment_total_requests_total"
CODES = "llm_app_provider_errors_total"
HEADROOM = ("litellm_remaining_tokens_metric", "litellm_remaining_requests_metric")

_QUOTA = {"insufficient_quota", "credit_balance", "enforced_spend_limit_reached", "402", "billing_hard_limit_reached"}
_CONTEXT = {"context_length_exceeded", "context_length", "ContextWindowExceededError"}
_AUTH = {"401", "403", "authentication_error", "permission_error", "invalid_api_key"}
_LIMIT = {"429", "rate_limit_exceeded", "rate_limit_error", "rate_limit"}
_WORDS = {
    "provider_429_ratio": "rate-limited (429)",
    "provider_5xx_ratio": "failed at the provider (5xx)",
    "provider_auth_ratio": "refused for the credential (401, 403)",
    "provider_quota_ratio": "refused for quota or credit",
    "provider_context_ratio": "too long for the model",
}

_LIMIT_GAIN = 0.02

Cells = dict[tuple[str, ...], Compared]


@dataclass(frozen=True, kw_only=True)
class _Ratio:
    """One kind of failure at the provider that has it worst."""

    signal: str
    provider: str
    ratio: Compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    if not {"gateway", "application"} & target.selectors.keys():
        raise CannotTellError(
            "the service has neither a gateway nor an application selector, so providers are not observed"
        )
    asked, by_status, by_code, headroom = await asyncio.gather(
        _asked(look), _failures(look), _codes(look), _headroom(look)
    )
    if not by_status and not by_code and not asked:
        raise CannotTellError("no provider requests are counted: add the prometheus callback to the gateway")
    ratios = _ratios(asked, by_status, by_code, enough_per_s=ENOUGH / frame.recent.total_seconds())
    measures = [measure(one.signal, one.ratio, "ratio") for one in ratios]
    bad = [one for one in ratios if (one.ratio.gain or 0.0) >= _LIMIT_GAIN]
    measures += [measure(one.signal, one.ratio, "ratio", ("provider", one.provider)) for one in bad]
    measures += _headroom_left(headroom)
    if bad:
        said = (
            f"{one.provider}: {compared(one.ratio, 'ratio')}, of the requests are {_WORDS[one.signal]}." for one in bad
        )
        return Finding.bad("provider_errors", " ".join(said), *measures)
    most = max(one.ratio.now or 0.0 for one in ratios)
    text = f"Providers answer as usual: no kind of failure is above {number(most, 'ratio')} of the requests to one."
    return Finding.ok("provider_errors", text, *measures)


async def _asked(look: Look) -> Cells:
    """Requests per second by provider."""
    if "gateway" not in look.target.selectors:
        return {}
    return await look.rates(ASKED, "gateway", by=("api_provider",))


async def _failures(look: Look) -> Cells:
    if "gateway" not in look.target.selectors:
        return {}
    return await look.rates(FAILURES, "gateway", by=("api_provider", "exception_status"))


async def _codes(look: Look) -> Cells:
    """Failures by the provider's own code, as the application counts them."""
    if "application" not in look.target.selectors:
        return {}
    return await look.rates(CODES, "application", by=("provider", "code"))


async def _headroom(look: Look) -> Cells:
    """Tokens or requests left by provider; of its models the one that has least."""
    if "gateway" not in look.target.selectors:
        return {}
    name = await look.exported("gateway", *HEADROOM)
    if name is None:
        return {}
    return await look.levels(name, "gateway", by=("api_provider",), aggregation=Aggregation.MIN)


def _headroom_left(cells: Cells) -> list[Measure]:
    """The provider that lost the largest part of its usual headroom, for the service and by its name."""
    known = {key[0]: cell.factor for key, cell in cells.items() if cell.factor is not None}
    if not known:
        return []
    provider = min(known, key=lambda name: known[name])
    left = Measure(signal="provider_headroom", value=known[provider], baseline=1.0, unit="ratio")
    return [left, replace(left, scope=(("provider", provider),))] if provider and known[provider] < 1 else [left]


def _ratios(asked: Cells, by_status: Cells, by_code: Cells, *, enough_per_s: float) -> list[_Ratio]:
    """
    For each kind of failure the provider that has it worst, as a share of its own requests.

    Of a provider whose requests are too few to say, or not counted, it is the share of all provider requests.
    """
    failures = _failures_by_signal(by_status, by_code)
    everything = total(asked) if asked else total(failures)
    ratios = []
    for signal in _WORDS:
        worst = _Ratio(signal=signal, provider="", ratio=share(NOTHING, everything))
        for (provider, kind), cell in sorted(failures.items(), key=lambda entry: entry[0]):
            own = asked.get((provider,), NOTHING)
            ratio = share(cell, own if (own.now or 0.0) >= enough_per_s else everything)
            if kind == signal and (not worst.provider or (ratio.gain or 0.0) > (worst.ratio.gain or 0.0)):
                worst = _Ratio(signal=signal, provider=provider, ratio=ratio)
        ratios.append(worst)
    return ratios


def _failures_by_signal(by_status: Cells, by_code: Cells) -> Cells:
    """
    Failures per second by provider and signal, as the application's codes or the gateway's statuses tell more of them.

    Behind a fallback the application sees none. A used-up quota is a 429 to the gateway, so what the codes call quota
    is no rate limit.
    """
    codes, statuses = _by_signal(by_code), _by_signal(by_status)
    for (provider, signal), cell in codes.items():
        limited = (provider, "provider_429_ratio")
        if signal == "provider_quota_ratio" and limited in statuses:
            statuses[limited] = _less(statuses[limited], cell)
    keys = {**codes, **statuses}
    return {
        key: max(codes.get(key, NOTHING), statuses.get(key, NOTHING), key=lambda cell: cell.now or 0.0) for key in keys
    }


def _by_signal(cells: Cells) -> Cells:
    sums: dict[tuple[str, ...], Cells] = {}
    for (provider, code), cell in cells.items():
        signal = signal_of(code)
        if signal is not None:
            sums.setdefault((provider, signal), {})[(code,)] = cell
    return {key: total(parts) for key, parts in sums.items()}


def _less(cell: Compared, part: Compared) -> Compared:
    def rest(whole: float | None, taken: float | None) -> float | None:
        return None if whole is None else max(0.0, whole - (taken or 0.0))

    return Compared(now=rest(cell.now, part.now), baseline=rest(cell.baseline, part.baseline))


def signal_of(code: str) -> str | None:
    """The signal that a provider's code counts for; None for one that we do not know."""
    if code in _QUOTA:
        return "provider_quota_ratio"
    if code in _CONTEXT:
        return "provider_context_ratio"
    if code in _AUTH:
        return "provider_auth_ratio"
    if code in _LIMIT:
        return "provider_429_ratio"
    is_failure = code in {"overloaded_error", "api_error"} or (len(code) == 3 and code.startswith("5"))
    return "provider_5xx_ratio" if is_failure else None
