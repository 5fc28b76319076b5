"""Worlds for the lab's tests: one prepared with its two hours of history (shared, read-only), and small live ones."""

from __future__ import annotations

import functools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from lab import cluster, gateway
from lab.fleet import Fleet, gpu_racks
from lab.hardware import Hardware
from lab.prompt_store import PromptStore
from lab.scenarios import scenario
from lab.scenarios.fault import Fault
from lab.stage import Stage
from lab.world import Credentials, World

LIVE_START = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)

CREDENTIALS = Credentials(
    litellm_read="sk-read",
    litellm_admin="sk-admin",
    langfuse_read="pk-read:sk-read",
    langfuse_write="pk-write:sk-write",
    kube_read="read-token",
    kube_action="action-token",
    launchdarkly_read="api-read",
    launchdarkly_write="api-write",
    qdrant="qdrant-key",
    pagerduty_routing_key="R0LABCHAT00000000000000000000000",
)


def new_world(
    folder: Path,
    *,
    scenario_id: str = "S04",
    events_url: str = "http://127.0.0.1:9/v2/enqueue",
    pace: float = 20.0,
) -> World:
    return World(
        scenario_id,
        pace=pace,
        seed=11,
        folder=folder,
        live_start=LIVE_START,
        pagerduty_events_url=events_url,
        credentials=CREDENTIALS,
    )


@functools.cache
def prepared_world(scenario_id: str = "S04") -> World:
    """A world at its live start, some minutes after the onset. Shared by all tests: look, do not touch."""
    world = new_world(Path(tempfile.mkdtemp(prefix="lab-world-")), scenario_id=scenario_id)
    world._live_through_the_past()
    return world


class SmallWorld:
    """A fleet that has just started, with the prompts of the reference service and nothing wrong yet."""

    def __init__(self, scenario_id: str = "S04", *, seed: int = 5, fault: Fault | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.prompts = PromptStore()
        self.cluster = cluster.build(rng, LIVE_START)
        self.gateway = gateway.build(rng, gpu_racks(self.cluster))
        self.hardware = Hardware()
        self.stage = Stage(
            prompts=self.prompts, cluster=self.cluster, gateway=self.gateway, hardware=self.hardware, rng=rng
        )
        self.scenario = scenario(scenario_id)
        (fault or self.scenario).set_up(self.stage, LIVE_START)
        self.fleet = Fleet(
            start=LIVE_START,
            peak=LIVE_START,
            stage=self.stage,
        )
        self.fleet.step()

    def pass_time(self, span: timedelta) -> None:
        until = self.fleet.now + span
        while self.fleet.next_step <= until:
            self.fleet.step()

    def break_it(self) -> None:
        """Do what the scenario does, decoy first, now."""
        for deed in self.scenario.deeds(self.fleet.now):
            deed.do(self.stage)

    def total(self, name: str, **where: str) -> float:
        """The sum over all living series of one name that have these labels."""
        series = [s for s in self.fleet.registry.series if s.text.partition("{")[0] == name]
        places = [s.index for s in series if where.items() <= s.labels.items()]
        return float(np.nansum(self.fleet.registry.values[places]))

    def hit_ratio(self, over: timedelta = timedelta(minutes=2)) -> float:
        """What the prefix cache's counters say about the time that passes now."""
        hits, queries = self.total("vllm:prefix_cache_hits_total"), self.total("vllm:prefix_cache_queries_total")
        self.pass_time(over)
        return (self.total("vllm:prefix_cache_hits_total") - hits) / (
            self.total("vllm:prefix_cache_queries_total") - queries
        )
