"""Scenarios: what goes wrong in the lab's world, when, what heals it, and the truth that only their author knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np

from lab import prompt_texts
from lab.cluster import Cluster
from lab.fleet import hit_ratio
from lab.prompt_store import PRODUCTION, PromptStore

HEALTHY_HIT_RATIO = 0.30
"""Above this a prompt counts as cacheable again; the reference fleet has .40, the broken one .03."""


class UnknownScenarioError(Exception):
    """No scenario has this id; the message names those that exist."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a scenario may change: the state of the world, never its telemetry."""

    prompts: PromptStore
    cluster: Cluster
    rng: np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that somebody does to the world at a lab time."""

    at: datetime
    do: Callable[[Stage], None]


class Scenario(Protocol):
    """One fault. It lives in the world's state, so that only a change of that state heals it."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def onset_before_live(self) -> timedelta: ...

    def set_up(self, stage: Stage, start: datetime) -> None:
        """Give the world the past that it has when the history starts."""

    def deeds(self, onset: datetime) -> list[Deed]:
        """What happens, in order of time."""

    def is_healthy(self, stage: Stage) -> bool:
        """Whether the world's state is free of the fault right now (telemetry follows within minutes)."""

    def truth(self) -> dict[str, Any]:
        """Cause, class, scope, culprit and decoys, in the words of a case's truth."""


def write_prompts(stage: Stage, start: datetime) -> None:
    """The prompt store as the reference service has it: chat-system at version 7, chat-summary at version 3."""
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


@dataclass(frozen=True, kw_only=True)
class PrefixCacheCollapse:
    """S04: a prompt starts with the current time, so no two requests share a prefix."""

    id: str = "S04"
    title: str = "A prompt change broke the prefix cache"
    onset_before_live: timedelta = timedelta(minutes=6)
    decoy_before_onset: timedelta = timedelta(minutes=6)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        return [
            Deed(
                at=onset - self.decoy_before_onset,
                do=lambda stage: _shorten_summary(stage, onset - self.decoy_before_onset),
            ),
            Deed(at=onset, do=lambda stage: _put_the_time_first(stage, onset)),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        return hit_ratio(stage.prompts.labelled("chat-system", PRODUCTION).prompt) >= HEALTHY_HIT_RATIO

    def truth(self) -> dict[str, Any]:
        return {
            "cause": "S04",
            "class": "S",
            "scope": {"dimension": "fleet", "values": []},
            "control": False,
            "culprit_change": "prompts:chat-system:8",  # source:prompt:version, the source as the lab's config names it
            "culprit": {"prompt": "chat-system", "label": PRODUCTION, "version": 8, "previous_version": 7},
            "decoys": [{"prompt": "chat-summary", "label": PRODUCTION, "version": 4, "previous_version": 3}],
        }


def _shorten_summary(stage: Stage, at: datetime) -> None:
    stage.prompts.create(
        "chat-summary",
        prompt_texts.CHAT_SUMMARY[3],
        at=at,
        created_by="erin",
        labels=(PRODUCTION,),
        commit_message="One bullet less",
    )


def _put_the_time_first(stage: Stage, at: datetime) -> None:
    stage.prompts.create(
        "chat-system",
        prompt_texts.CHAT_SYSTEM_TIMESTAMPED,
        at=at,
        created_by="bob",
        labels=(PRODUCTION,),
        commit_message="Let answers know the time of day",
    )


_SCENARIOS: Mapping[str, Callable[[], Scenario]] = {"S04": PrefixCacheCollapse}


def scenario(id_: str) -> Scenario:
    """The scenario with this id. Raises UnknownScenarioError."""
    try:
        return _SCENARIOS[id_]()
    except KeyError:
        raise UnknownScenarioError(f"there is no scenario {id_!r}; there is {', '.join(sorted(_SCENARIOS))}") from None
