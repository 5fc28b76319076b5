"""The prompt store as the reference service has it before anything goes wrong, and the harmless change that follows."""

from __future__ import annotations

from datetime import datetime, timedelta

from lab import prompt_texts
from lab.prompt_store import PRODUCTION
from lab.stage import Stage

DECOY_BEFORE_ONSET = timedelta(minutes=6)

DECOY = {"prompt": "chat-summary", "label": PRODUCTION, "version": 4, "previous_version": 3}
"""What `shorten_summary` changes, as a scenario's truth names it."""


def write_prompts(stage: Stage, start: datetime) -> None:
    """chat-system at version 7, chat-summary at version 3."""
    for version, message in enumerate(prompt_texts.COMMIT_MESSAGES, 1):
        stage.prompts.create(
            "chat-system",
            prompt_texts.chat_system(version),
            at=start - timedelta(days=71 - 9 * version, hours=version),
            created_by="bob",
            labels=(PRODUCTION,),
            tags=("chat",),
            commit_message=message,
        )
    for version, text in enumerate(prompt_texts.CHAT_SUMMARY[:3], 1):
        stage.prompts.create(
            "chat-summary",
            text,
            at=start - timedelta(days=53 - 12 * version, hours=2 * version),
            created_by="erin",
            labels=(PRODUCTION,),
            tags=("chat",),
            commit_message=f"Summary, take {version}",
        )


def shorten_summary(stage: Stage, at: datetime) -> None:
    """A change that nobody notices: the summary has one bullet less."""
    stage.prompts.create(
        "chat-summary",
        prompt_texts.CHAT_SUMMARY[3],
        at=at,
        created_by="erin",
        labels=(PRODUCTION,),
        commit_message="One bullet less",
    )
