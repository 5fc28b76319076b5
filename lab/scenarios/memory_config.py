"""S05: a rollout asks for more memory than there is, and its pods crash before they serve or soon after."""

from __future__ import annotations

from datetime import timedelta

from lab.cluster_failures import PodFailure
from lab.cluster_objects import Json
from lab.scenarios.engine_rollout import EngineRollout, set_argument
from lab.stage import Stage

_CUDA = (
    "torch.OutOfMemoryError: CUDA out of memory.",
    "ValueError: No available memory for the cache blocks. Try increasing gpu_memory_utilization.",
)
_MANY = 0.8
"""A fault of less than this strength takes one pod at a time."""


class MemoryMisconfigured(EngineRollout):
    """Half of the pods at most, as the team lets a rollout take two out at once."""

    id = "S05"
    title = "A rollout's pods run out of memory"
    alert = "LLMReplicaLoss"
    lead = timedelta(0)
    unavailable = 2

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.surge = 0
        self.host_limit_gib = 0
        self.length = 131_072
        self.message = _CUDA[0]
        self.lives = (timedelta(seconds=25), timedelta(seconds=70))

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        rng = stage.rng
        self.host_limit_gib = int(rng.choice([16, 20, 24, 32])) if rng.random() < 0.5 else 0
        self.length = int(rng.choice([65_536, 98_304, 131_072]))
        self.message = str(rng.choice(_CUDA))
        shortest = float(rng.uniform(20, 50))
        self.lives = (timedelta(seconds=shortest), timedelta(seconds=shortest + float(rng.uniform(15, 45))))

    def edit(self, container: Json, stage: Stage) -> str:
        if self.host_limit_gib:
            limit = f"{self.host_limit_gib}Gi"
            container["resources"]["limits"]["memory"] = limit
            container["resources"]["requests"]["memory"] = limit
            failure = PodFailure(
                hits=lambda pod: _memory(pod) == limit, reason="OOMKilled", exit_code=137, lives=self.lives
            )
            why = "right-size memory: what the dashboard says is used"
        else:
            set_argument(container, "--max-model-len", str(self.length))
            set_argument(container, "--max-num-batched-tokens", str(self.length))
            length = str(self.length)
            failure = PodFailure(hits=lambda pod: length in _args(pod), message=self.message, lives=self.lives)
            why = f"allow conversations of {self.length} tokens"
        stage.cluster.failures.append(failure)
        return why


def _memory(pod: Json) -> str:
    return str(pod["spec"]["containers"][0]["resources"]["limits"].get("memory", ""))


def _args(pod: Json) -> list[str]:
    args: list[str] = pod["spec"]["containers"][0].get("args", [])
    return args
