"""The reference fleet, one scrape interval at a time: what the world is like decides what the exporters say."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import cos, tau

import numpy as np

from lab import autoscaling, cluster_metrics, scaling_metrics
from lab.application import Application
from lab.cluster import ENGINE, MODEL, Cluster
from lab.cluster_objects import GPU, NAMESPACE, TEMPLATE_HASH, Json
from lab.engine_load import Traffic, drive, load
from lab.engine_physics import Load, engine_limits
from lab.exposition import STEP, Registry, render
from lab.gpu_exporter import Activity, GpuExporter, advertise
from lab.monitoring import SERVING_FAMILIES
from lab.normal import REFERENCE
from lab.prompt_store import PRODUCTION, PromptStore, cacheable_share
from lab.routes import ROUTES
from lab.routing import crashed, shares
from lab.serving import Replica
from lab.stage import Stage

REPEATED = 0.03
"""The share of prompt tokens that belong to requests asked before, word for word."""

_DAILY_SWING = 0.25
_WEEK_HOURS, _WEEK_LEVELS = (0, 3, 117, 123, 165, 168), (0.95, 1.0, 1.0, 0.9, 0.9, 0.95)
"""Traffic by the hour of the week (Monday 00:00 is 0): a tenth less from Friday night to Sunday night."""

_CLIENTS = 4
"""The application's processes. Each asks for its prompts every 60 s, in turn: the prompt client's cache."""

_DAYS_OF_STEPS = 5760

_NOTICED_AFTER = (2, 5)
"""Steps until the gateway's health checks take a dead engine out: half a minute to a minute."""


def hit_ratio(text: str, best: float = REFERENCE.hit) -> float:
    """
    How much of a request's prompt is found in the prefix cache (`best` at most: the rest is passages and question).

    A template whose first fifth is variable text shares next to nothing, down to .03 for whole requests repeated.
    """
    return REPEATED + (best - REPEATED) * min(1.0, cacheable_share(text) / 0.8)


def gpu_racks(cluster: Cluster) -> dict[str, str]:
    """Every node that has a GPU, and the rack that it stands in."""
    return {
        name: str(node["metadata"]["labels"]["topology.kubernetes.io/rack"])
        for name, node in cluster.kinds["nodes"].items()
        if GPU in node["status"]["capacity"]
    }


@dataclass(kw_only=True)
class PromptClients:
    """Which version of each prompt every process of the application uses right now."""

    store: PromptStore
    held: dict[str, list[int]] = field(default_factory=dict)

    def refresh(self, step: int) -> None:
        """One of the processes, whose 60 s are over, asks again; at first all do."""
        for route in ROUTES:
            now = self.store.labelled(route.prompt, PRODUCTION).version
            held = self.held.setdefault(route.prompt, [now] * _CLIENTS)
            held[step % _CLIENTS] = now

    def shares(self, prompt: str) -> dict[int, float]:
        """Version -> share of that prompt's requests."""
        held = self.held[prompt]
        return {version: held.count(version) / len(held) for version in dict.fromkeys(held)}

    def hit(self, best: float) -> float:
        """The mean hit ratio over all requests, from the very texts that are in use."""
        return sum(
            route.share * share * hit_ratio(self.store.get(route.prompt, version).prompt, best)
            for route in ROUTES
            for version, share in self.shares(route.prompt).items()
        )


