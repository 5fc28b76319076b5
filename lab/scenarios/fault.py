"""A fault as cases and drills know it: how strong, which onset, what it does to the world's state, and the truth."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from lab.scenarios.prompt_past import write_prompts
from lab.stage import Deed, LoggedChange, Stage

_RAMP_STEP = timedelta(seconds=30)


class Shape(StrEnum):
    """How a fault begins: at once, over five to ten minutes, or on and off for two to six minutes each."""

    STEP = "step"
    RAMP = "ramp"
    INTERMITTENT = "intermittent"


class Fault(ABC):
    """
    One way in which the reference fleet fails.

    A fault lives in the world's state; telemetry follows from that by the exporters' own equations. `strength` scales
    how far every magnitude is from normal (1 is the usual case; 0.5 is a mild one). Magnitudes are drawn in `draw`, so
    that no two cases are alike; a fault that was not drawn has its middle magnitude.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    alert: ClassVar[str]
    """The first alert of the base pack that fires, as Prometheus names it."""
    shapes: ClassVar[tuple[Shape, ...]] = (Shape.STEP,)
    is_control: ClassVar[bool] = False
    by_hand: ClassVar[str] = ""
    """A pattern of the instructions that ask for the work by which a person heals it; "" where no such work does."""
    drill_strength: ClassVar[float] = 1.0
    """How strong a drill plays it: its rule fires, and what its runbook asks for is enough."""
    drill_shape: ClassVar[Shape | None] = None
    """How it begins in a drill, if not in the first of its shapes."""
    is_harmless: ClassVar[bool] = False
    """Nobody is hurt by it, so that the world counts as healthy all the time."""
    is_only_recorded: ClassVar[bool] = False
    """Nothing is to be changed: it ends with a person who writes it down."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def set_up(self, stage: Stage, start: datetime) -> None:
        """Give the world the past that it has when the history starts."""
        write_prompts(stage, start)

    def draw(self, stage: Stage) -> None:  # noqa: B027 - a fault without magnitudes has nothing to draw
        """Draw this case's magnitudes, victims and names from `stage.rng`, scaled by `strength`; before the onset."""

    def begin(self, stage: Stage, at: datetime) -> None:  # noqa: B027 - most faults are nobody's doing
        """What somebody changed to bring it about, once, at the onset: written to `stage.log` as guilty."""

    @abstractmethod
    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        """Set the state to this level of the fault: 0 is gone, 1 is all of it. Called again as a ramp goes on."""

    @abstractmethod
    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        """The dimension on which it is bounded, and its values (none for `fleet`)."""

    @abstractmethod
    def is_healthy(self, stage: Stage) -> bool:
        """Whether the world's state, not its telemetry, is free of the fault right now, whoever freed it and how."""

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:
        """Do by hand what the instruction of a runbook's manual step says; False where that changes nothing here."""
        if not self.by_hand or not re.search(self.by_hand, instruction):
            return False
        self.repair(stage, at)
        return True

    def repair(self, stage: Stage, at: datetime) -> None:
        """The work itself; for most faults, their state of before."""
        self.apply(stage, 0.0, at)

    def deeds(self, onset: datetime, until: datetime, shape: Shape, stage: Stage) -> Iterator[Deed]:
        """What happens from the onset on, in order of time."""
        yield Deed(at=onset, do=lambda stage: self.begin(stage, onset))
        for at, level in _levels(onset, until, shape, stage):
            yield Deed(at=at, do=lambda stage, at=at, level=level: self.apply(stage, level, at))  # type: ignore[misc]

    def truth(self, stage: Stage, onset: datetime, culprit: str | None) -> dict[str, Any]:
        """In the words of a case's truth.json."""
        dimension, values = self.scope(stage)
        return {
            "cause": self.id,
            "class": self.id[0],
            "scope": {"dimension": dimension, "values": sorted(values)},
            "culprit_change": culprit,
            "control": self.is_control,
            "onset": onset.isoformat(),
        }

    def guilty(self, at: datetime, kind: str, summary: str, source: str, **more: Any) -> LoggedChange:
        """A change that brings this fault about, for `begin` to log."""
        return LoggedChange(at=at, kind=kind, summary=summary, source=source, is_guilty=True, **more)


def _levels(onset: datetime, until: datetime, shape: Shape, stage: Stage) -> Iterator[tuple[datetime, float]]:
    if shape is Shape.STEP:
        yield onset, 1.0
    elif shape is Shape.RAMP:
        steps = int(stage.rng.integers(10, 21))  # of half a minute
        for place in range(1, steps + 1):
            yield onset + place * _RAMP_STEP, place / steps
    else:
        at, level = onset, 1.0
        while at <= until:
            yield at, level
            at += timedelta(seconds=float(stage.rng.uniform(120, 360)))
            level = 1.0 - level
