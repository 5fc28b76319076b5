"""What the gateway exports, as LiteLLM's Prometheus callback does: latency, requests and failures, headroom, spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.consumers import Consumer
from lab.exposition import STEP, Family, Floats, Registry, counter, histogram
from lab.gateway import CHAT, OVERFLOW, OWN, OWN_MODEL, ProviderLoad
from lab.guardrails import Guardrails
from lab.providers import FAILED, LIMITED, TOO_LONG, Refusal
from lab.serving import LATENCY_SIGMA, lognormal

# LiteLLM's own bounds but for those that these times never come near, which clusters drop at the scrape.
_REQUEST = (0.1, 0.5, 1, 2, 5, 10, 30, 60)
_AROUND = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_RAIL = (0.05, 0.1, 0.5, 2, 5)
_OVERHEAD_S = 0.030
_PROVIDER_S = 3.5
_USUAL_FAILURES = 0.001
_OUTAGE = 0.25
"""The share of failures from which LiteLLM calls a deployment's outage complete: it is cooled down again and again."""

_COOLED_DOWN_PER_STEP = STEP.total_seconds() / 5
"""LiteLLM takes a failing deployment out for 5 s at a time."""

_TEAM = "llm"
_TEAM_BUDGET_USD = 400.0

_OWN_FAILURE = Refusal(status="500", code="api_error", exception="InternalServerError")

TOTAL = histogram("litellm_request_total_latency_metric", "Latency of a request at the gateway.")
API = histogram("litellm_llm_api_latency_metric", "Latency of the model API behind the gateway.")
OVERHEAD = histogram("litellm_overhead_latency_metric", "Latency that the gateway itself adds.")
PROXY_REQUESTS = counter("litellm_proxy_total_requests_metric_total", "Requests to the gateway.")
PROXY_FAILED = counter("litellm_proxy_failed_requests_metric_total", "Requests that the gateway failed.")
REQUESTS = counter("litellm_deployment_total_requests_total", "Requests to a deployment.")
SUCCESSES = counter("litellm_deployment_success_responses_total", "Answers of a deployment.")
FAILURES = counter("litellm_deployment_failure_responses_total", "Failed responses of a deployment.")
COOLED_DOWN = counter("litellm_deployment_cooled_down_total", "Times that a deployment was taken out.")
FELL_BACK = counter("litellm_deployment_successful_fallbacks_total", "Requests that a fallback answered.")
FALLBACK_FAILED = counter("litellm_deployment_failed_fallbacks_total", "Requests that no fallback answered.")
SPEND = counter("litellm_spend_metric_total", "Spend (USD).")
ALL_TOKENS = counter("litellm_total_tokens_metric_total", "Tokens, read and written.")
INPUT_TOKENS = counter("litellm_input_tokens_metric_total", "Tokens read.")
OUTPUT_TOKENS = counter("litellm_output_tokens_metric_total", "Tokens written.")
GUARDRAIL_SECONDS = histogram("litellm_guardrail_latency_seconds", "Latency of a guardrail.")
GUARDRAIL_ERRORS = counter("litellm_guardrail_errors_total", "Errors of a guardrail.")
GUARDRAIL_REQUESTS = counter("litellm_guardrail_requests_total", "Requests that a guardrail looked at.")
STATE = Family(name="litellm_deployment_state", kind="gauge", help="0 healthy, 1 partial, 2 outage.")
LEFT = Family(name="litellm_remaining_tokens_metric", kind="gauge", help="Tokens left in the rate limit.")
REQUESTS_LEFT = Family(name="litellm_remaining_requests_metric", kind="gauge", help="Requests left in the rate limit.")
BUDGET_LEFT = Family(name="litellm_remaining_team_budget_metric", kind="gauge", help="USD left of a team's budget.")
IN_FLIGHT = Family(name="litellm_in_flight_requests", kind="gauge", help="Requests that the gateway works on.")

