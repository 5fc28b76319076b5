"""S13: API servers do not get the processor time that they need, and the GPUs wait for them."""

from __future__ import annotations

from datetime import datetime

from lab.cluster import ENGINE
from lab.engine_builds import extra_cores_for
from lab.scenarios.engine_rollout import let_roll_out
from lab.scenarios.fault import Fault, Shape
from lab.scenarios.traffic import day_level
from lab.stage import Stage

_UNNOTICED_S = 0.2  # before a request reaches the engine
_CAUSES = (
    "log every request with its tokens",
    "count tokens twice for the new billing",
    "mask personal data before the engine sees it",
)


class StarvedFrontend(Fault):
    """
    Heals with a higher limit of processor time, or, where one pod's process went astray, with another pod.

    With all pods it is something that the API server does since somebody switched it on; it grows over minutes, as
    workers take the new setting one by one.
    """

    id = "S13"
    title = "API servers are starved of processor time"
    alert = "LLMHighTTFT"
    shapes = (Shape.RAMP,)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.tightness = strength
        self.is_one_pod = False
        self.pod = ""
        self.cause = _CAUSES[0]

    def set_up(self, stage: Stage, start: datetime) -> None:
        """Two GPU nodes are spare, so that a higher limit takes eight minutes to reach all pods, not sixteen."""
        super().set_up(stage, start)
        let_roll_out(stage, start, surge=2)

    def draw(self, stage: Stage) -> None:
        self.tightness = self.strength * float(stage.rng.uniform(0.8, 1.2))
        self.is_one_pod = bool(stage.rng.random() < 0.35)
        self.cause = str(stage.rng.choice(["", *_CAUSES]))

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.is_one_pod:
            pods = [str(pod["metadata"]["name"]) for pod in stage.cluster.pods_of(ENGINE, ready=True)]
            self.pod = pods[int(stage.rng.integers(len(pods)))]
        elif self.cause:
            author = str(stage.rng.choice(["frank", "grace", "judy"]))
            summary = f"{ENGINE}: API servers {self.cause}"
            scope = {"deployment": (ENGINE,)}
            stage.log.append(self.guilty(at, "config", summary, "git", author=author, scope=scope))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - processors know no time
        limit = float(_cpu_limit(stage))
        cores = extra_cores_for(self.tightness * level, day_level(stage), limit)
        stage.builds.extra_cores[self.pod] = cores if level else 0.0

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return ("pod", [self.pod]) if self.pod else ("fleet", [])

    def is_healthy(self, stage: Stage) -> bool:
        pods = stage.cluster.pods_of(ENGINE, ready=True)
        return all(stage.builds.frontend(pod, day_level(stage)).seconds <= _UNNOTICED_S for pod in pods)


def _cpu_limit(stage: Stage) -> str:
    [container] = stage.cluster.get("deployments", ENGINE)["spec"]["template"]["spec"]["containers"]
    return str(container["resources"]["limits"]["cpu"])
