"""What the application exports of its traffic: requests, sessions, stages, tokens and spend by who asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.callers import USUAL_RETRIES
from lab.consumers import Consumer, consumers, only, request_shares, tenant_of
from lab.exposition import STEP, Family, Floats, Registry, counter, histogram
from lab.gateway import CHAT, OUTSIDE, OWN, USD_PER_TOKEN, Traffic
from lab.gateway_metrics import Calls, GatewayExporter, call
from lab.knowledge_store import TIMEOUT_S
from lab.providers import ACCOUNTS, TOO_LONG, Refusal
from lab.retrieval_metrics import RetrievalExporter
from lab.routes import ROUTES, Route
from lab.serving import LATENCY_SIGMA, Requests, lognormal
from lab.stage import Stage
from lab.tool_metrics import ToolExporter
from lab.verdicts import Verdicts

_STAGE_BOUNDS = (0.025, 0.05, 0.1, 0.25, 1, 2.5, 5, 10)
_USUALLY_FAILED, _USUALLY_ABORTED = 0.001, 0.005  # of those that reach an engine
_AT_THE_DOOR = {"4xx": 0.005, "429": 0.0005}  # of all: bad requests, and bursts of one key
_ABORTED_BEFORE_RETRY, _FAILED_BEFORE_RETRY = 0.27, 0.09
"""What a retry follows: a client that hung up, or a 5xx. The rest are asked again while the first one still runs."""

_GATEWAY_S = 0.030
_TOO_LONG = "too long"

REQUESTS = counter("llm_app_requests_total", "Requests at the application's edge.")
SESSIONS = counter("llm_app_sessions_total", "Distinct sessions started.")
DURATION = histogram("llm_app_request_duration_seconds", "End to end at the application.")
STAGE = histogram("llm_app_stage_seconds", "Time by stage outside and inside the engine.")
TOKENS = counter("llm_app_tokens_total", "Tokens by direction.")
COST = counter("llm_app_cost_usd_total", "Spend (USD).")
HTTP = counter("http_requests_total", "HTTP requests of the engine's API server.")
PROVIDER_ERRORS = counter("llm_app_provider_errors_total", "Refusals and failures by the provider's own code.")


@dataclass(frozen=True, kw_only=True)
class _Lost:
    """Requests of one step without an answer: by pod those whose callers left, and those that found no engine."""

    given_up: Mapping[str, int]
    failed: int


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
        stage, registry, rng = self.stage, self.registry, self.stage.rng
        self._gateway = GatewayExporter(registry=registry, rng=rng, guardrails=stage.guardrails)
        self._verdicts = Verdicts(registry=registry, stage=stage, service=self.service, model=self.model)
        self._retrieval = RetrievalExporter(
            registry=registry, store=stage.knowledge_store, inputs=stage.inputs, rng=rng
        )
        self._tools = ToolExporter(registry=registry, tools=stage.tools, rng=rng)

    def step(
        self,
        by_pod: Mapping[str, Requests],
        versions: Mapping[str, Mapping[int, float]],
        *,
        given_up: Mapping[str, int],
        failed: int = 0,
    ) -> None:
        """
        Account for the requests that each pod finished in this step, whose callers gave up, or that failed (5xx).

        What the providers answer, and what the gateway turns away, is drawn from its present traffic.
        """
        traffic = self.stage.gateway.traffic()
        answered = {pod: len(requests.done_s) for pod, requests in by_pod.items()}
        e2e = np.concatenate([requests.e2e_s for requests in by_pod.values()]) if by_pod else np.zeros(0)
        lost = _Lost(given_up=given_up, failed=failed)
        everybody = consumers(traffic.to(CHAT))
        too_long = self._count_own(by_pod, versions, lost, everybody)
        self._time_stages(e2e)
        self._count_engine_api(len(e2e), too_long, failed)
        own = {"service": self.service, "provider": OWN, "account": "in-house", "model": self.model, "key": "engines"}
        self.registry.add(PROVIDER_ERRORS, {**own, "code": TOO_LONG.code}, too_long)
        newest = str(max(versions[ROUTES[0].prompt]))
        outside = self.stage.answering.outside
        calls = [
            call(self.stage.rng, load, outside[load.model].length if load.model in outside else 1.0)
            for load in traffic.providers
        ]
        askers = {group: consumers(traffic.to(group)) for group in OUTSIDE}
        for one in calls:
            self._count_calls(one, newest, askers[one.load.group])
        self._count_turned_away(newest, traffic)
        self._gateway.step(e2e, calls, too_long=too_long)
        self._retrieval.step(round(sum(answered.values()) * ROUTES[0].share))
        # Neither a client's repeated requests nor a batch job call tools.
        gateway = self.stage.gateway
        people = gateway.organic_rps * gateway.surge * STEP.total_seconds()
        self._tools.step(round(min(people, sum(answered.values()))))
        self._verdicts.step(answered, {one.load.model: one.answered for one in calls}, versions, everybody)

    # What our own engines were asked

    def _count_own(
        self,
        by_pod: Mapping[str, Requests],
        versions: Mapping[str, Mapping[int, float]],
        lost: _Lost,
        everybody: Sequence[Consumer],
    ) -> int:
        """By route, prompt version, tenant and pod; returns how many prompts were too long for the engines."""
        prompt = float(sum(requests.prompt_tokens.sum() for requests in by_pod.values()))
        output = float(sum(requests.output_tokens.sum() for requests in by_pod.values()))
        too_long = 0
        for route in ROUTES:
            who = [only(route.only)] if route.only else everybody
            for version, share in versions[route.prompt].items():
                part = route.share * share
                about = self._asked(route, str(version))
                asked, aborted = 0, 0.0
                for pod, requests in by_pod.items():
                    ended = self._ended(len(requests.done_s) * part, lost.given_up.get(pod, 0) * part)
                    aborted += ended.pop("aborted")
                    asked += self._count_pod(about, pod, ended, who)
                missing = self._unanswered(route, asked, round(lost.failed * part))
                too_long += missing.pop(_TOO_LONG)
                self._count_unanswered(about, {**missing, "aborted": round(aborted)}, who)
                tokens = {"input": prompt * part, "output": output * part}
                self._count_tokens(str(version), tokens, who, self.model)
        return too_long

    def _ended(self, answered: float, given_up: float) -> dict[str, float]:
        """How requests at an engine ended, in mean numbers: what its callers repeat, they left or got a 5xx for."""
        retries = max(0.0, self.stage.callers.retries - USUAL_RETRIES)
        again = retries / (1 + retries)
        aborted = answered * (_USUALLY_ABORTED + _ABORTED_BEFORE_RETRY * again)
        failed = answered * (_USUALLY_FAILED + _FAILED_BEFORE_RETRY * again)
        return {"ok": max(0.0, answered - aborted - failed), "5xx": failed, "aborted": aborted + given_up}

    def _count_pod(
        self, about: Mapping[str, str], pod: str, ended: Mapping[str, float], who: Sequence[Consumer]
    ) -> int:
        """Requests that one pod answered, with an answer or a 5xx; returns their number."""
        asked = round(sum(ended.values()))
        shares = ended if asked else dict.fromkeys(ended, 1.0)
        for one, mine in zip(who, self._shared_out(asked, who), strict=True):
            which = {**about, **_who(one.tenant), "pod": pod}
            self.registry.spread(self.stage.rng, REQUESTS, which, ("status", shares), mine)
            self._count_sessions(one.tenant, mine, self._begins)
        return asked

    @property
    def _begins(self) -> float:
        """The share of the requests that begin a session."""
        return 1 / (1 + self.stage.callers.retries) / self.stage.tools.turns

    def _unanswered(self, route: Route, asked: int, failed: int) -> dict[str, int]:
        """Requests that no pod took, by status; and how many of them carried a prompt beyond the context window."""
        rng = self.stage.rng
        long = self.stage.flags.whole_documents.get(route.name, 0.0)
        too_long = int(rng.poisson(asked * long / (1 - long)))
        refused = {status: int(rng.poisson(asked * share)) for status, share in _AT_THE_DOOR.items()}
        blocked = {}
        if self.stage.guardrails.wrongly_blocked and route.retrieval:  # they are answered by the guardrails
            blocked["ok"] = int(rng.poisson(asked * (1 / self.stage.guardrails.let_through - 1)))
        return {**blocked, **refused, "4xx": refused["4xx"] + too_long, "5xx": failed, _TOO_LONG: too_long}

    def _count_unanswered(self, about: Mapping[str, str], ended: Mapping[str, int], who: Sequence[Consumer]) -> None:
        """No pod stands behind these: who left is counted where they came in."""
        for status, n in ended.items():
            for one, mine in zip(who, self._shared_out(n, who), strict=True):
                self.registry.add(REQUESTS, {**about, **_who(one.tenant), "status": status}, mine)
                self._count_sessions(one.tenant, mine, self._begins if status == "aborted" else 1.0)

    # What went outside, or nowhere

    def _count_calls(self, calls: Calls, version: str, who: Sequence[Consumer]) -> None:
        """
        Requests that a provider answered, refused or failed, by who asked.

        With a fallback its refusals are the gateway's business: another model answers those requests and counts them.
        """
        load = calls.load
        failures = dict.fromkeys(calls.failures, 0) if load.falls_back_to else dict(calls.failures)
        outcomes = {"ok": calls.answered, "429": 0, "5xx": 0}
        for refusal, n in failures.items():
            outcomes[refusal.kind] = outcomes.get(refusal.kind, 0) + n
        asked = sum(outcomes.values())
        shares = outcomes if asked else dict.fromkeys(outcomes, 1.0)
        once = 1 - min(1.0, calls.retried / asked) if asked else 1.0
        for one, mine in zip(who, self._shared_out(asked, who), strict=True):
            about = {**self._asked(ROUTES[0], version, load.model), **_who(one.tenant)}
            self.registry.spread(self.stage.rng, REQUESTS, about, ("status", shares), mine)
            self._count_sessions(one.tenant, mine, once / (1 + USUAL_RETRIES))
        self._count_provider_errors(calls, failures)
        tokens = {"input": calls.answered * load.prompt_tokens, "output": calls.answered * load.output_tokens}
        self._count_tokens(version, tokens, who, load.model, group=load.group)
        around = _GATEWAY_S + self.stage.guardrails.seconds + self.stage.knowledge_store.takes_s
        fast = np.concatenate([np.full(n, refusal.takes_s) for refusal, n in failures.items()])
        self._observe(DURATION, np.concatenate([calls.took_s, fast]) + around, route=ROUTES[0].name)

    def _count_provider_errors(self, calls: Calls, failures: Mapping[Refusal, int]) -> None:
        """By the provider's own code and the key it was asked with: keys are used in turn, and one may be bad alone."""
        load = calls.load
        account = ACCOUNTS[load.provider]
        about = {"service": self.service, "provider": load.provider, "account": account.name, "model": load.model}
        for refusal, n in failures.items():
            one_key = load.trouble.key if load.trouble and refusal == load.trouble.refusal else ""
            keys = (one_key,) if one_key else account.keys
            for key, mine in zip(
                keys, self.stage.rng.multinomial(n, [1 / len(keys)] * len(keys)).tolist(), strict=True
            ):
                self.registry.add(PROVIDER_ERRORS, {**about, "key": key, "code": refusal.code}, mine)

    def _count_turned_away(self, version: str, traffic: Traffic) -> None:
        """A key over its limit gets 429 from the gateway, a blocked one 401; neither reaches a model."""
        for alias, rps in traffic.turned_away.items():
            status = "4xx" if self.stage.gateway.key(alias).blocked else "429"
            about = {**self._asked(ROUTES[0], version), **_who(tenant_of(alias)), "status": status}
            self.registry.add(REQUESTS, about, int(self.stage.rng.poisson(rps * STEP.total_seconds())))

    # By who asked

    def _asked(self, route: Route, version: str, model: str = "") -> dict[str, str]:
        about = {"service": self.service, "route": route.name, "prompt_name": route.prompt, "prompt_version": version}
        return {**about, "model": model or self.model}

    def _shared_out(self, n: int, who: Sequence[Consumer]) -> list[int]:
        """So many requests, by who sent them."""
        return [int(mine) for mine in self.stage.rng.multinomial(n, request_shares(who))]

    def _count_sessions(self, tenant: str, requests: int, share: float) -> None:
        """Those of the requests that begin a session; the others repeat an earlier one or go on."""
        n = int(self.stage.rng.binomial(requests, min(1.0, share)))
        self.registry.add(SESSIONS, {"service": self.service, "tenant": tenant}, n)

    def _count_tokens(
        self, version: str, tokens: Mapping[str, float], who: Sequence[Consumer], model: str, *, group: str = CHAT
    ) -> None:
        """Tokens and what they cost, by who asked."""
        about = {"service": self.service, "prompt_version": version, "model": model}
        price = USD_PER_TOKEN[model]
        for one in who:
            mine = {"input": tokens["input"] * one.prompt, "output": tokens["output"] * one.output}
            usd = mine["input"] * price.input + mine["output"] * price.output
            key = {"tenant": one.tenant, "api_key": one.api_key}
            self.registry.add(COST, {"service": self.service, "model": model, **key}, usd)
            self._gateway.account(group, model, one, mine, usd)
            for direction, amount in mine.items():
                self.registry.add(TOKENS, {**about, "direction": direction, **key}, round(amount))

    # Where the time goes

    def _time_stages(self, engine: Floats) -> None:
        total = engine.copy()
        store = self.stage.knowledge_store
        means = {"gateway": _GATEWAY_S, "guardrail_in": self.stage.guardrails.seconds, "retrieval": store.takes_s}
        for stage, mean in means.items():
            taken = lognormal(self.stage.rng, mean, LATENCY_SIGMA, len(engine))
            if stage == "retrieval" and store.overload:
                taken = np.minimum(taken, TIMEOUT_S)
            total += taken
            self._observe(STAGE, taken, stage=stage)
        self._observe(STAGE, engine, stage="engine")
        summaries = round(len(engine) * ROUTES[1].share)
        self._observe(DURATION, total[summaries:], route="chat")
        self._observe(DURATION, total[:summaries], route="summary")

    def _observe(self, family: Family, taken: Floats, **labels: str) -> None:
        histogram = self.registry.histogram(family, _STAGE_BOUNDS, {"service": self.service, **labels})
        self.registry.observe(histogram, taken)

    def _count_engine_api(self, answered: int, too_long: int, failed: int) -> None:
        about = {"namespace": self.service, "handler": "/v1/chat/completions", "method": "POST"}
        usual = {"2xx": 0.994, "4xx": 0.005, "5xx": 0.001}
        self.registry.spread(self.stage.rng, HTTP, about, ("status", usual), answered)
        for status, n in (("4xx", too_long), ("5xx", failed)):
            self.registry.add(HTTP, {**about, "status": status}, n)


def _who(tenant: str) -> dict[str, str]:
    return {"tenant": tenant, "api_key": f"key-{tenant}"}
