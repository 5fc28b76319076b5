"""
Prompt versions and labels in Langfuse, read-only.

Langfuse keeps no history of its labels: what a label pointed to before is gone. Without a journal of our own
observations, a change is derived from the version that carries the label now, the time of that version's row, and the
version before it; with a journal, from what was seen.
API: GET /api/public/v2/prompts?name=, GET /api/public/v2/prompts/{name}?label=|version=, Basic auth public:secret.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S, ReadingApi, valid
from diagnostics.changes.change import Change
from diagnostics.changes.labels import Journal, change_id, look, prompt_text
from diagnostics.target import Target

PRODUCTION = "production"
_SAME_MOMENT = timedelta(seconds=5)


class Listed(BaseModel):
    """One prompt in the list answer."""

    name: str
    versions: list[int] = Field(default_factory=list)
    last_updated_at: AwareDatetime | None = Field(default=None, alias="lastUpdatedAt")


class _Listing(BaseModel):
    data: list[Listed]


class PromptVersion(BaseModel):
    """One version of a prompt; the times are in the answers of current servers, but not in their documentation."""

    name: str
    version: int
    labels: list[str] = Field(default_factory=list)
    prompt: Any = None
    created_at: AwareDatetime | None = Field(default=None, alias="createdAt")
    updated_at: AwareDatetime | None = Field(default=None, alias="updatedAt")
    created_by: str | None = Field(default=None, alias="createdBy")
    commit_message: str | None = Field(default=None, alias="commitMessage")

    @property
    def text(self) -> str:
        return prompt_text(self.prompt)


class LangfusePrompts:
    """
    The change source of one Langfuse project.

    `credential` is "public_key:secret_key" of a read-only use. The client is the caller's to close.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        credential: str,
        client: httpx.AsyncClient,
        journal: Journal | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        public, separator, secret = credential.partition(":")
        if not (public and separator and secret):
            raise ValueError(f"the credential of datasource {name} is not of the form public_key:secret_key")
        self.name = name
        auth = httpx.BasicAuth(public, secret)
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s, auth=auth)
        self._journal = journal

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Where `production` moved within this time, for the target's prompts. Raises ChangeSourceError."""
        names = [prompt.name for prompt in target.prompts if prompt.source in {"", self.name}]
        found = await asyncio.gather(*(self._of_prompt(target, name, until) for name in names))
        changes = [change for change in found if change is not None and since <= change.at <= until]
        return sorted(changes, key=lambda change: change.at)

    async def _of_prompt(self, target: Target, name: str, until: datetime) -> Change | None:
        listing = valid(_Listing, await self._api.get("/api/public/v2/prompts", {"name": name}), _about(name))
        listed = next((entry for entry in listing.data if entry.name == name), None)
        path = f"/api/public/v2/prompts/{quote(name, safe='')}"
        answer = await self._api.get(path, {"label": PRODUCTION}, absent={404}) if listed else None
        if listed is None or answer is None:
            return None
        current = valid(PromptVersion, answer, _about(name))
        if not any(version != current.version for version in listed.versions):
            return None  # the only version there ever was: nothing was replaced
        following = min((version for version in listed.versions if version > current.version), default=None)
        successor = None if following is None else await self._version(path, following, name)
        moved_at, previous_version = derived_move(current, successor, listed)
        move = await look(self._journal, name, PRODUCTION, current.version, until)
        if move is not None:
            moved_at, previous_version = move.at(moved_at), move.previous
        if moved_at is None:
            return None
        previous = None if previous_version is None else await self._version(path, previous_version, name)
        identity = change_id(self.name, name, current.version, move.stretch if move else 1)
        return self._change(target, current, previous, previous_version, moved_at, identity)

    async def _version(self, path: str, version: int, name: str) -> PromptVersion | None:
        answer = await self._api.get(path, {"version": str(version)}, absent={404})
        return None if answer is None else valid(PromptVersion, answer, _about(name))

    def _change(
        self,
        target: Target,
        current: PromptVersion,
        previous: PromptVersion | None,
        previous_version: int | None,
        at: datetime,
        identity: str,
    ) -> Change:
        before = (
            "nobody saw where before that" if previous_version is None else f"before that on version {previous_version}"
        )
        undo = {"prompt": current.name, "label": PRODUCTION, "version": str(current.version)}
        if previous_version is not None:  # without it no step can be rendered, and that is right: it would be a guess
            undo["previous_version"] = str(previous_version)
        note = f" ({current.commit_message})" if current.commit_message else ""
        return Change(
            id=identity,
            at=at.astimezone(UTC),
            kind="prompt",
            service=target.service,
            source=self.name,
            summary=f"{PRODUCTION} of prompt {current.name} is on version {current.version}, {before}{note}",
            author=current.created_by,
            scope={"prompt": (current.name,), "prompt_version": (str(current.version),)},
            before=None if previous is None else previous.text,
            after=current.text,
            undo=undo,
        )


def derived_move(
    current: PromptVersion, successor: PromptVersion | None, listed: Listed
) -> tuple[datetime | None, int | None]:
    """
    When the label came to the current version, and from which one, without a journal; None for what nobody can say.

    Moving a label touches the version's row. So does the creation of the next version, which takes `latest` away; then
    the label was there before. A row of an older version that was touched at another time got its label back.
    """
    lower = max((version for version in listed.versions if version < current.version), default=None)
    touched = current.updated_at or current.created_at or listed.last_updated_at
    if successor is None or touched is None:
        return touched, lower
    lost_latest = successor.created_at is not None and abs(touched - successor.created_at) <= _SAME_MOMENT
    if lost_latest or touched == current.created_at:
        return current.created_at or touched, lower
    return touched, None


def _about(name: str) -> str:
    return f"the answer about prompt {name!r}"