_RPM_PER_TPM = 1 / 1500
"""Providers' limits allow a request for every so many tokens; with prompts like ours the tokens end first."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What one provider's model made of one step's requests."""

    load: ProviderLoad
    asked: int
    failures: Mapping[Refusal, int]
    retried: int  # asked again after a refusal
    took_s: Floats  # one entry per answered request: the client's wait, with its waits between tries

    @property
    def answered(self) -> int:
        return len(self.took_s)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def call(rng: np.random.Generator, load: ProviderLoad, length: float = 1.0) -> Calls:
    """Draw one step's calls to a provider, whose answers are so many times as long as usual and take as long."""
    load = replace(load, output_tokens=load.output_tokens * length)
    asked = int(rng.poisson(load.asked * STEP.total_seconds()))
    limited, usual = LIMITED[load.provider], FAILED[load.provider]
    refusal = load.trouble.refusal if load.trouble else limited
    broken = int(rng.binomial(asked, load.broken / load.asked)) if load.broken else 0
    left = load.asked - load.broken
    refused = int(rng.binomial(asked - broken, load.refused / left)) if load.refused else 0
    failures = dict.fromkeys((limited, usual, refusal), 0)
    failures[refusal] += broken
    failures[limited] += refused
    failures[usual] += int(rng.binomial(asked - broken - refused, _USUAL_FAILURES))
    answered = asked - sum(failures.values())
    retried = int(rng.binomial(asked, load.retried / load.asked)) if load.asked > 0 else 0
    mean_s = _PROVIDER_S * length * (load.trouble.slowness if load.trouble else 1.0)
    took = lognormal(rng, mean_s, LATENCY_SIGMA, answered)
    took[:retried] += refusal.wait_s
    return Calls(load=load, asked=asked, failures=failures, retried=retried, took_s=took)


