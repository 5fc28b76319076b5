"""Q01: a prompt no longer asks for the form in which the application reads its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab import prompt_texts
from lab.alert_rules import FORMAT_VALIDITY
from lab.answers import USUAL
from lab.gauges import MEAN_TTFT, VALID_FORMATS, Gauge
from lab.people import BOB, Person
from lab.prompt_store import PRODUCTION
from lab.rule import Rule
from lab.scenarios.prompt_change import PromptChange
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """Heals with any `production` version of chat-system that asks for JSON again."""

    id: str = "Q01"
    title: str = "A prompt change broke the output format"
    onset_before_live: timedelta = timedelta(minutes=5)
    pace: float = 20.0
    rules: tuple[Rule, ...] = (FORMAT_VALIDITY,)
    approver: Person = BOB
    gauges: tuple[Gauge, Gauge] = (VALID_FORMATS, MEAN_TTFT)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=lambda stage: _sound_friendlier(stage, onset)),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
        return stage.answering.to(text, needs_json=True) == USUAL

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

    def truth(self, _stage: Stage) -> dict[str, Any]:
        return {
            "cause": "Q01",
            "class": "Q",
            "scope": {"dimension": "prompt_version", "values": ["8"]},
            "control": False,
            "culprit_change": "prompts:chat-system:8",
            "culprit": {"prompt": "chat-system", "label": PRODUCTION, "version": 8, "previous_version": 7},
            "decoys": [DECOY],
        }


def _sound_friendlier(stage: Stage, at: datetime) -> None:
    said = "Sound like a colleague, not like a form"
    PromptChange(text=prompt_texts.CHAT_SYSTEM_FRIENDLY, message=said, author="bob").publish(stage, at)
