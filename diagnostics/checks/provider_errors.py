"""
Do outside model providers answer?

Reads the providers' own error codes: 429, 5xx and overload, 401/403, used-up quota or credit, context length; and the
rate-limit headroom they report. Bad when a kind gained two percentage points of the provider's requests. A 429 with
headroom left or with a quota code is a billing limit, which no waiting cures.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry
from diagnostics.wording import compared

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

Cells = dict[tuple[str, ...], Compared]


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
    ratios = _ratios(asked, by_status, by_code)
    measures = [measure(signal, ratio, "ratio", *scope) for signal, ratio, scope in ratios]
    if headroom.factor is not None:
        measures.append(Measure(signal="provider_headroom", value=headroom.factor, baseline=1.0, unit="of normal"))
    complaints = [
        f"{compared(ratio, 'ratio')} of provider requests are {_WORDS[signal]}."
        for signal, ratio, scope in ratios
        if not scope and (ratio.gain or 0.0) >= 0.02
    ]
    if complaints:
        return Finding.bad("provider_errors", " ".join(complaints), *measures)
    return Finding.ok("provider_errors", "Providers answer as usual.", *measures)


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


async def _headroom(look: Look) -> Compared:
    if "gateway" not in look.target.selectors:
        return NOTHING
    name = await look.exported("gateway", *HEADROOM)
    return NOTHING if name is None else await look.level(name, "gateway", aggregation=Aggregation.MIN)


def _ratios(asked: Cells, by_status: Cells, by_code: Cells) -> list[tuple[str, Compared, tuple[tuple[str, str], ...]]]:
    """Each kind of failure over all provider requests, and for its provider where it stands out."""
    failures = by_code or by_status
    whole = total(asked) if asked else total(failures)
    ratios: list[tuple[str, Compared, tuple[tuple[str, str], ...]]] = []
    for signal in _WORDS:
        cells = {key: cell for key, cell in failures.items() if signal_of(key[1]) == signal}
        ratio = share(total(cells), whole)
        ratios.append((signal, ratio, ()))
        if (ratio.gain or 0.0) >= 0.02:
            provider = max(cells.items(), key=lambda entry: entry[1].now or 0.0)[0][0]
            ratios.append((signal, ratio, (("provider", provider),)))
    return ratios


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
