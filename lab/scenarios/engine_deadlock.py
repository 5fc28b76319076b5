"""S06: one engine waits for itself. Its process lives, its GPU spins, and no request comes back."""

from __future__ import annotations

from datetime import datetime

from lab.cluster import ENGINE
from lab.scenarios.fault import Fault
from lab.stage import Stage


class EngineDeadlock(Fault):
    """Only another pod in its place heals."""

    id = "S06"
    title = "An engine is deadlocked"
    alert = "LLMEngineStalled"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.pod = ""

    def begin(self, stage: Stage, at: datetime) -> None:
        """Draws its victim now, as pods have other names by then."""
        del at
        pods = [str(pod["metadata"]["name"]) for pod in stage.cluster.pods_of(ENGINE, ready=True)]
        self.pod = pods[int(stage.rng.integers(len(pods)))]

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a deadlock knows no time
        if level:
            stage.builds.deadlocked.add(self.pod)
        else:
            stage.builds.deadlocked.discard(self.pod)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "pod", [self.pod]

    def is_healthy(self, stage: Stage) -> bool:
        return not stage.builds.deadlocked & stage.cluster.kinds["pods"].keys()
