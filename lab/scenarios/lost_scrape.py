"""S14, a control: the engines' metrics are not scraped any more, and nobody is hurt."""

from __future__ import annotations

from datetime import datetime

from lab.cluster import ENGINE
from lab.scenarios.fault import Fault
from lab.stage import Stage

_CHANGES = (
    "monitoring: rename the port in the engines' ServiceMonitor",
    "monitoring: move scrape authentication to a new secret",
    "monitoring: select ServiceMonitors by a new label",
)


class LostScrape(Fault):
    """Heals with a scrape configuration that finds the engines."""

    id = "S14"
    title = "The engines' metrics are not scraped"
    alert = "LLMMetricsAbsent"
    by_hand = "Repair the scraping"
    is_control = True

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.is_removed = False
        self.change = _CHANGES[0]

    def draw(self, stage: Stage) -> None:
        self.is_removed = bool(stage.rng.random() < 0.35)
        self.change = str(stage.rng.choice(["", *_CHANGES]))

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.change:
            author = str(stage.rng.choice(["erin", "frank", "ivan"]))
            scope = {"deployment": (ENGINE,)}
            stage.log.append(self.guilty(at, "monitoring", self.change, "git", author=author, scope=scope))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - scrapes know no time
        jobs = stage.monitoring.removed_jobs if self.is_removed else stage.monitoring.lost_jobs
        if level:
            jobs.add(ENGINE)
        else:
            jobs.discard(ENGINE)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "fleet", []

    def is_healthy(self, stage: Stage) -> bool:
        return not stage.monitoring.unread
