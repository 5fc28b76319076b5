"""What the gateway exports, as LiteLLM's Prometheus callback does: latency, requests and failures, headroom, spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.exposition import STEP, Family, Floats, Registry, counter, histogram
from lab.gateway import CHAT, OVERFLOW, OWN, ProviderLoad
from lab.serving import LATENCY_SIGMA, lognormal

RETRY_AFTER_S = 7.0
"""How long a client waits before it asks a provider again that refused it."""

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_OVERHEAD_S = 0.030
_PROVIDER_S = 3.5
_USUAL_FAILURES = 0.001

TOTAL = histogram("litellm_request_total_latency_metric", "Latency of a request at the gateway.")
API = histogram("litellm_llm_api_latency_metric", "Latency of the model API behind the gateway.")
OVERHEAD = histogram("litellm_overhead_latency_metric", "Latency that the gateway itself adds.")
REQUESTS = counter("litellm_deployment_total_requests_total", "Requests to a deployment.")
FAILURES = counter("litellm_deployment_failure_responses_total", "Failed responses of a deployment.")
SPEND = counter("litellm_spend_metric_total", "Spend (USD).")
STATE = Family(name="litellm_deployment_state", kind="gauge", help="0 healthy, 1 partial, 2 outage.")
LEFT = Family(name="litellm_remaining_tokens_metric", kind="gauge", help="Tokens left in the rate limit.")


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What one provider made of one step's requests."""

    load: ProviderLoad
    asked: int
    refused: int  # 429
    failed: int  # 5xx
    retried: int  # asked again after a refusal
    took_s: Floats  # one entry per answered request: the client's wait, with its waits between tries

    @property
    def answered(self) -> int:
        return len(self.took_s)


def call(rng: np.random.Generator, load: ProviderLoad) -> Calls:
    """Draw one step's calls to a provider."""
    asked = int(rng.poisson(load.asked * STEP.total_seconds()))
    share = load.refused / load.asked if load.asked > 0 else 0.0
    refused = int(rng.binomial(asked, share))
    failed = int(rng.binomial(asked - refused, _USUAL_FAILURES))
    retried = int(rng.binomial(asked, load.retried / load.asked)) if load.asked > 0 else 0
    took = lognormal(rng, _PROVIDER_S, LATENCY_SIGMA, asked - refused - failed)
    took[:retried] += RETRY_AFTER_S
    return Calls(load=load, asked=asked, refused=refused, failed=failed, retried=retried, took_s=took)


@dataclass(kw_only=True)
class GatewayExporter:
    """The gateway's `/metrics`. `spend` is counted where the tokens are, by the application's accounting."""

    registry: Registry
    rng: np.random.Generator
    model: str

    def step(self, engine: Floats, calls: Sequence[Calls]) -> None:
        """Account for the answers of the engines (seconds each) and of the providers."""
        self._time_own(engine)
        for one in calls:
            self.registry.observe(self.registry.histogram(TOTAL, _BOUNDS, {"model_group": OVERFLOW}), one.took_s)
        own = {"model_group": CHAT, "api_provider": OWN, "litellm_model_name": self.model}
        self._count(own, len(engine), {"500": int(self.rng.binomial(len(engine), _USUAL_FAILURES))})
        self.registry.set(STATE, own, 0)
        for one in calls:
            load = one.load
            about = {"model_group": OVERFLOW, "api_provider": load.provider, "litellm_model_name": load.model}
            self._count(about, one.asked, {"429": one.refused, "500": one.failed})
            self.registry.set(STATE, about, 1 if load.refused > 0 else 0)
            left = load.quota_tokens_per_s * 60 * load.headroom
            self.registry.set(LEFT, about, round(left * self.rng.lognormal(0, 0.05)))

    def spend(self, group: str, model: str, alias: str, usd: float) -> None:
        self.registry.add(SPEND, {"model_group": group, "model": model, "api_key_alias": alias, "team": "llm"}, usd)

    def _count(self, about: dict[str, str], asked: int, failures: dict[str, int]) -> None:
        self.registry.add(REQUESTS, about, asked)
        for status, n in failures.items():
            self.registry.add(FAILURES, {**about, "exception_status": status}, n)

    def _time_own(self, api: Floats) -> None:
        overhead = lognormal(self.rng, _OVERHEAD_S, LATENCY_SIGMA, len(api))
        for family, taken in ((TOTAL, api + overhead), (API, api), (OVERHEAD, overhead)):
            self.registry.observe(self.registry.histogram(family, _BOUNDS, {"model_group": CHAT}), taken)
