"""
Prompt versions and aliases in MLflow's prompt registry, read-only.

A prompt is a registered model with the tag `mlflow.prompt.is_prompt`, its text a tag of each version. Aliases have no
history and moving one leaves no time behind: a move is dated by our own sightings, and no earlier than its version was
made. API: GET /api/2.0/mlflow/registered-models/get?name=, .../model-versions/get?name=&version= (MLflow 3).
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from diagnostics.changes.api import valid
from diagnostics.changes.change import Change
from diagnostics.changes.followed_prompts import FollowedPrompts
from diagnostics.changes.labels import change_id, look, prompt_text
from diagnostics.target import Target

_MODEL = "/api/2.0/mlflow/registered-models/get"
_VERSION = "/api/2.0/mlflow/model-versions/get"
_TEXT, _TYPE = "mlflow.prompt.text", "_mlflow_prompt_type"


class _Tag(BaseModel):
    key: str
    value: str = ""


class _Alias(BaseModel):
    alias: str
    version: int


class _Model(BaseModel):
    aliases: list[_Alias] = Field(default_factory=list)


class _FoundModel(BaseModel):
    registered_model: _Model


class _Version(BaseModel):
    """Times are milliseconds since 1970."""

    version: int
    creation_timestamp: int = Field(ge=0, le=10**14)
    user_id: str | None = None
    description: str = ""
    tags: list[_Tag] = Field(default_factory=list)

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self.creation_timestamp / 1000, UTC)

    @property
    def text(self) -> str:
        tags = {tag.key: tag.value for tag in self.tags}
        return prompt_text(_messages(tags.get(_TEXT, "")) if tags.get(_TYPE) == "chat" else tags.get(_TEXT, ""))


class _FoundVersion(BaseModel):
    model_version: _Version


class MlflowPrompts(FollowedPrompts):
    """The change source of one MLflow server; `label` is the alias that production follows."""

    async def _of_prompt(self, target: Target, name: str, until: datetime) -> Change | None:
        about = f"the answer about prompt {name!r}"
        answer = await self._api.get(_MODEL, {"name": name}, absent={404})
        if answer is None:
            return None
        aliases = {each.alias: each.version for each in valid(_FoundModel, answer, about).registered_model.aliases}
        if (number := aliases.get(self._label)) is None:
            return None
        move = await look(self._journal, name, self._label, number, until)
        previous_number = move.previous if move else number - 1
        if previous_number < 1:
            return None  # the only version there ever was: nothing was replaced
        current, previous = await asyncio.gather(
            self._version(name, number, about), self._version(name, previous_number, about)
        )
        if current is None:
            return None
        at = move.at(current.created_at) if move else current.created_at
        return self._change(target, name, current, previous, at, move.stretch if move else 1)

    async def _version(self, name: str, number: int, about: str) -> _Version | None:
        answer = await self._api.get(_VERSION, {"name": name, "version": str(number)}, absent={404})
        return None if answer is None else valid(_FoundVersion, answer, about).model_version

    def _change(
        self, target: Target, name: str, current: _Version, previous: _Version | None, at: datetime, stretch: int
    ) -> Change:
        # no `label`: that is Langfuse's word, and a step for Langfuse must not find all that it needs here
        undo = {"prompt": name, "alias": self._label, "version": str(current.version)}
        if previous is not None:
            undo["previous_version"] = str(previous.version)
        before = f"before that on version {previous.version}" if previous else "its version before that is gone"
        note = f" ({current.description[:200]})" if current.description else ""
        return Change(
            id=change_id(self.name, name, current.version, stretch),
            at=at,
            kind="prompt",
            service=target.service,
            source=self.name,
            summary=f"{self._label} of prompt {name} is on version {current.version}, {before}{note}",
            author=current.user_id or None,
            scope={"prompt": (name,), "prompt_version": (str(current.version),)},
            before=None if previous is None else previous.text,
            after=current.text,
            undo=undo,
        )


def _messages(text: str) -> Any:
    """A chat prompt's messages; a text that is no JSON is what it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
