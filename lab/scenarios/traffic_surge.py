"""S01 and S08: more callers than the engines can serve, where no further engine may start, or none can."""

from __future__ import annotations

from datetime import datetime, timedelta

from lab.cluster import ENGINE, WEIGHT_LOADING
from lab.cluster_objects import autoscaler, node
from lab.fleet import gpu_racks
from lab.scenarios.fault import Fault, Shape
from lab.scenarios.node_fault import idle_nodes
from lab.scenarios.traffic import times_the_peak
from lab.stage import Stage

_SLOW_PULL = timedelta(minutes=50)
_BEARABLE = 1.55
"""Times its usual requests per second: from about there on requests wait for each other in an engine."""


class TrafficSurge(Fault):
    """Everybody asks more than twice as much as usual; more engines, or fewer admitted requests, heal."""

    id = "S01"
    title = "Organic traffic beyond what the engines can serve"
    alert = "LLMQueueBacklog"
    shapes = (Shape.RAMP,)
    drill_strength = 0.68
    usual_factor = 2.5
    factors = (1.2, 1.8)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.factor = 1 + strength * (self.usual_factor - 1)

    def draw(self, stage: Stage) -> None:
        self.factor = 1 + self.strength * float(stage.rng.uniform(*self.factors))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - callers know no time
        stage.callers.surge = 1 + level * (times_the_peak(stage, self.factor) - 1)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "fleet", []

    def is_healthy(self, stage: Stage) -> bool:
        engines = len(stage.cluster.pods_of(ENGINE, ready=True))
        return stage.gateway.traffic().engines.rps <= _BEARABLE * stage.normal.replica_rps * max(1, engines)


class ScaleOutBlocked(TrafficSurge):
    """
    The autoscaler wants engines that do not come: no node has a GPU left, or pulling the weights takes an hour.

    Heals when nodes with GPUs are free again.
    """

    id = "S08"
    title = "The autoscaler's engines do not start"
    by_hand = "uncordon sound GPU nodes"
    drill_strength = 1.2
    usual_factor = 1.8
    factors = (0.65, 0.95)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.is_pull_slow = False
        self.most = 8

    def set_up(self, stage: Stage, start: datetime) -> None:
        super().set_up(stage, start)
        self.most = 8
        stage.cluster.put("horizontalpodautoscalers", autoscaler(ENGINE, 4, self.most, created=start))

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.is_pull_slow = bool(stage.rng.random() < 0.4)

    def begin(self, stage: Stage, at: datetime) -> None:
        del at
        if self.is_pull_slow:
            stage.cluster.loading = _SLOW_PULL
        else:
            for node in idle_nodes(stage):  # another team has them for now
                stage.cluster.get("nodes", node)["spec"]["unschedulable"] = True

    def repair(self, stage: Stage, at: datetime) -> None:
        """Give nodes back, also those that batch work had, and have the weights near them."""
        stage.cluster.loading = WEIGHT_LOADING
        for name in idle_nodes(stage):
            stage.cluster.get("nodes", name)["spec"].pop("unschedulable", None)
        for place in range(len(gpu_racks(stage.cluster)) + 1, self.most + 1):
            stage.cluster.put("nodes", node(f"gpu-{place}", f"rack-{place % 2 + 1}", 1, created=at))
