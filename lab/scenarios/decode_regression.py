"""S09: a rollout makes every token slower: no CUDA graphs, drafts that nobody accepts, or slow kernels."""

from __future__ import annotations

from typing import ClassVar

from lab.cluster_objects import Json
from lab.engine_builds import acceptance_for
from lab.scenarios.engine_rollout import EngineRollout
from lab.stage import Stage

_EAGER, _DRAFTS, _KERNELS = "eager", "drafts", "kernels"
_TAGS = ("v0.11.1", "v0.11.2", "v0.12.0", "v0.12.1rc0", "v0.11.0-fa3")


class DecodeRegression(EngineRollout):
    """Pods of the old revision, and whatever has its image and arguments, are as fast as before."""

    id = "S09"
    title = "A new revision decodes slower"
    alert = "LLMHighITL"
    kind: ClassVar[str] = "engine"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.slowness = 1 + 0.6 * strength
        self.way = _EAGER
        self.tag = _TAGS[0]

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        # A slower token keeps requests in the batch for longer, which makes tokens slower again: 1.6 becomes 1.9.
        self.slowness = 1 + self.strength * float(stage.rng.uniform(0.5, 0.75))
        self.way = str(stage.rng.choice([_EAGER, _DRAFTS, _KERNELS]))
        self.tag = str(stage.rng.choice(_TAGS))

    def edit(self, container: Json, stage: Stage) -> str:
        if self.way == _EAGER:
            stage.builds.eager_slowness = self.slowness
            container["args"].append("--enforce-eager")
            return "start faster: no CUDA graph capture"
        image = f"{container['image'].rpartition(':')[0]}:{self.tag}"
        container["image"] = image
        if self.way == _DRAFTS:
            stage.builds.acceptance[image] = acceptance_for(self.slowness)
            return f"vLLM {self.tag} with the new draft model"
        stage.builds.slowness[image] = self.slowness
        return f"vLLM {self.tag}"
