"""S02: prompts get much longer, for one route by a flag or for one tenant by what it sends."""

from __future__ import annotations

from datetime import datetime

from lab.scenarios.fault import Fault
from lab.stage import Stage

_USUAL_PASSAGES = 6
_LARGEST = 3
"""So many of the tenants ask often enough for their prompts to be felt by all."""


class LongerPrompts(Fault):
    """Heals with fewer passages, or when the tenant sends less."""

    id = "S02"
    title = "Prompts have become much longer"
    alert = "LLMHighTTFT"
    by_hand = "made the prompts"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.growth = 1 + 1.2 * strength
        self.tenant = ""

    def draw(self, stage: Stage) -> None:
        self.growth = 1 + self.strength * float(stage.rng.uniform(0.95, 1.45))
        if stage.rng.random() < 0.4:
            self.tenant = f"tenant-{1 + int(stage.rng.integers(_LARGEST)):02d}"

    @property
    def passages(self) -> int:
        """About how many passages make prompts so long: five sixths of a prompt are passages."""
        return 6 + round(6 * (self.growth - 1) / 0.83)

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.tenant:
            return  # they changed something, not we
        before = stage.flags.retrieved_passages
        stage.log.append(
            self.guilty(
                at,
                "flag",
                f"retrieval: {self.passages} passages a question instead of {before}",
                "flags",
                author=str(stage.rng.choice(["erin", "ivan", "judy"])),
                scope={"route": ("chat",)},
                before=f"retrieved_passages = {before}",
                after=f"retrieved_passages = {self.passages}",
            )
        )

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - neither flags nor callers know it
        if not self.tenant:
            stage.flags.retrieved_passages = 6 + round(level * (self.passages - 6))
            return
        # One tenant's prompts have to grow by more for all prompts together to grow by nearly as much.
        share = stage.gateway.key(f"key-{self.tenant}").share
        stage.callers.prompt_growth[self.tenant] = 1 + level * min(12.0, 0.8 * (self.growth - 1) / share)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return ("tenant", [self.tenant]) if self.tenant else ("route", ["chat"])

    def is_healthy(self, stage: Stage) -> bool:
        growth = stage.callers.prompt_growth.get(self.tenant, 1.0)
        return stage.flags.retrieved_passages <= _USUAL_PASSAGES and growth <= 1
