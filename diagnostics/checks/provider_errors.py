"""
Do outside model providers answer?

Reads the providers' own error codes: 429, 5xx and overload, 401/403, used-up quota or credit, context length; the
rate-limit headroom they report, deployments that the gateway takes for dead, and what its fallbacks take over. Bad when
a kind gained two percentage points of one provider's requests, beyond chance. A 429 with headroom left or with a quota
code is a billing limit, which no waiting cures. The accounts, keys and models that carry the failures are named.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from diagnostics.checks.traffic import REQUESTS
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import ENOUGH, NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.proportions import SURE, chance_of_shares, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Telemetry
from diagnostics.wording import compared, number

FAILURES = "litellm_deployment_failure_responses_total"
ASKED = "litellm_deployment_total_requests_total"
CODES = "llm_app_provider_errors_total"
STATE = "litellm_deployment_state"
FALLBACKS = "litellm_deployment_successful_fallbacks_total"
HEADROOM = ("litellm_remaining_tokens_metric", "litellm_remaining_requests_metric")

_QUOTA = {
    "402",
    "insufficient_quota",
    "credit_balance",
    "credit_balance_too_low",
    "enforced_spend_limit_reached",
    "billing_hard_limit_reached",
    "billing_error",
    "BudgetExceededError",
}
_CONTEXT = {"413", "context_length_exceeded", "context_length", "request_too_large", "ContextWindowExceededError"}
_AUTH = {
    "401",
    "403",
    "authentication_error",
    "permission_error",
    "invalid_api_key",
    "AuthenticationError",
    "PermissionDeniedError",
}
_LIMIT = {"429", "rate_limit_exceeded", "rate_limit_error", "rate_limit", "RateLimitError"}
_DOWN = {
    "overloaded_error",
    "overloaded",
    "api_error",
    "server_error",
    "InternalServerError",
    "ServiceUnavailableError",
    "APIConnectionError",
    "Timeout",
}
_WORDS = {
    "provider_429_ratio": "rate-limited (429)",
    "provider_5xx_ratio": "failed at the provider (5xx)",
    "provider_auth_ratio": "refused for the credential (401, 403)",
    "provider_quota_ratio": "refused for quota or credit",
    "provider_context_ratio": "too long for the model",
}

_LIMIT_GAIN = 0.02
_CARRIES = 0.2
_OUTAGE = 1.5  # litellm_deployment_state: 0 healthy, 1 partial, 2 outage; an average over the window
_DETAILS = {1: "account", 2: "api_key", 3: "model"}

Cells = dict[tuple[str, ...], Compared]


@dataclass(frozen=True, kw_only=True)
class _Ratio:
    """One kind of failure at one provider, as a share of its requests."""

    signal: str
    provider: str
    ratio: Compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    if not {"gateway", "application"} & target.selectors.keys():
        raise CannotTellError(
            "the service has neither a gateway nor an application selector, so providers are not observed"
        )
    asked, by_status, by_code, headroom, rescued = await asyncio.gather(
        _asked(look), _failures(look), _codes(look), _headroom(look), _rescued(look)
    )
    if not by_status and not by_code and not asked:
        raise CannotTellError(
            "litellm_deployment_total_requests_total is not exported; add the prometheus callback to the gateway"
        )
    everything = total(asked) if asked else await _edge(look)
    ratios = _ratios(asked, everything, by_status, summed(by_code, 0, -1), look.frame)
    worst = [max(of_kind, key=lambda one: one.ratio.gain or 0.0) for of_kind in ratios.values()]
    measures = [measure(one.signal, one.ratio, "ratio") for one in worst]
    bad = [
        one for of_kind in ratios.values() for one in of_kind if one.provider and _is_bad(one, asked, everything, look)
    ]
    measures += [measure(one.signal, one.ratio, "ratio", ("provider", one.provider)) for one in bad]
    measures += _details(by_code, bad)
    measures += [*_headroom_left(headroom), *rescued]
    if bad:
        said = (
            f"{one.provider}: {compared(one.ratio, 'ratio')}, of the requests are {_WORDS[one.signal]}." for one in bad
        )
        return Finding.bad("provider_errors", " ".join(said), *measures)
    most = max(one.ratio.now or 0.0 for one in worst)
    text = f"Providers answer as usual: no kind of failure is above {number(most, 'ratio')} of the requests to one."
    return Finding.ok("provider_errors", text, *measures)


async def _asked(look: Look) -> Cells:
    """Requests per second by provider."""
    if "gateway" not in look.target.selectors:
        return {}
    return await look.rates(ASKED, "gateway", by=("api_provider",))


async def _failures(look: Look) -> Cells:
    """
    Failures by provider and code: LiteLLM's own class of the exception where we know it, its status otherwise.

    LiteLLM puts the provider before the class ("Openai.Timeout"), whose status (408, 400) says less.
    """
    if "gateway" not in look.target.selectors:
        return {}
    cells = await look.rates(FAILURES, "gateway", by=("api_provider", "exception_status", "exception_class"))
    named: Cells = {
        (provider, status if signal_of(name := kind.rpartition(".")[2]) is None else name, status, kind): cell
        for (provider, status, kind), cell in cells.items()
    }
    return summed(named, 0, 1)


async def _codes(look: Look) -> Cells:
    """Failures by the provider's own code, as the application counts them."""
    if "application" not in look.target.selectors:
        return {}
    return await look.rates(CODES, "application", by=("provider", "account", "key", "model", "code"))


