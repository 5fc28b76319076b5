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
from lab.scenarios.fault import Fault
from lab.scenarios.prompt_change import PromptChange
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage

_VARIABLES = (
    ("Current time: {{current_time}}", "Let answers know the time of day"),
    ("Customer: {{customer_id}}", "Tell the model whom it talks to"),
    ("Request {{request_id}}, session {{session_id}}", "Make answers traceable to their request"),
    ("The customer's cart right now: {{cart}}", "Let answers refer to the cart"),
    ("Today's offers: {{offers}}", "Mention today's offers"),
)

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

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

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


class PrefixCacheLost(Fault):
    """
    Requests do not share a prefix any more: a prompt has something variable too early, or each request has a salt.

    Heals with a prompt whose variables stand at its end, or without the salt.
    """

    id = "S04"
    title = "Requests share no prefix any more"
    alert = "LLMHighTTFT"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.kept = max(0.0, 1 - strength)
        self.variable = _VARIABLES[0]
        self.is_salted = False

    def draw(self, stage: Stage) -> None:
        lost = min(1.0, self.strength * float(stage.rng.uniform(0.8, 1.2)))
        self.kept = 1 - lost
        self.variable = _VARIABLES[int(stage.rng.integers(len(_VARIABLES)))]
        self.is_salted = bool(stage.rng.random() < 0.25)

    def begin(self, stage: Stage, at: datetime) -> None:
        if not self.is_salted:
            text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
            line, message = self.variable
            PromptChange(text=_with_line(text, line, self.kept), message=message).publish(stage, at)
            return
        author = str(stage.rng.choice(["erin", "judy"]))
        summary = "isolate tenants: a cache salt for every request"
        before, after = "cache_salt = off", f"cache_salt = on for {1 - self.kept:.0%} of requests"
        change = self.guilty(at, "flag", summary, "flags", author=author, before=before, after=after)
        stage.log.append(change)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a step has no time of its own
        if self.is_salted:
            stage.flags.salted = level * (1 - self.kept)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "fleet", []

    def is_healthy(self, stage: Stage) -> bool:
        text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
        return hit_ratio(text) * (1 - stage.flags.salted) >= HEALTHY_HIT_RATIO


def _with_line(text: str, line: str, after: float) -> str:
    """The prompt with a line of variable text behind this share of its cacheable part."""
    lines = text.split("\n")
    best = min(range(len(lines)), key=lambda place: abs(len("\n".join(lines[:place])) / len(text) - 0.8 * after))
    return "\n".join([*lines[:best], line, *lines[best:]])


def _put_the_time_first(stage: Stage, at: datetime) -> None:
    stage.prompts.create(
        "chat-system",
        prompt_texts.CHAT_SYSTEM_TIMESTAMPED,
        at=at,
        created_by="bob",
        labels=(PRODUCTION,),
        commit_message="Let answers know the time of day",
    )
