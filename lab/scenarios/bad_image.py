"""G08: a new image's kernels fault on every GPU; its pods crash with application XIDs wherever they run."""

from __future__ import annotations

from datetime import timedelta

from lab.cluster_failures import PodFailure
from lab.cluster_objects import Json
from lab.scenarios.engine_rollout import EngineRollout
from lab.stage import Stage

_ILLEGAL_ACCESS, _PAGE_FAULT = 13, 31
_TAGS = ("v0.11.1", "v0.11.2rc1", "v0.12.0", "v0.11.0-cu130", "v0.11.0-fa4")


class BadImage(EngineRollout):
    """Half of the pods stay, and three new ones crash while they warm up: two in place of old ones, one beside them."""

    id = "G08"
    title = "A new image's kernels crash on every GPU"
    alert = "LLMReplicaLoss"
    kind = "engine"
    lead = timedelta(0)
    unavailable = 2

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.surge = 1
        self.tag = _TAGS[0]
        self.xids: tuple[int, ...] = (_ILLEGAL_ACCESS, _PAGE_FAULT)
        self.lives = (timedelta(seconds=40), timedelta(seconds=90))

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        rng = stage.rng
        self.tag = str(rng.choice(_TAGS))
        self.xids = ((_ILLEGAL_ACCESS,), (_PAGE_FAULT,), (_ILLEGAL_ACCESS, _PAGE_FAULT))[int(rng.integers(3))]
        shortest = float(rng.uniform(20, 70))
        self.lives = (timedelta(seconds=shortest), timedelta(seconds=shortest + float(rng.uniform(20, 60))))

    def edit(self, container: Json, stage: Stage) -> str:
        image = f"{container['image'].rpartition(':')[0]}:{self.tag}"
        container["image"] = image
        stage.cluster.failures.append(
            PodFailure(
                hits=lambda pod: pod["spec"]["containers"][0]["image"] == image,
                message="CUDA error: an illegal memory access was encountered",
                lives=self.lives,
                ends=lambda pod: self._fault(stage, pod),
            )
        )
        return f"vLLM {self.tag}"

    def _fault(self, stage: Stage, pod: Json) -> None:
        for xid in self.xids:
            stage.hardware.strike(str(pod["spec"]["nodeName"]), xid)
