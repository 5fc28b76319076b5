"""G06: a link between the GPUs of a tensor-parallel group loses data, and every step waits for repetitions."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

from lab.cluster import ENGINE
from lab.cluster_objects import GPU
from lab.scenarios.fault import Shape
from lab.scenarios.node_fault import NodeFault, idle_nodes, pod_on
from lab.stage import Stage

_LINK_ERROR = 74
_NVLINK_5 = (145, 149)
_GPUS = 2


class NvlinkErrors(NodeFault):
    """
    Heals with a reset of the node's GPUs. Clocks and temperatures stay as they were.

    Only engines that span GPUs exchange data over links, so that in this world every engine has two.
    """

    id = "G06"
    title = "NVLink errors slow down a tensor-parallel engine"
    alert = "GPUNVLink"
    by_hand = "reset all GPUs"
    shapes = (Shape.STEP, Shape.INTERMITTENT)
    xid = _LINK_ERROR
    gpus: tuple[int, ...] = (0, 1)
    _pod = ""

    def set_up(self, stage: Stage, start: datetime) -> None:
        _span_two_gpus(stage, start)
        super().set_up(stage, start)
        self.faults = self.strength

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        rng = stage.rng
        self.faults = self.strength * float(rng.uniform(0.8, 1.2))
        self.xid = int(rng.choice(_NVLINK_5)) if rng.random() < 0.25 else _LINK_ERROR
        self.gpus = (0, 1) if rng.random() < 0.5 else (int(rng.integers(_GPUS)),)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        self._pod = self._pod or pod_on(stage, self.node)
        for gpu in self.gpus:
            stage.hardware.chip(self.node, gpu).link_faults = self.faults * level
            if level:
                stage.hardware.strike(self.node, self.xid, gpu)

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        return "pod", [self._pod or pod_on(stage, self.node)]

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.prefill_slowness(self.node) > 1


def _span_two_gpus(stage: Stage, start: datetime) -> None:
    """Two GPUs a node and two for every engine since long ago; of such nodes only one is spare."""
    for name in idle_nodes(stage)[1:]:
        del stage.cluster.kinds["nodes"][name]
    for node in stage.cluster.kinds["nodes"].values():
        if GPU in node["status"]["capacity"]:
            node["status"]["capacity"][GPU] = node["status"]["allocatable"][GPU] = str(_GPUS)
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 4}
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["args"] += ["--tensor-parallel-size", str(_GPUS)]
    for amounts in container["resources"].values():
        amounts[GPU] = str(_GPUS)
    long_ago = start - timedelta(hours=12)
    stage.cluster.update_deployment(deployment, long_ago)
    for minutes in range(0, 12, 2):
        stage.cluster.advance(long_ago + timedelta(minutes=minutes))
    usual = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    usual["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 1, "maxUnavailable": 0}
    stage.cluster.update_deployment(usual, long_ago + timedelta(minutes=12))
    stage.cluster.kinds["events"].clear()
