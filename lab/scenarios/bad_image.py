"""G08: a new image's kernels fault on every GPU; its pods crash with application XIDs wherever they run."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

from lab.cluster import ENGINE
from lab.cluster_failures import PodFailure
from lab.cluster_objects import TEMPLATE_HASH, Json, template_hash
from lab.scenarios.fault import Fault
from lab.stage import Stage

_ILLEGAL_ACCESS, _PAGE_FAULT = 13, 31
_TAGS = ("v0.11.1", "v0.11.2rc1", "v0.12.0", "v0.11.0-cu130", "v0.11.0-fa4")
_PEOPLE = ("frank", "grace", "mallory", "oscar")


class BadImage(Fault):
    """Heals when the deployment runs an image that is not this one."""

    id = "G08"
    title = "A new image's kernels crash on every GPU"
    alert = "LLMReplicaLoss"
    tag = _TAGS[0]
    xids: tuple[int, ...] = (_ILLEGAL_ACCESS, _PAGE_FAULT)
    surge = 1
    lives = (timedelta(seconds=40), timedelta(seconds=90))
    author = _PEOPLE[0]

    def set_up(self, stage: Stage, start: datetime) -> None:
        """This team lets a rollout take half of the pods out at once."""
        super().set_up(stage, start)
        deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
        deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": self.surge, "maxUnavailable": 2}
        stage.cluster.update_deployment(deployment, start)

    def draw(self, stage: Stage) -> None:
        rng = stage.rng
        self.tag = str(rng.choice(_TAGS))
        self.author = str(rng.choice(_PEOPLE))
        self.xids = ((_ILLEGAL_ACCESS,), (_PAGE_FAULT,), (_ILLEGAL_ACCESS, _PAGE_FAULT))[int(rng.integers(3))]
        shortest = float(rng.uniform(20, 70))
        self.lives = (timedelta(seconds=shortest), timedelta(seconds=shortest + float(rng.uniform(20, 60))))

    def begin(self, stage: Stage, at: datetime) -> None:
        deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        before = str(container["image"])
        container["image"] = f"{before.rpartition(':')[0]}:{self.tag}"
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = f"vLLM {self.tag}"
        bad = template_hash(deployment["spec"]["template"])
        stage.cluster.failures.append(
            PodFailure(
                hits=lambda pod: pod["metadata"]["labels"].get(TEMPLATE_HASH) == bad,
                exit_code=1,
                message="CUDA error: an illegal memory access was encountered",
                lives=self.lives,
                ends=lambda pod: self._fault(stage, pod),
            )
        )
        stage.cluster.update_deployment(deployment, at)
        stage.log.append(
            self.guilty(
                at,
                "engine",
                f"{ENGINE}: image {self.tag}",
                "kubernetes",
                author=self.author,
                scope={"deployment": (ENGINE,), "revision": (bad,)},
                before=before,
                after=str(container["image"]),
            )
        )

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        """The rollout takes its own time."""

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        return "revision", [template_hash(stage.cluster.get("deployments", ENGINE)["spec"]["template"])]

    def _fault(self, stage: Stage, pod: Json) -> None:
        for xid in self.xids:
            stage.hardware.strike(str(pod["spec"]["nodeName"]), xid)
