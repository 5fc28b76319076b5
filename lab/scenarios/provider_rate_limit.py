"""I01: an outside provider answers 429, since another product of the company uses most of the account's quota."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.alert_rules import PROVIDER_429
from lab.gauges import MEAN_TTFT, REFUSED_429, Gauge
from lab.people import DANA, Person
from lab.rule import Rule
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage

PROVIDER = "openai"
LEFT_FOR_US = 540_000.0
"""Tokens per minute, a tenth less than we ask for: with the clients' retries a quarter of the requests is refused."""


@dataclass(frozen=True, kw_only=True)
class ProviderRateLimit:
    """The quota stays small; it is healthy again when no provider is asked for more than it may answer."""

    id: str = "I01"
    title: str = "A provider's rate limit is reached"
    onset_before_live: timedelta = timedelta(minutes=5)
    pace: float = 30.0
    rules: tuple[Rule, ...] = (PROVIDER_429,)
    approver: Person = DANA
    gauges: tuple[Gauge, Gauge] = (REFUSED_429, MEAN_TTFT)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=lambda stage: stage.gateway.quotas.update({PROVIDER: LEFT_FOR_US})),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        return all(load.refused == 0 for load in stage.gateway.traffic().providers)

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

    def truth(self, _stage: Stage) -> dict[str, Any]:
        return {
            "cause": "I01",
            "class": "I",
            "scope": {"dimension": "provider", "values": [PROVIDER]},
            "control": False,
            "culprit_change": None,
            "culprit": None,
            "decoys": [DECOY],
        }
