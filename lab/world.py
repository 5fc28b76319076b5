"""The world of a drill: clock, prompts, cluster, gateway, fleet and alert rules, held together and served over HTTP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from diagnostics.telemetry.recorder import Recorder
from lab import cluster, gateway
from lab.alertmanager import Alertmanager
from lab.clock import LabClock
from lab.exposition import STEP
from lab.fleet import Fleet, gpu_racks
from lab.hardware import Hardware
from lab.history import History
from lab.kubernetes import KubernetesApi
from lab.langfuse import LangfuseApi
from lab.launchdarkly import LaunchDarklyApi
from lab.litellm import LiteLLMApi
from lab.litellm_guardrails import GuardrailVersions
from lab.prompt_store import PromptStore
from lab.qdrant import QdrantApi
from lab.rule import RuleState
from lab.scenarios import scenario
from lab.side_services import SideServices
from lab.stage import Deed, Stage
from lab.switches import Switches

PAST = timedelta(hours=2)
_RULE_PAST = timedelta(minutes=30)
"""How far back rules are evaluated before the live start: longer than `for` and `keep_firing_for` of any together."""

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What the stand-ins accept: Langfuse as "public:secret", bearer tokens, PagerDuty's routing key."""

    langfuse_read: str
    langfuse_write: str
    kube_read: str
    kube_action: str
    litellm_read: str
    litellm_admin: str
    launchdarkly_read: str
    launchdarkly_write: str
    qdrant: str
    pagerduty_routing_key: str


