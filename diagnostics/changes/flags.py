"""
Feature flags: who switched what, from LaunchDarkly's audit log and Unleash's events. Both read-only.

Which flags a service asks for is not known to either; `flags` (shell patterns) says which ones count, all by default.
LaunchDarkly: GET /api/v2/auditlog?after=&before= (milliseconds) &limit=20&spec=proj/P:env/E:flag/*, newest first.
Unleash: GET /api/admin/search/events?project=IS:P&from=IS:DAY&to=IS:DAY&limit=&offset=, newest first. Both take the
bare token in `Authorization`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S, ReadingApi, valid
from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.target import Target

_MOST_PAGES = 25
_LONGEST_STATE = 20_000
_TURNED = re.compile(r"turned (on|off)\b")
_SWITCHES = {"feature-environment-enabled": True, "feature-environment-disabled": False}


class _Member(BaseModel):
    email: str | None = None
    first_name: str = Field(default="", alias="firstName")
    last_name: str = Field(default="", alias="lastName")

    @property
    def person(self) -> str | None:
        return f"{self.first_name} {self.last_name}".strip() or self.email


class _Target(BaseModel):
    resources: list[str] = Field(default_factory=list)


class _Entry(BaseModel):
    """One entry of LaunchDarkly's audit log; `date` is milliseconds since 1970."""

    id: str = Field(alias="_id")
    date: int = Field(ge=0, le=10**14)
    name: str = ""
    title_verb: str = Field(default="", alias="titleVerb")
    description: str = ""
    comment: str = ""
    member: _Member | None = None
    target: _Target | str | None = None

    @property
    def flags(self) -> list[str]:
        """The keys in specifiers such as `proj/default:env/production:flag/new-prompt;tag`."""
        resources = self.target.resources if isinstance(self.target, _Target) else []
        parts = [part for resource in resources for part in resource.split(";")[0].split(":")]
        return [part.removeprefix("flag/") for part in parts if part.startswith("flag/")]


class _AuditLog(BaseModel):
    items: list[_Entry]


