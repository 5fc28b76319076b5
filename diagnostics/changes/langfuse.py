"""
Prompt versions and labels in Langfuse, read-only.

Langfuse keeps no history of its labels: what a label pointed to before is gone. Without a journal of our own
observations, a change is derived from the version that carries the label now, the time of that version's row, and the
version before it; with a journal, from what was seen.
API: GET /api/public/v2/prompts?name=, GET /api/public/v2/prompts/{name}?label=|version=, Basic auth public:secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.target import Target

PRODUCTION = "production"
_LONGEST_TEXT = 65_536
_SAME_MOMENT = timedelta(seconds=5)

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class LabelSeen:
    """One observation: at this time the label pointed to this version."""

    version: int
    at: datetime


class Journal(Protocol):
    """What we saw labels point to; it outlives the process."""

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        """Write an observation down; seeing the same version again changes nothing."""

    async def history(self, prompt: str, label: str) -> Sequence[LabelSeen]:
        """The first observation of each stretch of one version, oldest first."""


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
        patience_s: float = 2.5,
    ) -> None:
        public, separator, secret = credential.partition(":")
        if not (public and separator and secret):
            raise ValueError(f"the credential of datasource {name} is not of the form public_key:secret_key")
        self.name = name
        self._url = url.rstrip("/")
        self._auth = httpx.BasicAuth(public, secret)
        self._client = client
        self._journal = journal
        self._patience_s = patience_s

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Where `production` moved within this time, for the target's prompts. Raises ChangeSourceError."""
        names = [prompt.name for prompt in target.prompts if prompt.source in {"", self.name}]
        found = await asyncio.gather(*(self._of_prompt(target, name, until) for name in names))
        changes = [change for change in found if change is not None and since <= change.at <= until]
        return sorted(changes, key=lambda change: change.at)

    async def _of_prompt(self, target: Target, name: str, until: datetime) -> Change | None:
        listing = _valid(_Listing, await self._get("/api/public/v2/prompts", {"name": name}), name)
        listed = next((entry for entry in listing.data if entry.name == name), None)
        path = f"/api/public/v2/prompts/{quote(name, safe='')}"
        answer = await self._get(path, {"label": PRODUCTION}, absent_is_none=True) if listed else None
        if listed is None or answer is None:
            return None
        current = _valid(PromptVersion, answer, name)
        if not any(version != current.version for version in listed.versions):
            return None  # the only version there ever was: nothing was replaced
        following = min((version for version in listed.versions if version > current.version), default=None)
        successor = None if following is None else await self._version(path, following, name)
        moved_at, previous_version = await self._move(name, derived_move(current, successor, listed), current, until)
        if moved_at is None:
            return None
        previous = None if previous_version is None else await self._version(path, previous_version, name)
        return self._change(target, current, previous, previous_version, moved_at)

    async def _version(self, path: str, version: int, name: str) -> PromptVersion | None:
        answer = await self._get(path, {"version": str(version)}, absent_is_none=True)
        return None if answer is None else _valid(PromptVersion, answer, name)

    async def _move(
        self, name: str, derived: tuple[datetime | None, int | None], current: PromptVersion, until: datetime
    ) -> tuple[datetime | None, int | None]:
        """When the label came to the current version, and from which one: from the journal, or else as derived."""
        derived_at, derived_from = derived
        if self._journal is None:
            return derived_at, derived_from
        await self._journal.seen(name, PRODUCTION, current.version, until)
        history = await self._journal.history(name, PRODUCTION)
        earlier = [entry for entry in history if entry.version != current.version]
        if not earlier:
            return derived_at, derived_from
        first_seen = next((e.at for e in history if e.version == current.version and e.at > earlier[-1].at), None)
        if first_seen is None:
            return derived_at, earlier[-1].version
        # The row's time is exact where it lies between the two observations; else the label moved unseen in between.
        is_plausible = derived_at is not None and earlier[-1].at <= derived_at <= first_seen
        return derived_at if is_plausible else first_seen, earlier[-1].version

    def _change(
        self,
        target: Target,
        current: PromptVersion,
        previous: PromptVersion | None,
        previous_version: int | None,
        at: datetime,
    ) -> Change:
        before = (
            "nobody saw where before that" if previous_version is None else f"before that on version {previous_version}"
        )
        undo = {"prompt": current.name, "label": PRODUCTION, "version": str(current.version)}
        if previous_version is not None:  # without it no step can be rendered, and that is right: it would be a guess
            undo["previous_version"] = str(previous_version)
        note = f" ({current.commit_message})" if current.commit_message else ""
        return Change(
            id=f"{self.name}:{current.name}:{current.version}",
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

    async def _get(self, path: str, query: Mapping[str, str], *, absent_is_none: bool = False) -> Any:
        try:
            answer = await self._client.get(
                f"{self._url}{path}", params=dict(query), auth=self._auth, timeout=self._patience_s
            )
        except httpx.HTTPError as error:
            raise ChangeSourceError(f"{self.name} cannot be reached: {type(error).__name__}") from error
        if answer.status_code == 404 and absent_is_none:
            return None
        if answer.status_code in {401, 403}:
            raise ChangeSourceError(f"{self.name} refuses the credential ({answer.status_code})")
        if answer.status_code != 200:
            raise ChangeSourceError(f"{self.name} answered {answer.status_code}")
        try:
            return answer.json()
        except ValueError as error:
            raise ChangeSourceError(f"{self.name} answered something that is not JSON") from error


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


def prompt_text(prompt: Any) -> str:
    """A prompt as people read it: the text itself, or a chat prompt's messages one after the other."""
    if isinstance(prompt, str):
        return prompt[:_LONGEST_TEXT]
    if isinstance(prompt, list):
        lines = [_message_text(message) for message in prompt]
        return "\n".join(lines)[:_LONGEST_TEXT]
    return ""


def _message_text(message: Any) -> str:
    if not isinstance(message, dict):
        return str(message)
    if "role" in message:
        return f"{message['role']}: {message.get('content', '')}"
    return f"[{message.get('type', 'part')}: {message.get('name', '')}]"


def _valid(model: type[_Model], answer: Any, name: str) -> _Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(str(part) for part in first["loc"])
        raise ChangeSourceError(f"the answer about prompt {name!r} is malformed at {place}: {first['msg']}") from error
