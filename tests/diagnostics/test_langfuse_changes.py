"""Prompt changes from a Langfuse project: over its real HTTP shape, through a small server in the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.change import ChangeSourceError
from diagnostics.changes.labels import LabelSeen, prompt_text
from diagnostics.changes.langfuse import LangfusePrompts
from diagnostics.target import PromptRef, Target

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(service="chat", prompts=(PromptRef(name="team/chat system", source="prompts"),))


def version(number: int, text: Any, minutes_ago: float, *labels: str) -> dict[str, Any]:
    at = (NOON - timedelta(minutes=minutes_ago)).isoformat().replace("+00:00", "Z")
    return {
        "name": "team/chat system",
        "version": number,
        "prompt": text,
        "labels": list(labels),
        "createdAt": at,
        "updatedAt": at,
        "createdBy": "bob",
        "commitMessage": "a reason",
        "type": "text",
        "somethingNew": {"is": "ignored"},
    }


@dataclass
class Project:
    """A Langfuse project that remembers what it was asked."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    asked: list[httpx.Request] = field(default_factory=list)
    broken: httpx.Response | None = None

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.broken is not None:
            return self.broken
        if request.headers.get("authorization") != "Basic cGs6c2s=":  # pk:sk
            return httpx.Response(401)
        if request.url.path == "/api/public/v2/prompts":
            names = sorted({one["name"] for one in self.versions if one["name"] == request.url.params["name"]})
            numbers = [one["version"] for one in self.versions]
            data = [{"name": name, "versions": numbers, "lastUpdatedAt": NOON.isoformat()} for name in names]
            return httpx.Response(200, json={"data": data, "meta": {}})
        assert request.url.raw_path.startswith(b"/api/public/v2/prompts/team%2Fchat%20system?")
        label, number = request.url.params.get("label"), request.url.params.get("version")
        for one in self.versions:
            if (label and label in one["labels"]) or (number and one["version"] == int(number)):
                return httpx.Response(200, json=one)
        return httpx.Response(404)


@dataclass
class Notebook:
    """A journal in memory."""

    entries: list[LabelSeen] = field(default_factory=list)

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        if not self.entries or self.entries[-1].version != version:
            self.entries.append(LabelSeen(version=version, at=at))

    async def history(self, prompt: str, label: str) -> Sequence[LabelSeen]:
        return self.entries


@pytest.fixture
def project() -> Project:
    return Project(versions=[version(7, "old text", 5000), version(8, "new text", 9, "production", "latest")])


@pytest.fixture
async def client(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(project.answer)) as client:
        yield client


def source(client: httpx.AsyncClient, journal: Notebook | None = None, credential: str = "pk:sk") -> LangfusePrompts:
    return LangfusePrompts(
        name="prompts", url="https://langfuse.test/", credential=credential, client=client, journal=journal
    )


async def test_the_label_on_a_new_version_is_a_change(client: httpx.AsyncClient) -> None:
    """Version, time, texts, author and what a runbook needs to take it back, all as literals."""
    [change] = await source(client).changes(CHAT, SINCE, UNTIL)
    assert (change.kind, change.service, change.author) == ("prompt", "chat", "bob")
    assert change.at == NOON - timedelta(minutes=9)
    assert (change.before, change.after) == ("old text", "new text")
    assert change.undo == {
        "prompt": "team/chat system",
        "label": "production",
        "version": "8",
        "previous_version": "7",
    }
    assert change.scope["prompt_version"] == ("8",)


async def test_it_only_reads(client: httpx.AsyncClient, project: Project) -> None:
    """Every request is a GET: diagnosis changes nothing."""
    await source(client).changes(CHAT, SINCE, UNTIL)
    assert {request.method for request in project.asked} == {"GET"}


async def test_an_old_change_is_outside_the_time(client: httpx.AsyncClient, project: Project) -> None:
    """What happened before the asked time is not reported."""
    project.versions = [version(1, "a", 9000), version(2, "b", 8000, "production")]
    assert await source(client).changes(CHAT, SINCE, UNTIL) == []


@pytest.mark.parametrize(
    "versions", [[], [version(1, "only", 5, "production")], [version(1, "a", 9), version(2, "b", 5)]]
)
async def test_no_previous_or_no_label_is_no_change(
    client: httpx.AsyncClient, project: Project, versions: list[dict[str, Any]]
) -> None:
    """An unknown prompt, a first version, or drafts that production does not point to."""
    project.versions = versions
    assert await source(client).changes(CHAT, SINCE, UNTIL) == []


async def test_prompts_of_other_sources_are_not_asked(client: httpx.AsyncClient, project: Project) -> None:
    """A prompt names the source that knows it."""
    other = Target(service="chat", prompts=(PromptRef(name="x", source="git"),))
    assert await source(client).changes(other, SINCE, UNTIL) == []
    assert project.asked == []


