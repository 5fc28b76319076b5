"""Q06: callers ask in a language, or about things, that the service was not made for."""

from __future__ import annotations

from datetime import datetime

from lab.answers import UNFAMILIAR, drawn
from lab.inputs import SEGMENTS
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage

_STRANGE = 0.32


class UnfamiliarInputs(Fault):
    """Nobody changed anything; it ends when those callers go elsewhere."""

    id = "Q06"
    title = "Callers ask what the service was not made for"
    alert = "LLMInputDrift"
    is_only_recorded = True
    shapes = (Shape.RAMP,)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.segment = SEGMENTS[-1]
        self.strangeness = _STRANGE

    def draw(self, stage: Stage) -> None:
        self.segment = str(stage.rng.choice(SEGMENTS[1:]))
        self.strangeness = min(0.48, _STRANGE * self.strength * float(stage.rng.uniform(0.8, 1.2)))
        stage.answering.unfamiliar = drawn(stage.rng, UNFAMILIAR, 1.0)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - the level says it all
        stage.inputs.strangeness[self.segment] = level * self.strangeness

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "segment", [self.segment]

    def is_healthy(self, stage: Stage) -> bool:
        """Nothing of ours is wrong, but the service does not serve these callers as well as it should."""
        return max(stage.inputs.strangeness.values(), default=0.0) == 0
