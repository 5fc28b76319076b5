"""X04: a batch job of one tenant has no limit and sends the longest prompts as fast as it can."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.alert_rules import SPEND
from lab.gateway import CHAT, Stream
from lab.gauges import MEAN_TTFT, SPENDING, Gauge
from lab.people import DANA, Person
from lab.rule import Rule
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage

KEY = "key-tenant-04"
JOB = Stream(key=KEY, group=CHAT, rps=6.0, prompt_tokens=22_000, output_tokens=600)
"""A quarter more requests, two and a half times the tokens: the engines' KV caches are almost full."""

_HEALTHY_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class RunawayKey:
    """The job never ends by itself; it is healthy again when the key gets less than a quarter of all tokens."""

    id: str = "X04"
    title: str = "One API key runs away with the budget"
    onset_before_live: timedelta = timedelta(minutes=37)  # spend is averaged over 30 minutes, and the rule waits 15
    pace: float = 30.0
    rules: tuple[Rule, ...] = (SPEND,)
    approver: Person = DANA
    gauges: tuple[Gauge, Gauge] = (SPENDING, MEAN_TTFT)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=lambda stage: stage.gateway.jobs.append(JOB)),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        streams = stage.gateway.traffic().streams
        everything = sum(stream.tokens_per_s for stream in streams)
        mine = sum(stream.tokens_per_s for stream in streams if stream.key == KEY)
        return mine <= _HEALTHY_SHARE * everything

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

    def truth(self, _stage: Stage) -> dict[str, Any]:
        return {
            "cause": "X04",
            "class": "X",
            "scope": {"dimension": "api_key", "values": [KEY]},
            "control": False,
            "culprit_change": None,
            "culprit": None,
            "decoys": [DECOY],
        }