class World:
    """
    Everything that a scenario is about, in one process with its own state.

    `await prepare()` simulates two hours up to `live_start` and writes `folder/history.om`; `await run()` goes on from
    there at `pace` times real time (None: the scenario's own) until it is cancelled. The apps may be served as
    soon as `prepare` returned. Raises UnknownScenarioError and ValueError (an unusable pace or start).
    """

    def __init__(
        self,
        scenario_id: str,
        *,
        pace: float | None,
        seed: int,
        folder: Path,
        live_start: datetime,
        pagerduty_events_url: str,
        credentials: Credentials,
    ) -> None:
        self.scenario = scenario(scenario_id)
        self.folder = folder
        self.clock = LabClock(pace=pace or self.scenario.pace, start=live_start)
        self._credentials = credentials
        self._pagerduty_events_url = pagerduty_events_url
        start = self.clock.start - PAST
        rng = np.random.default_rng(seed)
        self.prompts = PromptStore()
        self.cluster = cluster.build(rng, start)
        self.gateway = gateway.build(rng, gpu_racks(self.cluster))
        hardware = Hardware()
        self.stage = Stage(prompts=self.prompts, cluster=self.cluster, gateway=self.gateway, hardware=hardware, rng=rng)
        self._side_services = SideServices(stage=self.stage, built=start)
        self.scenario.set_up(self.stage, start)
        self.fleet = Fleet(
            start=start,
            peak=live_start,
            stage=self.stage,
        )
        self.onset = self.clock.start - self.scenario.onset_before_live
        self._deeds: deque[Deed] = deque(self.scenario.deeds(self.onset))
        self._broken_at: datetime | None = None
        self._healed_at: datetime | None = None
        self.langfuse = LangfuseApi(
            store=self.prompts,
            now=self.clock.now,
            read_key=credentials.langfuse_read,
            write_key=credentials.langfuse_write,
        )
        self.kubernetes = KubernetesApi(
            cluster=self.cluster,
            now=self.clock.now,
            read_token=credentials.kube_read,
            action_token=credentials.kube_action,
        )
        self.litellm = LiteLLMApi(
            gateway=self.gateway,
            now=self.clock.now,
            read_key=credentials.litellm_read,
            admin_key=credentials.litellm_admin,
            guardrails=GuardrailVersions(guardrails=self.stage.guardrails),
        )
        self.switches = Switches(stage=self.stage)
        self.launchdarkly = LaunchDarklyApi(
            switches=self.switches,
            now=self.clock.now,
            read_token=credentials.launchdarkly_read,
            write_token=credentials.launchdarkly_write,
        )
        self.qdrant = QdrantApi(store=self.stage.knowledge_store, now=self.clock.now, key=credentials.qdrant)
        self.langfuse_app = self.langfuse.app()
        self.kubernetes_app = self.kubernetes.app()
        self.litellm_app = self.litellm.app()
        self.launchdarkly_app = self.launchdarkly.app()
        self.qdrant_app = self.qdrant.app()
        self.metrics_app = _metrics_app(self.fleet.metrics)

    @property
    def history_path(self) -> Path:
        return self.folder / "history.om"

    @property
    def _rule_history_path(self) -> Path:
        return self.folder / "rule-history.om"

    async def prepare(self) -> None:
        """Simulate the past and write it down for the assistant's recorder (or promtool) to load."""
        await asyncio.to_thread(self._live_through_the_past)

    def _live_through_the_past(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        history = History(start=self.fleet.start)
        while self.fleet.next_step <= self.clock.start:
            self._step()
            history.record(self.fleet.registry)
        history.write(self.fleet.registry, self.history_path)
        history.write(self.fleet.registry, self._rule_history_path, only=self._rule_metrics)

    def _step(self) -> None:
        """Do what is due, let one scrape interval pass, and note whether the fault is still there."""
        now = self.fleet.next_step
        while self._deeds and self._deeds[0].at <= now:
            self._deeds.popleft().do(self.stage)
        self.switches.observe(now)
        self._side_services.step(now)
        self.fleet.step()
        self._note_health(now)

    def _note_health(self, now: datetime) -> None:
        if not self.scenario.is_healthy(self.stage):
            self._broken_at, self._healed_at = self._broken_at or now, None
        elif self._broken_at is not None and self._healed_at is None:
            self._healed_at = now

    async def run(self) -> None:
        """
        Let lab time pass: step the fleet, keep the cluster's promises, evaluate the rules, page.

        Raises TelemetryError when the rules' own recorder fails, which would be a mistake of the lab.
        """
        async with (
            httpx.AsyncClient(transport=_InProcess(lambda: self.fleet.metrics(only=self._rule_metrics))) as scraping,
            httpx.AsyncClient(timeout=5.0) as paging,
        ):
            recorder = Recorder(
                targets=["http://metrics.lab/metrics"],
                client=scraping,
                clock="samples",
                history=self._rule_history_path,
            )
            await recorder.open()
            rules = [RuleState(rule=rule, telemetry=recorder) for rule in self.scenario.rules]
            key = self._credentials.pagerduty_routing_key
            pages = [Alertmanager(client=paging, url=self._pagerduty_events_url, routing_key=key) for _ in rules]
            await self._evaluate_the_past(rules)
            self.clock.run()
            while True:
                await self.clock.sleep_until(self.fleet.next_step)
                self._step()
                await recorder.scrape_once()
                for rule, group in zip(rules, pages, strict=True):
                    await group.flush(await rule.evaluate(self.fleet.now), self.fleet.now)

    async def _evaluate_the_past(self, rules: list[RuleState]) -> None:
        """Prometheus was running all the time: an alert may be pending when the drill begins."""
        at = self.fleet.now - _RULE_PAST
        while at <= self.fleet.now:
            for rule in rules:
                await rule.evaluate(at)
            at += STEP

    @property
    def _rule_metrics(self) -> frozenset[str]:
        """What the scenario's rules read; their recorder keeps nothing else."""
        return frozenset[str]().union(*(rule.condition.metrics for rule in self.scenario.rules))

    def carry_out(self, instruction: str) -> bool:
        """What a person in this world does by hand when a runbook says so; False where that changes nothing."""
        return self.scenario.carry_out(instruction, self.stage, self.clock.now())

    def truth(self) -> dict[str, Any]:
        """What only the scenario's author knows: the cause, the guilty change, and whether it is healed since when."""
        self._note_health(self.clock.now())
        return {
            "scenario": self.scenario.id,
            **self.scenario.truth(self.stage),
            "onset": self.onset.isoformat(),
            "now": self.clock.now().isoformat(),
            "violations": [*self.litellm.violations, *self.launchdarkly.violations, *self.qdrant.violations],
            "healed": self._healed_at is not None,
            "healed_at": self._healed_at.isoformat() if self._healed_at else None,
        }


class _InProcess(httpx.AsyncBaseTransport):
    """Lets the rule's recorder scrape what is in this very process."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, request=request, headers={"content-type": _EXPOSITION}, text=self._text())


def _metrics_app(metrics: Callable[[], str]) -> FastAPI:
    app = FastAPI(title="Lab exporters", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def exposition() -> PlainTextResponse:
        return PlainTextResponse(metrics(), media_type=_EXPOSITION)

    return app