async def _edge(look: Look) -> Compared:
    """All requests at the application's edge: what failures are held against where no gateway counts its own."""
    return await look.rate(REQUESTS, "application") if "application" in look.target.selectors else NOTHING


async def _rescued(look: Look) -> list[Measure]:
    """Deployments that the gateway takes for dead, and the part of the requests that a fallback answered."""
    if "gateway" not in look.target.selectors:
        return []
    states, fallbacks, asked = await asyncio.gather(
        look.levels(STATE, "gateway", by=("api_provider",), aggregation=Aggregation.MAX),
        look.rate(FALLBACKS, "gateway"),
        _asked(look),
    )
    found = []
    dead = sorted(key[0] for key, cell in states.items() if (cell.now or 0.0) >= _OUTAGE > (cell.baseline or 0.0))
    if states:
        found.append(Measure(signal="deployment_outage", value=float(len(dead)), baseline=0.0, unit="providers"))
        found += [
            Measure(signal="deployment_outage", value=1.0, baseline=0.0, scope=(("provider", name),)) for name in dead
        ]
    if fallbacks != NOTHING and asked:
        found.append(measure("fallback_ratio", share(fallbacks, total(asked)), "ratio"))
    return found


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


def _ratios(
    asked: Cells, everything: Compared, by_status: Cells, by_code: Cells, frame: Frame
) -> dict[str, list[_Ratio]]:
    """
    For each kind of failure, the providers that have it, as a share of their own requests.

    Of a provider whose requests are too few to say, or not counted, it is the share of all requests.
    """
    failures = _failures_by_signal(by_status, by_code)
    ratios: dict[str, list[_Ratio]] = {}
    for signal in _WORDS:
        own = [
            _Ratio(signal=signal, provider=provider, ratio=share(cell, _asked_of(provider, asked, everything, frame)))
            for (provider, kind), cell in sorted(failures.items(), key=lambda entry: entry[0])
            if kind == signal
        ]
        ratios[signal] = own or [_Ratio(signal=signal, provider="", ratio=share(NOTHING, everything))]
    return ratios


def _asked_of(provider: str, asked: Cells, everything: Compared, frame: Frame) -> Compared:
    own = asked.get((provider,), NOTHING)
    return own if (own.now or 0.0) * frame.recent.total_seconds() >= ENOUGH else everything


def _is_bad(one: _Ratio, asked: Cells, everything: Compared, look: Look) -> bool:
    """A gain of two points that chance does not explain."""
    if (one.ratio.gain or 0.0) < _LIMIT_GAIN or one.ratio.now is None or one.ratio.baseline is None:
        return False
    whole = _asked_of(one.provider, asked, everything, look.frame)
    all_now = (whole.now or 0.0) * look.frame.recent.total_seconds()
    all_then = (whole.baseline or 0.0) * look.baseline_window.total_seconds()
    return chance_of_shares(one.ratio.now * all_now, all_now, one.ratio.baseline * all_then, all_then) < SURE


def _details(by_code: Cells, bad: list[_Ratio]) -> list[Measure]:
    """The accounts, keys and models that carry what is bad, each with its part of the rise."""
    found = []
    for one in bad:
        own = {
            key: cell for key, cell in by_code.items() if key[0] == one.provider and signal_of(key[-1]) == one.signal
        }
        for position, label in _DETAILS.items():
            gains = {
                name: max((cell.now or 0.0) - (cell.baseline or 0.0), 0.0)
                for (name,), cell in summed(own, position).items()
                if name
            }
            whole = sum(gains.values())
            found += [
                Measure(
                    signal=one.signal, value=gain / whole * (one.ratio.now or 0.0), unit="ratio", scope=((label, name),)
                )
                for name, gain in sorted(gains.items())
                if whole > 0 and gain >= _CARRIES * whole
            ]
    return found


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
    is_failure = code in _DOWN or (len(code) == 3 and code.startswith("5"))
    return "provider_5xx_ratio" if is_failure else None
