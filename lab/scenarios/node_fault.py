"""Faults of single nodes, and the nodes that serve requests, from which the hardware's faults take their victims."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from lab.cluster import ENGINE
from lab.fleet import gpu_racks
from lab.gateway import NODE_WEIGHT
from lab.scenarios.fault import Fault
from lab.stage import Stage


class NodeFault(Fault):
    """A fault of one node that serves requests. While the node gets none it hurts nobody."""

    node: str

    def set_up(self, stage: Stage, start: datetime) -> None:
        super().set_up(stage, start)
        self.node = serving_nodes(stage)[0]

    def draw(self, stage: Stage) -> None:
        nodes = serving_nodes(stage)
        self.node = nodes[int(stage.rng.integers(len(nodes)))]

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        del stage
        return "node", [self.node]

    @abstractmethod
    def is_broken(self, stage: Stage) -> bool:
        """Whether the node itself has the fault right now."""

    def is_healthy(self, stage: Stage) -> bool:
        return not (self.is_broken(stage) and is_used(stage, self.node))

    def repair(self, stage: Stage, at: datetime) -> None:
        """With the node back in service afterwards."""
        super().repair(stage, at)
        put_back(stage, self.node)


def is_used(stage: Stage, node: str) -> bool:
    """Whether a pod of the engine is there and gets requests."""
    return bool(pod_on(stage, node)) and stage.gateway.engine_weights().get(node, 1.0) > 0


def put_back(stage: Stage, node: str) -> None:
    """Uncordon it, and give its engine the weight at the gateway that it usually has."""
    stage.cluster.get("nodes", node)["spec"].pop("unschedulable", None)
    for one in stage.gateway.deployments.values():
        if one.node == node:
            one.weight = NODE_WEIGHT


def serving_nodes(stage: Stage) -> list[str]:
    """By name."""
    return sorted(str(pod["spec"]["nodeName"]) for pod in stage.cluster.pods_of(ENGINE, ready=True))


def shared_racks(stage: Stage) -> dict[str, list[str]]:
    """Racks in which at least two nodes serve requests, with those nodes."""
    racks: dict[str, list[str]] = {}
    for node in serving_nodes(stage):
        racks.setdefault(gpu_racks(stage.cluster)[node], []).append(node)
    return {rack: nodes for rack, nodes in sorted(racks.items()) if len(nodes) > 1}


def pod_on(stage: Stage, node: str) -> str:
    """The name of the engine's pod on this node, or "" when it has none."""
    pods = (pod for pod in stage.cluster.pods_of(ENGINE) if pod["spec"].get("nodeName") == node)
    return next((str(pod["metadata"]["name"]) for pod in pods), "")


def idle_nodes(stage: Stage) -> list[str]:
    """GPU nodes without a pod of the engine, by name."""
    used = {pod["spec"].get("nodeName") for pod in stage.cluster.pods_of(ENGINE)}
    return sorted(gpu_racks(stage.cluster).keys() - used)


def occupy_spare_nodes(stage: Stage) -> None:
    """Somebody else has the spare GPU nodes, so that whoever needs one more waits for it."""
    for name in idle_nodes(stage):
        stage.cluster.get("nodes", name)["spec"]["unschedulable"] = True
