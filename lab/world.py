"""The world of a drill: clock, prompt store, cluster, fleet and alert rule, held together and served over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lab.clock import LabClock


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What the stand-ins accept: Langfuse as "public:secret", Kubernetes as bearer tokens, PagerDuty's routing key."""

    langfuse_read: str
    langfuse_write: str
    kube_read: str
    kube_action: str
    pagerduty_routing_key: str


class World:
    """
    Everything that a scenario is about, in one process with its own state.

    `await prepare()` simulates two hours up to `live_start` and writes `folder/history.om`; `await run()` goes on from
    there at `pace` times real time until it is cancelled. The three apps may be served as soon as `prepare` returned.
    """

    def __init__(
        self,
        scenario: str,
        *,
        pace: float,
        seed: int,
        folder: Path,
        live_start: datetime,
        pagerduty_events_url: str,
        credentials: Credentials,
    ) -> None:
        self.scenario_id = scenario
        self.folder = folder
        self.clock = LabClock(pace=pace, start=live_start)
        self.metrics_app = FastAPI(title="lab metrics")
        self.langfuse_app = FastAPI(title="lab Langfuse")
        self.kubernetes_app = FastAPI(title="lab Kubernetes")
        self._pagerduty_events_url = pagerduty_events_url
        self._credentials = credentials
        self._seed = seed

    @property
    def history_path(self) -> Path:
        return self.folder / "history.om"

    async def prepare(self) -> None:
        """Simulate the past and write it down for the assistant's recorder (or promtool) to load."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history_path.write_text("# EOF\n", encoding="utf-8")

    async def run(self) -> None:
        """Let lab time pass: step the fleet, keep the cluster's promises, evaluate the rule, page."""
        self.clock.restart()
        await asyncio.Event().wait()

    def truth(self) -> dict[str, Any]:
        """What only the scenario's author knows: the cause, the guilty change, and whether it is healed since when."""
        return {"scenario": self.scenario_id, "healed": False, "healed_at": None}
