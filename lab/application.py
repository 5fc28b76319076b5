"""What the application exports: requests, stages, tokens, spend and outcomes by tenant and prompt version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.consumers import Consumer, consumers, tenant_of
from lab.exposition import STEP, Family, Floats, Registry, counter, histogram
from lab.gateway import CHAT, OVERFLOW, OWN, Traffic
from lab.gateway_metrics import Calls, GatewayExporter, call
from lab.routes import ROUTES, Route
from lab.serving import LATENCY_SIGMA, Requests, lognormal
from lab.stage import Stage
from lab.verdicts import Verdicts

_STAGE_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STATUS = {"ok": 0.9885, "5xx": 0.001, "4xx": 0.005, "429": 0.0005, "aborted": 0.005}
_RETRIEVAL = {"ok": 0.977, "empty": 0.02, "error": 0.002, "timeout": 0.001}
_STAGES = {"gateway": 0.030, "guardrail_in": 0.060, "retrieval": 0.120}
_USD_PER_TOKEN = {
    OWN: {"input": 0.05e-6, "output": 0.08e-6},
    "openai": {"input": 0.10e-6, "output": 0.40e-6},
    "anthropic": {"input": 0.25e-6, "output": 1.25e-6},
}
_LIMITED = {"openai": "rate_limit_exceeded", "anthropic": "rate_limit_error"}
_RETRIES = 0.01  # requests that repeat one, among those that the engines answer

REQUESTS = counter("llm_app_requests_total", "Requests at the application's edge.")
SESSIONS = counter("llm_app_sessions_total", "Distinct sessions started.")
DURATION = histogram("llm_app_request_duration_seconds", "End to end at the application.")
STAGE = histogram("llm_app_stage_seconds", "Time by stage outside and inside the engine.")
TOKENS = counter("llm_app_tokens_total", "Tokens by direction.")
COST = counter("llm_app_cost_usd_total", "Spend (USD).")
RETRIEVAL = counter("llm_app_retrieval_total", "Retrieval calls by outcome.")
SCORE_SUM = counter("llm_app_retrieval_score_sum", "Sum of top-1 similarities.")
SCORE_COUNT = counter("llm_app_retrieval_score_count", "Number of top-1 similarities.")
HTTP = counter("http_requests_total", "HTTP requests of the engine's API server.")
PROVIDER_ERRORS = counter("llm_app_provider_errors_total", "Refusals and failures by the provider's own code.")


@dataclass(kw_only=True)
class Application:
    """
    The application's exporter.

    `versions` of a step say which share of each prompt's requests ran with which version: clients cache a prompt for
    60 s, so that after a label moved both versions are served for a while.
    """

    registry: Registry
    stage: Stage
    service: str = "chat"
    model: str = "llama-3.1-8b-instruct"

    def __post_init__(self) -> None:
        self._exporter = GatewayExporter(registry=self.registry, rng=self.stage.rng, model=self.model)
        about = {"service": self.service, "model": self.model}
        self._verdicts = Verdicts(registry=self.registry, stage=self.stage, **about)

    def step(
        self,
        by_pod: Mapping[str, Requests],
        versions: Mapping[str, Mapping[int, float]],
        *,
        given_up: int = 0,
        failed: int = 0,
    ) -> None:
        """
        Account for the requests that the engines finished in this step, whose callers gave up, or that failed (5xx).

        What the providers answer, and what the gateway turns away, is drawn from its present traffic.
        """
        traffic = self.stage.gateway.traffic()
        everybody = consumers(traffic.to(CHAT))
        finished = list(by_pod.values())
        e2e = np.concatenate([requests.e2e_s for requests in finished]) if finished else np.zeros(0)
        prompt = float(sum(requests.prompt_tokens.sum() for requests in finished))
        output = float(sum(requests.output_tokens.sum() for requests in finished))
        for route in ROUTES:
            who = [Consumer(tenant=route.only, requests=1, prompt=1, output=1)] if route.only else everybody
            for version, share in versions[route.prompt].items():
                n = round(len(e2e) * route.share * share)
                for status, lost in (("aborted", given_up), ("5xx", failed)):
                    self._count_unanswered(route, str(version), status, round(lost * route.share * share), who)
                self._count_requests(route, str(version), n, who)
                part = route.share * share
                self._count_tokens(str(version), {"input": prompt * part, "output": output * part}, who)
        self._time_stages(e2e)
        self._count_engine_api(len(e2e), failed)
        newest = str(max(versions[ROUTES[0].prompt]))
        calls = [call(self.stage.rng, load) for load in traffic.providers]
        for one in calls:
            self._count_calls(one, newest, traffic)
        self._count_turned_away(newest, traffic)
        self._exporter.step(e2e, calls)
        answered = {pod: len(requests.done_s) for pod, requests in by_pod.items()}
        self._verdicts.step(answered, {one.load.model: one.answered for one in calls}, versions)

    def _count_requests(self, route: Route, version: str, n: int, who: Sequence[Consumer]) -> None:
        asked = self.stage.rng.multinomial(n, _shares(who)).tolist()
        for one, mine in zip(who, asked, strict=True):
            self._spread(REQUESTS, self._asked(route, version, one.tenant), "status", _STATUS, mine)
            self._count_sessions(one.tenant, int(self.stage.rng.binomial(mine, 1 / (1 + _RETRIES))))
        if route.retrieval:
            source = {"service": self.service, "data_source": "manuals"}
            self._spread(RETRIEVAL, source, "outcome", _RETRIEVAL, n)
            self.registry.add(SCORE_SUM, source, round(float(self.stage.rng.normal(0.72, 0.08, n).sum()), 4))
            self.registry.add(SCORE_COUNT, source, n)

    def _count_calls(self, calls: Calls, version: str, traffic: Traffic) -> None:
        """
        Requests that a provider answered, refused or failed, by who asked.

        With a fallback its refusals are the gateway's business: the engines answer those requests and count them.
        """
        provider, model = calls.load.provider, calls.load.model
        refused = 0 if traffic.has_fallback else calls.refused
        outcomes = {"ok": calls.answered, "429": refused, "5xx": calls.failed}
        asked = sum(outcomes.values())
        who = consumers(traffic.to(OVERFLOW))
        shares = {status: n / asked for status, n in outcomes.items()} if asked else {}
        for one, mine in zip(who, self.stage.rng.multinomial(asked, _shares(who)).tolist(), strict=True):
            about = self._asked(ROUTES[0], version, one.tenant, model)
            self._spread(REQUESTS, about, "status", shares or dict.fromkeys(outcomes, 1.0), mine)
            again = calls.retried / asked if asked else 0.0
            self._count_sessions(one.tenant, int(self.stage.rng.binomial(mine, (1 - min(1.0, again)) / (1 + _RETRIES))))
        for code, n in ((_LIMITED[provider], refused), ("api_error", calls.failed)):
            self.registry.add(PROVIDER_ERRORS, {"service": self.service, "provider": provider, "code": code}, n)
        normal = self.stage.normal
        tokens = {"input": calls.answered * normal.prompt_tokens, "output": calls.answered * normal.output_tokens}
        self._count_tokens(version, tokens, who, provider=provider, model=model, group=OVERFLOW)
        self._observe(STAGE, _STAGE_BOUNDS, calls.took_s, stage="provider")
        self._observe(DURATION, _STAGE_BOUNDS, calls.took_s + sum(_STAGES.values()), route=ROUTES[0].name)

    def _count_turned_away(self, version: str, traffic: Traffic) -> None:
        """A key over its limit gets 429 from the gateway, a blocked one 401; neither reaches a model."""
        for alias, rps in traffic.turned_away.items():
            status = "4xx" if self.stage.gateway.key(alias).blocked else "429"
            about = {**self._asked(ROUTES[0], version, tenant_of(alias)), "status": status}
            self.registry.add(REQUESTS, about, int(self.stage.rng.poisson(rps * STEP.total_seconds())))

    def _asked(self, route: Route, version: str, tenant: str, model: str = "") -> dict[str, str]:
        about = {"service": self.service, "route": route.name, "prompt_name": route.prompt, "prompt_version": version}
        return {**about, "tenant": tenant, "api_key": f"key-{tenant}", "model": model or self.model}

    def _count_sessions(self, tenant: str, n: int) -> None:
        self.registry.add(SESSIONS, {"service": self.service, "tenant": tenant}, n)

    def _count_unanswered(self, route: Route, version: str, status: str, n: int, who: Sequence[Consumer]) -> None:
        """Requests that got no answer: nobody waits for them any more, or their engine died. No retries of them."""
        if not n:
            return
        for one in who:
            mine = round(n * one.requests)
            self.registry.add(REQUESTS, {**self._asked(route, version, one.tenant), "status": status}, mine)
            self._count_sessions(one.tenant, mine)

    def _count_tokens(
        self,
        version: str,
        tokens: Mapping[str, float],
        who: Sequence[Consumer],
        *,
        provider: str = OWN,
        model: str = "",
        group: str = CHAT,
    ) -> None:
        """Tokens and what they cost, by who asked; without a provider they are our own model's."""
        name = model or self.model
        about = {"service": self.service, "prompt_version": version, "model": name}
        for one in who:
            mine = {"input": tokens["input"] * one.prompt, "output": tokens["output"] * one.output}
            usd = sum(amount * _USD_PER_TOKEN[provider][direction] for direction, amount in mine.items())
            key = {"tenant": one.tenant, "api_key": one.api_key}
            self.registry.add(COST, {"service": self.service, "model": name, **key}, usd)
            self._exporter.spend(group, name, one.api_key, usd)
            for direction, amount in mine.items():
                self.registry.add(TOKENS, {**about, "direction": direction, **key}, round(amount))

    def _time_stages(self, engine: Floats) -> None:
        n = len(engine)
        total = engine.copy()
        for stage, mean in _STAGES.items():
            taken = lognormal(self.stage.rng, mean, LATENCY_SIGMA, n)
            total += taken
            self._observe(STAGE, _STAGE_BOUNDS, taken, stage=stage)
        self._observe(STAGE, _STAGE_BOUNDS, engine, stage="engine")
        summaries = round(n * ROUTES[1].share)
        self._observe(DURATION, _STAGE_BOUNDS, total[summaries:], route="chat")
        self._observe(DURATION, _STAGE_BOUNDS, total[:summaries], route="summary")

    def _count_engine_api(self, n: int, failed: int) -> None:
        about = {"namespace": self.service, "handler": "/v1/chat/completions", "method": "POST"}
        self._spread(HTTP, about, "status", {"2xx": 0.994, "4xx": 0.005, "5xx": 0.001}, n)
        self.registry.add(HTTP, {**about, "status": "5xx"}, failed)

    def _spread(
        self, family: Family, about: Mapping[str, str], label: str, shares: Mapping[str, float], n: int
    ) -> None:
        """Count n events over a label's values; every value exists from the start, so that a rate can see it rise."""
        total = sum(shares.values())
        drawn = self.stage.rng.multinomial(n, [share / total for share in shares.values()]).tolist()
        for value, amount in zip(shares, drawn, strict=True):
            self.registry.add(family, {**about, label: value}, amount)

    def _observe(self, family: Family, bounds: tuple[float, ...], taken: Floats, **labels: str) -> None:
        histogram = self.registry.histogram(family, bounds, {"service": self.service, **labels})
        self.registry.observe(histogram, taken)


def _shares(who: Sequence[Consumer]) -> list[float]:
    """Everybody's share of the requests; nobody asked at all when they are all zero, and then any shares will do."""
    shares = [one.requests for one in who]
    return shares if sum(shares) > 0 else [1 / len(who)] * len(who)
