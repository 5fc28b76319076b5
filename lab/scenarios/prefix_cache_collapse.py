"""S04: a prompt starts with the current time, so no two requests share a prefix."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab import prompt_texts
from lab.alert_rules import HIGH_TTFT
from lab.fleet import hit_ratio
from lab.gauges import MEAN_TTFT, PREFIX_HITS, Gauge
from lab.people import BOB, Person
from lab.prompt_store import PRODUCTION
from lab.rule import Rule
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage

HEALTHY_HIT_RATIO = 0.30
"""Above this a prompt counts as cacheable again; the reference fleet has .40, the broken one .03."""


@dataclass(frozen=True, kw_only=True)
class PrefixCacheCollapse:
    """Heals with any `production` version of chat-system that starts with what all requests share."""

    id: str = "S04"
    title: str = "A prompt change broke the prefix cache"
    onset_before_live: timedelta = timedelta(minutes=6)
    pace: float = 20.0
    rules: tuple[Rule, ...] = (HIGH_TTFT,)
    approver: Person = BOB
    gauges: tuple[Gauge, Gauge] = (MEAN_TTFT, PREFIX_HITS)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=lambda stage: _put_the_time_first(stage, onset)),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        return hit_ratio(stage.prompts.labelled("chat-system", PRODUCTION).prompt) >= HEALTHY_HIT_RATIO

    def truth(self, _stage: Stage) -> dict[str, Any]:
        return {
            "cause": "S04",
            "class": "S",
            "scope": {"dimension": "fleet", "values": []},
            "control": False,
            "culprit_change": "prompts:chat-system:8",  # source:prompt:version, the source as the lab's config names it
            "culprit": {"prompt": "chat-system", "label": PRODUCTION, "version": 8, "previous_version": 7},
            "decoys": [DECOY],
        }


def _put_the_time_first(stage: Stage, at: datetime) -> None:
    stage.prompts.create(
        "chat-system",
        prompt_texts.CHAT_SYSTEM_TIMESTAMPED,
        at=at,
        created_by="bob",
        labels=(PRODUCTION,),
        commit_message="Let answers know the time of day",
    )