@dataclass(kw_only=True)
class Fleet:
    """
    All exporters of the reference fleet. Step 0 is at `start`; each step is one scrape interval of lab time.

    `peak` is when the day has most traffic; the state of everything else at each step decides what is measured.
    A drill's fleet is as busy on a Sunday as on any other day, so that its fault bites; a case's `has_weekends`.
    """

    start: datetime
    peak: datetime
    stage: Stage
    has_weekends: bool = False
    registry: Registry = field(default_factory=Registry)
    steps: int = -1
    _replicas: dict[str, Replica] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clients = PromptClients(store=self.stage.prompts)
        self._application = Application(registry=self.registry, stage=self.stage)
        self._gpu_exporter = GpuExporter(
            registry=self.registry, cluster=self.stage.cluster, hardware=self.stage.hardware, rng=self.stage.rng
        )
        self._pods: set[str] = set()
        self._target = autoscaling.target_per_replica(self.stage.normal)
        self._throttled: dict[str, float] = {}  # by pod, the share of its CFS periods
        self._unanswered = 0.0  # requests per second that went to engines which were dead
        self._dead: dict[str, int] = {}  # nodes whose pod just died, and the step at which the gateway learns of it

    @property
    def now(self) -> datetime:
        """The time of the last step."""
        return self.start + self.steps * STEP

    @property
    def next_step(self) -> datetime:
        return self.start + (self.steps + 1) * STEP

    def step(self) -> None:
        """Let one scrape interval pass."""
        self.steps += 1
        advertise(self.stage.cluster, self.stage.hardware)
        self.stage.cluster.advance(self.now)
        self.clients.refresh(self.steps)
        lost = self._follow_pods()
        loads = self._loads()
        busy = {self._replicas[pod].labels["node"] for pod, load in loads.items() if load.rps > 0}
        self.stage.hardware.step(gpu_racks(self.stage.cluster), busy)
        finished = {pod: replica.step(loads[pod]) for pod, replica in self._replicas.items()}
        given_up = {pod: replica.given_up for pod, replica in self._replicas.items()}
        failed = lost + self._turned_away() + sum(replica.failed for replica in self._replicas.values())
        self._application.step(finished, self._versions(), given_up=given_up, failed=failed)
        self._scale()
        cluster_metrics.step(self.registry, self.stage.cluster, self.stage.rng, self._throttled)
        scaling_metrics.step(self.registry, self.stage.cluster)
        self._export_gpus(busy)
        if self.steps == 0:
            self._age_counters()
        self._hide_what_nobody_scrapes()

    def metrics(self, only: AbstractSet[str] | None = None) -> str:
        """The text exposition of the last step, with its lab time on every line; `only` names families."""
        return render(self.registry, self.steps, round(self.start.timestamp() * 1000), only=only)

    def _organic_rps(self) -> float:
        """What callers ask of `chat` at this time of the day, and of the week."""
        day = (self.now - self.peak) / timedelta(days=1)
        swing = (1 + _DAILY_SWING * cos(tau * day)) / (1 + _DAILY_SWING)
        hour = self.now.weekday() * 24 + self.now.hour + self.now.minute / 60
        level = float(np.interp(hour, _WEEK_HOURS, _WEEK_LEVELS)) if self.has_weekends else 1.0
        return self.stage.normal.fleet_rps * swing * level

    def _loads(self) -> dict[str, Load]:
        """What each ready pod is asked to do: the gateway shares the traffic out by the weights of their nodes."""
        self.stage.gateway.prompt_growth = self.stage.callers.prompt_growth
        self.stage.gateway.outside_growth = (self.stage.tools.prompt_growth, self.stage.tools.answer_growth)
        self.stage.gateway.surge = self.stage.callers.surge
        demand = self.stage.gateway.demand(self._organic_rps())
        hit = self.clients.hit(self.stage.normal.hit) * (1 - self.stage.flags.salted)
        traffic = Traffic(demand=demand, versions=self._versions(), hit=max(REPEATED, hit))
        nodes = {pod: replica.labels["node"] for pod, replica in self._replicas.items()}
        # A pod that just died still gets all that it is due, one in a crash loop a part.
        dead = crashed(self.stage.cluster.pods_of(ENGINE)) | dict.fromkeys(self._dead, 1.0)
        shared = shares(self.stage.gateway, self.stage.cluster, nodes, dead)
        self._unanswered = demand.rps * (1 - sum(shared.values())) if nodes else demand.rps
        loads: dict[str, Load] = {}
        self._throttled.clear()
        for name, share in shared.items():
            pod = self.stage.cluster.get("pods", name)
            loads[name] = load(self.stage, pod, traffic, share)
            self.stage.hardware.drives[nodes[name]] = drive(loads[name], self.stage.builds.decode_slowness(pod))
            asked = loads[name].rps / self.stage.normal.replica_rps
            self._throttled[name] = self.stage.builds.frontend(pod, asked).throttled
            self._replicas[name].acceptance = self.stage.builds.accepted(pod)
        return loads

    def _versions(self) -> dict[str, dict[int, float]]:
        return {route.prompt: self.clients.shares(route.prompt) for route in ROUTES}

    def _turned_away(self) -> int:
        """Requests that the gateway sent to engines which were dead, before it noticed or to see whether they live."""
        return int(self.stage.rng.poisson(max(0.0, self._unanswered) * STEP.total_seconds()))

    def _follow_pods(self) -> int:
        """
        Ready pods take traffic and are scraped; a pod that is gone takes its series with it.

        Returns how many requests were lost in engines that died.
        """
        pods = {str(p["metadata"]["name"]): p for p in self.stage.cluster.pods_of(ENGINE, ready=True)}
        gone = self._replicas.keys() - pods.keys()
        died = gone & self.stage.cluster.kinds["pods"].keys()
        lost = 0
        for name in sorted(died):
            running = self._replicas[name].running
            lost += 0 if running is None else len(running.done_s)
            self._dead[self._replicas[name].labels["node"]] = self.steps + int(self.stage.rng.integers(*_NOTICED_AFTER))
        self._dead = {node: until for node, until in self._dead.items() if until > self.steps}
        there = set(self.stage.cluster.kinds["pods"])
        self.registry.forget("pod", self._pods - there)
        self._pods = there
        if gone:
            self.registry.forget("pod", died, prefix="vllm:")
            self._replicas = {name: replica for name, replica in self._replicas.items() if name not in gone}
        for name, pod in pods.items():
            if name not in self._replicas:
                self._replicas[name] = Replica(
                    registry=self.registry,
                    labels=self._serving_labels(pod),
                    rng=self.stage.rng,
                    limits=engine_limits(pod["spec"]["containers"][0].get("args", [])),
                )
        return lost

    def _serving_labels(self, pod: Json) -> dict[str, str]:
        node = self.stage.cluster.get("nodes", pod["spec"]["nodeName"])
        return {
            "namespace": NAMESPACE,
            "pod": str(pod["metadata"]["name"]),
            "node": str(node["metadata"]["name"]),
            "rack": str(node["metadata"]["labels"]["topology.kubernetes.io/rack"]),
            "model_name": MODEL,
            "revision": str(pod["metadata"]["labels"][TEMPLATE_HASH]),
        }

    def _export_gpus(self, busy: AbstractSet[str]) -> None:
        """The exporters' answers for every GPU node; those that serve requests are busy."""
        pods = self.stage.cluster.pods_of(ENGINE)
        users = {str(p["spec"]["nodeName"]): str(p["metadata"]["name"]) for p in pods if "nodeName" in p["spec"]}
        stalled = self.stage.hardware.is_stalled
        activities = {node: Activity.HUNG if stalled(node) else Activity.BUSY for node in busy}
        spinning = self.stage.builds.deadlocked & self._replicas.keys()
        activities |= {self._replicas[pod].labels["node"]: Activity.SPINNING for pod in spinning}
        self._gpu_exporter.step(self.steps, users, activities)

    def _scale(self) -> None:
        """The autoscalers see the requests in flight."""
        in_flight = sum(replica.in_flight for replica in self._replicas.values())
        autoscaling.step(self.stage.cluster, in_flight, len(self._replicas), self._target, self.now)

    def _hide_what_nobody_scrapes(self) -> None:
        """Series of the engines' scrape job while it is broken: they vanish, and what they count goes on."""
        self.registry.hidden.clear()
        monitoring = self.stage.monitoring
        if ENGINE not in monitoring.unread:
            return
        for series in self.registry.series:
            name, is_engine = series.family.name, series.labels.get("pod") in self._replicas
            if name == "up" and series.labels.get("job") == ENGINE:
                if ENGINE in monitoring.removed_jobs:
                    self.registry.hidden.add(series.index)
                else:
                    self.registry.values[series.index] = 0.0
            elif is_engine and name.startswith(SERVING_FAMILIES):
                self.registry.hidden.add(series.index)

    def _age_counters(self) -> None:
        """The fleet did not start when the history does: every counter already holds a day like the first step."""
        for series in self.registry.series:
            if series.family.kind in {"counter", "histogram"}:
                self.registry.values[series.index] *= _DAYS_OF_STEPS
