"""What the application and its gateway export: requests, stages, tokens, spend and outcomes by tenant and version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.answers import AnswerQuality
from lab.exposition import STEP, Family, Floats, Registry
from lab.serving import LATENCY_SIGMA, Requests, lognormal

TENANTS = 60
_NAMED_TENANTS = 5
"""The application exports its largest tenants by name and the rest as `other`, so that series stay few."""

_STAGE_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_GATEWAY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_STATUS = {"ok": 0.9885, "5xx": 0.001, "4xx": 0.005, "429": 0.0005, "aborted": 0.005}
_OUTCOME = {"ok": 0.953, "refusal": 0.015, "empty": 0.002, "truncated": 0.03}
_RETRIEVAL = {"ok": 0.977, "empty": 0.02, "error": 0.002, "timeout": 0.001}
_GUARDRAIL = {"allow": 0.992, "block": 0.008}
_STAGES = {"gateway": 0.030, "guardrail_in": 0.060, "retrieval": 0.120}
_USD_PER_TOKEN = {"input": 0.05e-6, "output": 0.08e-6}
_PROVIDERS = ("hosted_vllm", "openai", "anthropic")


def _counter(name: str, text: str) -> Family:
    return Family(name=name, kind="counter", help=text)


def _histogram(name: str, text: str) -> Family:
    return Family(name=name, kind="histogram", help=text)


REQUESTS = _counter("llm_app_requests_total", "Requests at the application's edge.")
SESSIONS = _counter("llm_app_sessions_total", "Distinct sessions started.")
DURATION = _histogram("llm_app_request_duration_seconds", "End to end at the application.")
STAGE = _histogram("llm_app_stage_seconds", "Time by stage outside and inside the engine.")
TOKENS = _counter("llm_app_tokens_total", "Tokens by direction.")
COST = _counter("llm_app_cost_usd_total", "Spend (USD).")
RESPONSES = _counter("llm_app_responses_total", "Responses by outcome.")
FORMAT = _counter("llm_app_format_checks_total", "Schema checks by result.")
FEEDBACK = _counter("llm_app_feedback_total", "User feedback.")
GUARDRAIL = _counter("llm_app_guardrail_total", "Guardrail decisions.")
RETRIEVAL = _counter("llm_app_retrieval_total", "Retrieval calls by outcome.")
SCORE_SUM = _counter("llm_app_retrieval_score_sum", "Sum of top-1 similarities.")
SCORE_COUNT = _counter("llm_app_retrieval_score_count", "Number of top-1 similarities.")
JUDGE_SUM = _counter("llm_app_judge_score_sum", "Sum of the judge's scores (0 to 1).")
JUDGE_COUNT = _counter("llm_app_judge_score_count", "Number of answers judged.")
DRIFT = Family(name="llm_app_input_drift_auc", kind="gauge", help="Domain-classifier AUC of inputs.")
HTTP = _counter("http_requests_total", "HTTP requests of the engine's API server.")
GATEWAY_TOTAL = _histogram("litellm_request_total_latency_metric", "Latency of a request at the gateway.")
GATEWAY_API = _histogram("litellm_llm_api_latency_metric", "Latency of the model API behind the gateway.")
GATEWAY_OVERHEAD = _histogram("litellm_overhead_latency_metric", "Latency that the gateway itself adds.")
GATEWAY_REQUESTS = _counter("litellm_deployment_total_requests_total", "Requests to a deployment.")
GATEWAY_FAILURES = _counter("litellm_deployment_failure_responses_total", "Failed responses of a deployment.")
GATEWAY_SPEND = _counter("litellm_spend_metric_total", "Spend (USD).")
GATEWAY_STATE = Family(name="litellm_deployment_state", kind="gauge", help="0 healthy, 1 partial, 2 outage.")
GATEWAY_LEFT = Family(name="litellm_remaining_tokens_metric", kind="gauge", help="Tokens left in the rate limit.")


def tenant_shares() -> dict[str, float]:
    """Shares of the traffic: Zipf with exponent 1.1 over 60 tenants, of which the largest are named."""
    weights = np.arange(1, TENANTS + 1, dtype=float) ** -1.1
    weights /= weights.sum()
    named = {f"tenant-{place + 1:02d}": float(weights[place]) for place in range(_NAMED_TENANTS)}
    return {**named, "other": 1 - sum(named.values())}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way into the application: its prompt, its share of requests, and who uses it."""

    name: str
    prompt: str
    share: float
    tenants: Mapping[str, float]
    retrieval: bool = True
    needs_json: bool = True  # the application parses the answer


