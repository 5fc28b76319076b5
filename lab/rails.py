"""What the guardrails and their detectors export: decisions, injections seen, and sensitive answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.consumers import Consumer
from lab.exposition import STEP, Family, Registry, counter
from lab.routes import Route
from lab.stage import Stage
from lab.threats import FETCHED_BY, KINDS, SOURCES, acts_alone
from lab.tools import AGENTS

_CHECKED = {"retrieved": 0.1, "tool": 0.05, "output": 0.1}
"""Checks per request: passages are checked once and remembered, and answers by sample; questions always."""

_RAILS = {"user": "input", "retrieved": "retrieval", "tool": "execution", "output": "output"}
_USUALLY_BLOCKED = 0.004  # of what is not a question
_SEEN_BY_USERS, _SEEN_IN_CONTENT = 0.0017, 0.0001
"""Harmless text that looks like an injection: per request in questions, and in the content of each source."""

_DETECTED = 0.95  # of real injections
_SENSITIVE = {"pii": 0.0008, "secret": 0.0002}
_LEAKS_BLOCKED = 0.13
_OBEYED = 12.0  # more writes, as a factor, if every request read an order

PRINCIPALS = tuple(f"key-tenant-{place:02d}" for place in (1, 2, 3, 4, 5, 7, 9, 13, 17, 22, 31, 46))
"""The keys under which the detector has seen something in the last month; the other tenants' never trip it."""

GUARDRAIL = counter("llm_app_guardrail_total", "Guardrail decisions.")
INJECTIONS = counter("llm_app_injection_detections_total", "Hits of the prompt-injection detector.")
SENSITIVE = counter("llm_app_sensitive_output_total", "Answers in which the scanner found what must not be there.")


@dataclass(kw_only=True)
class Rails:
    """The guardrail service's side of every request of the routes with retrieval."""

    registry: Registry
    stage: Stage
    service: str = "chat"

    def step(self, answered: Mapping[tuple[Route, int], int], who: Sequence[Consumer]) -> None:
        """Account for the requests behind these answers, by route and prompt version, asked by these tenants."""
        checked = {key: number for key, number in answered.items() if key[0].retrieval}
        self._urge(answered)
        hits = self._detect(sum(checked.values()))
        leaked = sum(self._scan(route, version, number, who) for (route, version), number in checked.items())
        self._decide(sum(checked.values()), hits, leaked)

    def _urge(self, answered: Mapping[tuple[Route, int], int]) -> None:
        """Agents do what their prompt lets them, and some of what they are told by content that they read."""
        prompts, tools = self.stage.prompts, self.stage.tools
        alone = sum(
            n for (route, version), n in answered.items() if acts_alone(prompts.get(route.prompt, version).prompt)
        )
        share = alone / max(1, sum(answered.values()))
        obeyed = _OBEYED * sum(map(self._poison, SOURCES))
        tools.urged = {agent: 1 + share * (tools.acts_alone.get(agent, 1.0) - 1) + obeyed for agent in AGENTS}

    def _detect(self, requests: int) -> dict[str, int]:
        """Count what the detector sees; returns the real injections among it, by the way they came in."""
        rng, threats = self.stage.rng, self.stage.threats
        real = dict.fromkeys(("user", "retrieved", "tool"), 0)
        harmless = rng.poisson(requests * _SEEN_BY_USERS / len(PRINCIPALS), len(PRINCIPALS)).tolist()
        for principal, others in zip(PRINCIPALS, harmless, strict=True):
            asked = self._admitted(principal, threats.attackers.get(principal, 0.0)) * STEP.total_seconds()
            seen = int(rng.poisson(asked * _DETECTED))
            self._count(INJECTIONS, seen + others, surface="user", principal=principal)
            real["user"] += seen
        for source, surface in SOURCES.items():
            seen = int(rng.poisson(requests * self._poison(source) * _DETECTED))
            others = int(rng.poisson(requests * _SEEN_IN_CONTENT))
            self._count(INJECTIONS, seen + others, surface=surface, data_source=source)
            real[surface] += seen
        return real

    def _poison(self, source: str) -> float:
        """The share of the requests that are shown what is hidden in a source, where the source is still read."""
        if self.stage.knowledge_store.hides(source) or FETCHED_BY.get(source) in self.stage.tools.switched_off:
            return 0.0
        return self.stage.threats.poisoned.get(source, 0.0)

    def _admitted(self, alias: str, rps: float) -> float:
        """What the gateway lets pass of an attacker's requests."""
        if not rps:
            return 0.0
        gateway = self.stage.gateway
        return rps * gateway.key(alias).admitted(rps, rps * gateway.normal.request_tokens)

    def _scan(self, route: Route, version: int, answers: int, who: Sequence[Consumer]) -> int:
        """Count sensitive answers by kind and tenant; returns how many leaked beyond the usual."""
        leaks = self.stage.threats.leaking(self.stage.prompts.get(route.prompt, version).prompt)
        leaked = 0
        for kind in KINDS:
            for one in who:
                share = sum(leak.share for leak in leaks if leak.kind == kind and leak.tenant in ("", one.tenant))
                usual, more = self.stage.rng.poisson(
                    (answers * one.requests * _SENSITIVE[kind], answers * one.requests * share)
                ).tolist()
                self._count(SENSITIVE, usual + more, kind=kind, prompt_version=str(version), tenant=one.tenant)
                leaked += more
        return leaked

    def _decide(self, requests: int, injections: Mapping[str, int], leaked: int) -> None:
        """What each rail lets pass and blocks. A harmless request that is blocked never reaches a model."""
        guardrails, rng = self.stage.guardrails, self.stage.rng
        refused = {way: guardrails.blocks_injections * real for way, real in injections.items()}
        refused["output"] = _LEAKS_BLOCKED * leaked
        for surface, rail in _RAILS.items():
            ordinary = guardrails.blocked if surface == "user" else _USUALLY_BLOCKED * guardrails.stricter
            asked = requests / (1 - guardrails.blocked) if surface == "user" else requests * _CHECKED[surface]
            blocked = int(rng.poisson(asked * ordinary + refused[surface]))
            about = {"rail": rail, "policy_version": guardrails.policy_version, "surface": surface}
            self._count(GUARDRAIL, max(0, round(asked) - blocked), **about, decision="allow")
            self._count(GUARDRAIL, blocked, **about, decision="block")

    def _count(self, family: Family, amount: int, **labels: str) -> None:
        self.registry.add(family, {"service": self.service, **labels}, amount)
