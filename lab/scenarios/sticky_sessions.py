"""S07: the gateway sends sessions back to where they were before, and one pod gets most of them."""

from __future__ import annotations

import copy
from datetime import datetime

from lab.cluster import ENGINE
from lab.routing import AFFINITY, GATEWAY, sticking
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage


class StickySessions(Fault):
    """
    Heals without the affinity, or, where nobody changed anything and tables of the gateway's pods have grown lopsided,
    with other pods of the gateway.
    """

    id = "S07"
    title = "One pod gets most of the requests"
    alert = "LLMHighTTFT"
    shapes = (Shape.RAMP,)
    drill_shape = Shape.STEP  # sessions stick as fast as the gateway's pods are replaced

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.factor = 1 + 1.5 * strength
        self.is_configured = True
        self.pod = self.node = ""

    def draw(self, stage: Stage) -> None:
        self.factor = 1 + self.strength * float(stage.rng.uniform(1.25, 1.75))
        self.is_configured = bool(stage.rng.random() < 0.6)

    def begin(self, stage: Stage, at: datetime) -> None:
        """Draws its victim now, as pods have other names by then."""
        pods = stage.cluster.pods_of(ENGINE, ready=True)
        victim = pods[int(stage.rng.integers(len(pods)))]
        self.pod, self.node = str(victim["metadata"]["name"]), str(victim["spec"]["nodeName"])
        if not self.is_configured:
            present = stage.cluster.pods_of(GATEWAY)
            stage.gateway.sticky_pods.update(str(pod["metadata"]["name"]) for pod in present)
            return
        deployment = copy.deepcopy(stage.cluster.get("deployments", GATEWAY))
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": AFFINITY, "value": "on"}]
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = "session affinity for better cache hits"
        stage.cluster.update_deployment(deployment, at)
        stage.log.append(
            self.guilty(
                at,
                "gateway",
                f"{GATEWAY}: session affinity for better cache hits",
                "argocd",
                author=str(stage.rng.choice(["grace", "heidi", "oscar"])),
                scope={"deployment": (GATEWAY,)},
                before="least-busy routing",
                after=f"{AFFINITY}=on",
            )
        )

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - the gateway knows no time
        stage.gateway.stickiness = {self.node: 1 + level * (self.factor - 1)} if level else {}

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "pod", [self.pod]

    def is_healthy(self, stage: Stage) -> bool:
        return not stage.gateway.stickiness or sticking(stage.gateway, stage.cluster) == 0
