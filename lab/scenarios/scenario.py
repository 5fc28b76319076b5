"""What a scenario is: a fault in the world, what heals it, who pages, and the truth that only its author knows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

from lab.gauges import Gauge
from lab.people import Person
from lab.rule import Rule
from lab.stage import Deed, Stage


class Scenario(Protocol):
    """One fault. It lives in the world's state, so that only a change of that state heals it."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def onset_before_live(self) -> timedelta:
        """How long before the live start it goes wrong: so long that the alert is about to fire."""

    @property
    def pace(self) -> float:
        """How many times faster than the wall a demo of it plays, unless somebody asks for another pace."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The alert rules that watch; each pages for itself."""

    @property
    def approver(self) -> Person:
        """Who may approve the fix that belongs to it, by the lab's policy."""

    @property
    def gauges(self) -> tuple[Gauge, Gauge]:
        """What the page's status bar shows: where the trouble is seen, and what it comes from."""

    def set_up(self, stage: Stage, start: datetime) -> None:
        """Give the world the past that it has when the history starts."""

    def deeds(self, onset: datetime) -> list[Deed]:
        """What happens, in order of time."""

    def is_healthy(self, stage: Stage) -> bool:
        """Whether the world's state is free of the fault right now (telemetry follows within minutes)."""

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:
        """Do by hand what a runbook's manual step says; False where that changes nothing here."""

    def truth(self, stage: Stage, /) -> dict[str, Any]:
        """Cause, class, scope, culprit and decoys, in the words of a case's truth."""