async def test_the_journal_knows_a_roll_back(client: httpx.AsyncClient, project: Project) -> None:
    """Langfuse forgets where a label was; what we saw says that production came from 8, not from 6."""
    project.versions = [version(6, "six", 9000), version(7, "seven", 3, "production"), version(8, "eight", 40)]
    journal = Notebook([LabelSeen(version=8, at=NOON - timedelta(minutes=30))])
    [change] = await source(client, journal).changes(CHAT, SINCE, UNTIL)
    assert (change.undo["version"], change.undo["previous_version"]) == ("7", "8")
    assert change.before == "eight"
    assert change.at == NOON - timedelta(minutes=3)


async def test_a_roll_back_without_a_journal_is_no_guess(client: httpx.AsyncClient, project: Project) -> None:
    """Production is on an older version again: that it moved is known, from where is not, so nothing can undo it."""
    back = {**version(7, "seven", 9000, "production"), "updatedAt": (NOON - timedelta(minutes=3)).isoformat()}
    project.versions = [version(6, "six", 9900), back, version(8, "eight", 40)]
    [change] = await source(client).changes(CHAT, SINCE, UNTIL)
    assert change.at == NOON - timedelta(minutes=3)
    assert change.undo == {"prompt": "team/chat system", "label": "production", "version": "7"}
    assert change.before is None
    assert "nobody saw where" in change.summary


async def test_a_new_draft_moves_nothing(client: httpx.AsyncClient, project: Project) -> None:
    """Creating version 8 takes `latest` from 7 and so touches its row; production has been there all along."""
    touched = {**version(7, "seven", 9000, "production"), "updatedAt": (NOON - timedelta(minutes=4)).isoformat()}
    project.versions = [version(6, "six", 9900), touched, version(8, "draft", 4, "latest")]
    assert await source(client).changes(CHAT, SINCE, UNTIL) == []


async def test_a_move_without_a_trace_is_dated_by_when_it_was_seen(client: httpx.AsyncClient, project: Project) -> None:
    """The row's time may be that of the draft; then the first sight of the new version is what we know."""
    project.versions = [version(7, "seven", 9000), version(8, "eight", 300, "production")]
    journal = Notebook([LabelSeen(version=7, at=NOON - timedelta(minutes=30))])
    [change] = await source(client, journal).changes(CHAT, SINCE, UNTIL)
    assert change.at == UNTIL
    assert [entry.version for entry in journal.entries] == [7, 8]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (httpx.Response(500), "answered 500"),
        (httpx.Response(302, headers={"location": "http://elsewhere.test"}), "answered 302"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json={"data": [{"name": 3}]}), "malformed at data.0.name"),
        (httpx.Response(200, json=[]), "malformed"),
    ],
)
async def test_a_broken_answer_is_a_blind_spot(
    client: httpx.AsyncClient, project: Project, broken: httpx.Response, words: str
) -> None:
    """It raises ChangeSourceError with the reason, never anything else."""
    project.broken = broken
    with pytest.raises(ChangeSourceError, match=words):
        await source(client).changes(CHAT, SINCE, UNTIL)


async def test_a_refused_credential_says_so_without_showing_it(client: httpx.AsyncClient) -> None:
    """The secret is never part of a message."""
    with pytest.raises(ChangeSourceError, match="refuses the credential") as refused:
        await source(client, credential="pk:hunter2").changes(CHAT, SINCE, UNTIL)
    assert "hunter2" not in str(refused.value)


async def test_an_unreachable_server_is_a_blind_spot() -> None:
    """A refused connection becomes ChangeSourceError."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ChangeSourceError, match="cannot be reached: ConnectError"):
            await source(client).changes(CHAT, SINCE, UNTIL)


@pytest.mark.parametrize("credential", ["", "pk", "pk:", ":sk"])
async def test_half_a_credential_is_refused_at_once(client: httpx.AsyncClient, credential: str) -> None:
    """The form is said, the value is not."""
    with pytest.raises(ValueError, match="public_key:secret_key"):
        source(client, credential=credential)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("text", "text"),
        (
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{q}}"}],
            "system: Be kind.\nuser: {{q}}",
        ),
        ([{"type": "placeholder", "name": "history"}], "[placeholder: history]"),
        ([3, None], "3\nNone"),
        (None, ""),
        ({"odd": 1}, ""),
    ],
)
def test_any_prompt_reads_as_text(prompt: Any, expected: str) -> None:
    """Chat prompts become lines; whatever else comes is text or nothing."""
    assert prompt_text(prompt) == expected