ROUTES = (
    Route(name="chat", prompt="chat-system", share=0.96, tenants=tenant_shares()),
    Route(
        name="summary", prompt="chat-summary", share=0.04, tenants={"tenant-01": 1.0}, retrieval=False, needs_json=False
    ),
)


@dataclass(kw_only=True)
class Application:
    """
    The application's exporter.

    `versions` of a step say which share of each prompt's requests ran with which version: clients cache a prompt for
    60 s, so that after a label moved both versions are served for a while. `quality` tells how good the answers of a
    route's prompt version are.
    """

    registry: Registry
    rng: np.random.Generator
    quality: Callable[[Route, int], AnswerQuality]
    service: str = "chat"
    model: str = "llama-3.1-8b-instruct"

    def step(
        self, finished: Sequence[Requests], versions: Mapping[str, Mapping[int, float]], *, given_up: int = 0
    ) -> None:
        """Account for the requests that the engines finished in this step, and those whose callers gave up."""
        e2e = np.concatenate([requests.e2e_s for requests in finished]) if finished else np.zeros(0)
        prompt = float(sum(requests.prompt_tokens.sum() for requests in finished))
        output = float(sum(requests.output_tokens.sum() for requests in finished))
        for route in ROUTES:
            for version, share in versions[route.prompt].items():
                n = round(len(e2e) * route.share * share)
                self._count_aborted(route, str(version), round(given_up * route.share * share))
                self._count_requests(route, str(version), n)
                self._count_verdicts(route, version, n)
                part = route.share * share
                self._count_tokens(route, str(version), {"input": prompt * part, "output": output * part})
        self._time_stages(e2e)
        self._count_engine_api(len(e2e))
        self._gateway(e2e)
        self.registry.set(DRIFT, {"service": self.service, "segment": "all"}, round(self.rng.normal(0.5, 0.008), 4))

    def _count_requests(self, route: Route, version: str, n: int) -> None:
        about = {"service": self.service, "route": route.name, "prompt_name": route.prompt, "prompt_version": version}
        tenants = self.rng.multinomial(n, list(route.tenants.values())).tolist()
        for tenant, mine in zip(route.tenants, tenants, strict=True):
            who = {**about, "tenant": tenant, "api_key": f"key-{tenant}", "model": self.model}
            self._spread(REQUESTS, who, "status", _STATUS, mine)
            first_tries = int(self.rng.binomial(mine, 1 / 1.01))
            self.registry.add(SESSIONS, {"service": self.service, "tenant": tenant}, first_tries)
        which = {"service": self.service, "prompt_name": route.prompt, "prompt_version": version, "model": self.model}
        self._spread(RESPONSES, which, "outcome", _OUTCOME, n)
        rail = {"service": self.service, "rail": "input", "policy_version": "14", "surface": "user"}
        self._spread(GUARDRAIL, rail, "decision", _GUARDRAIL, n)
        if route.retrieval:
            source = {"service": self.service, "data_source": "manuals"}
            self._spread(RETRIEVAL, source, "outcome", _RETRIEVAL, n)
            self.registry.add(SCORE_SUM, source, round(float(self.rng.normal(0.72, 0.08, n).sum()), 4))
            self.registry.add(SCORE_COUNT, source, n)

    def _count_aborted(self, route: Route, version: str, n: int) -> None:
        """Requests that nobody waits for any more; they have neither an answer nor a retry."""
        about = {"service": self.service, "route": route.name, "prompt_name": route.prompt, "prompt_version": version}
        for tenant, share in route.tenants.items():
            who = {**about, "tenant": tenant, "api_key": f"key-{tenant}", "model": self.model}
            self.registry.add(REQUESTS, {**who, "status": "aborted"}, round(n * share))
            self.registry.add(SESSIONS, {"service": self.service, "tenant": tenant}, round(n * share))

    def _count_verdicts(self, route: Route, version: int, n: int) -> None:
        """What the schema check says of every answer, 3 % of the users, and a judge who reads every tenth."""
        quality = self.quality(route, version)
        which = {"service": self.service, "prompt_name": route.prompt, "prompt_version": str(version)}
        which |= {"model": self.model}
        self._spread(FORMAT, which, "result", {"valid": quality.valid, "invalid": 1 - quality.valid}, n)
        ratings = {"up": 1 - quality.thumbs_down, "down": quality.thumbs_down}
        self._spread(FEEDBACK, which, "rating", ratings, int(self.rng.binomial(n, 0.03)))
        scores = self.rng.normal(quality.judge, 0.2, int(self.rng.binomial(n, 0.1)))
        self.registry.add(JUDGE_SUM, which, round(float(scores.sum()), 4))
        self.registry.add(JUDGE_COUNT, which, len(scores))

    def _count_tokens(self, route: Route, version: str, tokens: Mapping[str, float]) -> None:
        about = {"service": self.service, "prompt_version": version, "model": self.model}
        for tenant, share in route.tenants.items():
            who = {"tenant": tenant, "api_key": f"key-{tenant}"}
            usd = sum(tokens[direction] * share * price for direction, price in _USD_PER_TOKEN.items())
            self.registry.add(COST, {"service": self.service, "model": self.model, **who}, usd)
            self.registry.add(GATEWAY_SPEND, {"model_group": self.service, "team": "llm"}, usd)
            for direction, amount in tokens.items():
                self.registry.add(TOKENS, {**about, "direction": direction, **who}, round(amount * share))

    def _time_stages(self, engine: Floats) -> None:
        n = len(engine)
        total = engine.copy()
        for stage, mean in _STAGES.items():
            taken = lognormal(self.rng, mean, LATENCY_SIGMA, n)
            total += taken
            self._observe(STAGE, _STAGE_BOUNDS, taken, stage=stage)
        self._observe(STAGE, _STAGE_BOUNDS, engine, stage="engine")
        summaries = round(n * ROUTES[1].share)
        self._observe(DURATION, _STAGE_BOUNDS, total[summaries:], route="chat")
        self._observe(DURATION, _STAGE_BOUNDS, total[:summaries], route="summary")

    def _count_engine_api(self, n: int) -> None:
        about = {"namespace": self.service, "handler": "/v1/chat/completions", "method": "POST"}
        self._spread(HTTP, about, "status", {"2xx": 0.994, "4xx": 0.005, "5xx": 0.001}, n)

    def _gateway(self, engine: Floats) -> None:
        group = {"model_group": self.service}
        overhead = lognormal(self.rng, _STAGES["gateway"], LATENCY_SIGMA, len(engine))
        for family, taken in ((GATEWAY_TOTAL, engine + overhead), (GATEWAY_API, engine), (GATEWAY_OVERHEAD, overhead)):
            self.registry.observe(self.registry.histogram(family, _GATEWAY_BOUNDS, group), taken)
        for provider in _PROVIDERS:
            local = provider == _PROVIDERS[0]
            about = {
                **group,
                "api_provider": provider,
                "litellm_model_name": self.model if local else f"{provider}-chat",
            }
            n = len(engine) if local else int(self.rng.poisson(0.05 * STEP.total_seconds()))
            self.registry.add(GATEWAY_REQUESTS, about, n)
            self.registry.add(GATEWAY_FAILURES, {**about, "exception_status": "500"}, int(self.rng.binomial(n, 0.001)))
            self.registry.set(GATEWAY_STATE, about, 0)
            if not local:
                self.registry.set(GATEWAY_LEFT, about, round(1_200_000 * self.rng.lognormal(0, 0.05)))

    def _spread(
        self, family: Family, about: Mapping[str, str], label: str, shares: Mapping[str, float], n: int
    ) -> None:
        """Count n events over a label's values; every value exists from the start, so that a rate can see it rise."""
        total = sum(shares.values())
        drawn = self.rng.multinomial(n, [share / total for share in shares.values()]).tolist()
        for value, amount in zip(shares, drawn, strict=True):
            self.registry.add(family, {**about, label: value}, amount)

    def _observe(self, family: Family, bounds: tuple[float, ...], taken: Floats, **labels: str) -> None:
        histogram = self.registry.histogram(family, bounds, {"service": self.service, **labels})
        self.registry.observe(histogram, taken)