class LaunchDarklyFlags:
    """The change source of one environment of a LaunchDarkly project."""

    _PAGE = 20

    def __init__(
        self,
        *,
        name: str,
        url: str,
        client: httpx.AsyncClient,
        project: str,
        environment: str,
        flags: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s)
        self._spec = f"proj/{project}:env/{environment}:flag/*"
        self._flags = tuple(flags)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Flags that were switched or edited in this time, oldest first. Raises ChangeSourceError."""
        entries = await self._entries(since, until)
        found = [
            self._change(target, entry)
            for entry in entries
            if _counts(entry.flags or [entry.name], self._flags) and since <= _moment(entry) <= until
        ]
        return sorted(found, key=lambda change: change.at)

    async def _entries(self, since: datetime, until: datetime) -> list[_Entry]:
        """Newest first; both ends are exclusive there, and the next page ends where the last one did."""
        after, before = int(since.timestamp() * 1000) - 1, int(until.timestamp() * 1000) + 1
        found: dict[str, _Entry] = {}
        for _ in range(_MOST_PAGES):
            query = {"after": str(after), "before": str(before), "limit": str(self._PAGE), "spec": self._spec}
            answer = await self._api.get("/api/v2/auditlog", query)
            page = valid(_AuditLog, answer, f"{self.name}'s audit log").items
            fresh = {entry.id: entry for entry in page if entry.id not in found}
            found |= fresh
            if len(page) < self._PAGE or not fresh:
                return list(found.values())
            before = min(entry.date for entry in page) + 1
        raise ChangeSourceError(f"{self.name} has more than {_MOST_PAGES * self._PAGE} entries for this time")

    def _change(self, target: Target, entry: _Entry) -> Change:
        comment = f" ({entry.comment[:200]})" if entry.comment else ""
        verb = entry.title_verb or "changed"
        return Change(
            id=f"{self.name}:{entry.id}",
            at=_moment(entry),
            kind="flag",
            service=target.service,
            source=self.name,
            summary=f"flag {entry.name or ', '.join(entry.flags)}: {verb}{comment}",
            author=entry.member.person if entry.member else None,
            after=entry.description[:_LONGEST_STATE] or None,
            undo=self._undo(entry),
        )

    def _undo(self, entry: _Entry) -> dict[str, str]:
        """Only for one flag that was turned on or off: what else was edited no switch takes back."""
        turned = _TURNED.match(entry.title_verb)
        return _taken_back(self.name, entry.flags[0], on=turned[1] == "on") if turned and len(entry.flags) == 1 else {}


class _Event(BaseModel):
    """One event of Unleash; `preData` and `data` are the state before and after."""

    id: int
    created_at: AwareDatetime = Field(alias="createdAt")
    created_by: str = Field(default="", alias="createdBy")
    type: str
    feature: str | None = Field(default=None, alias="featureName")
    environment: str | None = None
    data: Any = None
    before: Any = Field(default=None, alias="preData")


class _Events(BaseModel):
    events: list[_Event]


class UnleashFlags:
    """The change source of one Unleash project and environment."""

    _PAGE = 100

    def __init__(
        self,
        *,
        name: str,
        url: str,
        client: httpx.AsyncClient,
        project: str,
        environment: str,
        flags: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s)
        self._project = project
        self._environment = environment
        self._flags = tuple(flags)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Flags that were switched or edited in this time, oldest first. Raises ChangeSourceError."""
        found = [
            self._change(target, event, event.feature)
            for event in await self._events(since, until)
            if event.feature is not None
            and event.environment in {None, "", self._environment}
            and _counts([event.feature], self._flags)
            and since <= event.created_at <= until
        ]
        return sorted(found, key=lambda change: change.at)

    async def _events(self, since: datetime, until: datetime) -> list[_Event]:
        """Days are all that can be asked for, `to` inclusive; pages are read until one begins before the time."""
        query = {
            "project": f"IS:{self._project}",
            "from": f"IS:{since.astimezone(UTC):%Y-%m-%d}",
            "to": f"IS:{until.astimezone(UTC) + timedelta(days=1):%Y-%m-%d}",
            "limit": str(self._PAGE),
        }
        found: list[_Event] = []
        for page in range(_MOST_PAGES):
            query["offset"] = str(page * self._PAGE)
            answer = await self._api.get("/api/admin/search/events", query)
            events = valid(_Events, answer, f"{self.name}'s events").events
            found += events
            if len(events) < self._PAGE or min(event.created_at for event in events) < since:
                return found
        raise ChangeSourceError(f"{self.name} has more than {_MOST_PAGES * self._PAGE} events for this time")

    def _change(self, target: Target, event: _Event, flag: str) -> Change:
        where = f" in {event.environment}" if event.environment else ""
        return Change(
            id=f"{self.name}:{event.id}",
            at=event.created_at.astimezone(UTC),
            kind="flag",
            service=target.service,
            source=self.name,
            summary=f"flag {flag}: {event.type.replace('-', ' ')}{where}",
            author=event.created_by or None,
            before=_state(event.before),
            after=_state(event.data),
            undo=_taken_back(self.name, flag, on=_SWITCHES[event.type]) if event.type in _SWITCHES else {},
        )


def _taken_back(source: str, flag: str, *, on: bool) -> dict[str, str]:
    """What a runbook's step needs to switch the flag back, after it was turned on, or off."""
    return {"flag": flag, "flag_source": source, "flag_was_on": "false" if on else "true"}


def _counts(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _moment(entry: _Entry) -> datetime:
    return datetime.fromtimestamp(entry.date / 1000, UTC)


def _state(value: Any) -> str | None:
    """A state as lines, so that two of them can be compared."""
    if value in (None, {}, ""):
        return None
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)[:_LONGEST_STATE]