@dataclass(kw_only=True)
class GatewayExporter:
    """
    The gateway's `/metrics`. Spend and tokens are counted where the tokens are, by the application's accounting.

    LiteLLM labels neither guardrails nor requests in flight by model group; the scrape adds one here, so that one
    selector finds everything that belongs to a service.
    """

    registry: Registry
    rng: np.random.Generator
    guardrails: Guardrails
    _spent: float = 0.0

    def step(self, engine: Floats, calls: Sequence[Calls], *, too_long: int = 0) -> None:
        """Account for the answers of the engines (seconds each), prompts they refused, and those of the providers."""
        rail = lognormal(self.rng, self.guardrails.seconds, LATENCY_SIGMA, len(engine))
        self._time_own(engine, rail)
        self._guard(rail)
        own = {"model_group": CHAT, "api_provider": OWN, "litellm_model_name": OWN_MODEL}
        failed = {_OWN_FAILURE: int(self.rng.binomial(len(engine), _USUAL_FAILURES)), TOO_LONG: too_long}
        self._count(own, len(engine) + too_long, failed)
        self._count_proxy(CHAT, len(engine), failed)
        self.registry.set(STATE, own, 0)
        for one in calls:
            self._count_provider(one)
        waiting = sum(float(one.took_s.sum()) for one in calls) + float(engine.sum())
        about = {"model_group": CHAT}
        self.registry.set(IN_FLIGHT, about, round(waiting / STEP.total_seconds() * self.rng.lognormal(0, 0.05)))
        team = {"model_group": CHAT, "team": _TEAM}
        self.registry.set(BUDGET_LEFT, team, round(_TEAM_BUDGET_USD - self._spent, 4))

    def account(self, group: str, model: str, who: Consumer, tokens: Mapping[str, float], usd: float) -> None:
        """What one consumer used of a model, and what that cost."""
        key = {"model_group": group, "model": model, "api_key_alias": who.api_key, "team": _TEAM}
        client = {"client_ip": who.client.ip, "user_agent": who.client.user_agent}
        self.registry.add(SPEND, key | client, usd)
        self._spent += usd
        about = {"model_group": group, "api_key_alias": who.api_key}
        self.registry.add(ALL_TOKENS, about, round(tokens["input"]) + round(tokens["output"]))
        self.registry.add(INPUT_TOKENS, {"model_group": group, "model": model}, round(tokens["input"]))
        self.registry.add(OUTPUT_TOKENS, {"model_group": group, "model": model}, round(tokens["output"]))

    def _count_provider(self, one: Calls) -> None:
        load = one.load
        total = self.registry.histogram(TOTAL, _REQUEST, {"model_group": OVERFLOW})  # the few large ones among them
        self.registry.observe(total, one.took_s)
        about = {"model_group": load.group, "api_provider": load.provider, "litellm_model_name": load.model}
        self._count(about, one.asked, one.failures)
        broken = load.broken / load.asked if load.asked else 0.0
        self.registry.set(STATE, about, 2 if broken >= _OUTAGE else 1 if load.lost > 0 else 0)
        self.registry.add(COOLED_DOWN, about, round(_COOLED_DOWN_PER_STEP) if load.lost > 0 else 0)
        rescued = one.failed if load.falls_back_to else 0
        fallback = {"model_group": load.group, "fallback_model": load.falls_back_to or CHAT}
        self.registry.add(FELL_BACK, fallback, rescued)
        self.registry.add(FALLBACK_FAILED, fallback, 0)
        self._count_proxy(load.group, one.answered + rescued, {} if load.falls_back_to else one.failures)
        self._report_headroom(load, about)

    def _report_headroom(self, load: ProviderLoad, about: Mapping[str, str]) -> None:
        """From the headers of the last answers; where most have none the gauges stay as they are."""
        if load.broken > 0.5 * load.asked:
            return
        left = load.quota_tokens_per_s * 60 * load.headroom
        self.registry.set(LEFT, about, round(left * self.rng.lognormal(0, 0.05)))
        allowed = load.quota_tokens_per_s * 60 * _RPM_PER_TPM
        self.registry.set(REQUESTS_LEFT, about, round(max(0.0, allowed - (load.asked - load.broken) * 60)))

    def _count(self, about: dict[str, str], asked: int, failures: Mapping[Refusal, int]) -> None:
        self.registry.add(REQUESTS, about, asked)
        self.registry.add(SUCCESSES, about, asked - sum(failures.values()))
        for refusal, n in failures.items():
            provider = about["api_provider"].capitalize()
            what = {"exception_status": refusal.status, "exception_class": f"{provider}.{refusal.exception}"}
            self.registry.add(FAILURES, {**about, **what}, n)

    def _count_proxy(self, group: str, answered: int, failures: Mapping[Refusal, int]) -> None:
        about = {"model_group": group, "requested_model": group}
        self.registry.add(PROXY_REQUESTS, {**about, "status_code": "200"}, answered)
        for refusal, n in failures.items():
            self.registry.add(PROXY_REQUESTS, {**about, "status_code": refusal.status}, n)
            what = {"exception_status": refusal.status, "exception_class": refusal.exception}
            self.registry.add(PROXY_FAILED, {**about, **what}, n)

    def _time_own(self, api: Floats, rail: Floats) -> None:
        overhead = lognormal(self.rng, _OVERHEAD_S, LATENCY_SIGMA, len(api))
        for family, bounds, taken in (
            (TOTAL, _REQUEST, api + overhead + rail),
            (API, _REQUEST, api),
            (OVERHEAD, _AROUND, overhead),
        ):
            self.registry.observe(self.registry.histogram(family, bounds, {"model_group": CHAT}), taken)

    def _guard(self, taken: Floats) -> None:
        """The guardrail before the call, as the gateway times it: its errors let the request pass."""
        about = {"model_group": CHAT, "guardrail_name": "input", "hook_type": "pre_call"}
        failed = int(self.rng.binomial(len(taken), min(1.0, self.guardrails.error_ratio)))
        self.registry.observe(self.registry.histogram(GUARDRAIL_SECONDS, _RAIL, about), taken)
        self.registry.add(GUARDRAIL_ERRORS, {**about, "error_type": "Timeout"}, failed)
        for status, n in (("success", len(taken) - failed), ("error", failed)):
            self.registry.add(GUARDRAIL_REQUESTS, {**about, "status": status}, n)
