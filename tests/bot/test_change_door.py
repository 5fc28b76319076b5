"""`POST /changes`: who gets in, what is taken down, and what each sender is told, over the whole web face."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from bot.incidents import NotFoundError, StoreUnavailableError, WatchkeeperError
from bot.operators import NotSignedInError, TooManyAttemptsError, hash_of
from bot.reporters import MOST_REPORTS, Reporters
from bot.store.audit import AuditLog
from bot.store.change_journal import ChangeJournal
from bot.store.operators import OperatorTokens
from bot.throttle import MOST_FAILURES, Throttle
from bot.web.change_door import ChangeDoor
from bot.web.change_door import Reporters as Reporting
from diagnostics.changes.change import Change
from tests.kit import NOW, Store, config_in
from tests.operator_house import OperatorHouse, operator_house

REPORT: dict[str, Any] = {
    "id": "run-4711",
    "kind": "engine",
    "service": "chat",
    "summary": "vLLM 0.10.1 -> 0.11.0",
    "author": "ci",
    "scope": {"deployment": ["chat-vllm"]},
    "url": "https://ci.example.com/runs/4711",
}


@pytest.fixture
async def house(store: Store) -> AsyncIterator[OperatorHouse]:
    async with operator_house(store) as opened:
        yield opened


async def mint(store: Store, *, days: int = 30, ago: timedelta = timedelta(), source: str = "github-actions") -> str:
    reporters = Reporters(OperatorTokens(store.database))
    made = datetime.now(UTC) - ago
    return await reporters.issue(source, label="", days=days, config=store.config, actor="unix:root", now=made)


async def send(house: OperatorHouse, token: str, body: Any) -> httpx.Response:
    headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
    async with house.client() as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post("/changes", content=content, headers=headers)


class Book:
    """Takes down in memory; with `away` its database does not answer."""

    def __init__(self, *, away: bool = False) -> None:
        self.reports: list[Change] = []
        self._away = away

    async def report(self, item: Change, *, actor: str, now: datetime) -> bool:
        if self._away:
            raise StoreUnavailableError("the database does not answer")
        self.reports.append(item)
        return True


class Known:
    """Recognises everybody."""

    async def recognise(self, secret: str, *, address: str, now: datetime) -> str:
        return "ci"


class Busy:
    """Has heard enough from everybody."""

    async def recognise(self, secret: str, *, address: str, now: datetime) -> str:
        raise TooManyAttemptsError(29.6)


async def send_past_the_guard(folder: Path, book: Book, body: Any, guard: Reporting | None = None) -> httpx.Response:
    """The door alone, without tokens and a database."""
    web = FastAPI()
    door = ChangeDoor(reporters=guard or Known(), book=book, config=config_in(folder), now=lambda: NOW)
    web.router.routes.extend(door.routes())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web), base_url="http://house") as client:
        return await client.post("/changes", content=body if isinstance(body, bytes) else json.dumps(body).encode())


async def kept(store: Store) -> list[Change]:
    now = datetime.now(UTC)
    return await ChangeJournal(store.database).between("chat", now - timedelta(days=40), now + timedelta(hours=1))


async def test_a_pipeline_reports_a_change(store: Store, house: OperatorHouse) -> None:
    """Now, if it does not say when; in the name of its token's source; a retry is taken for what it is."""
    token = await mint(store)

    first, again = await send(house, token, REPORT), await send(house, token, REPORT)

    assert (first.status_code, first.json()) == (201, {"status": "recorded", "id": "run-4711"})
    assert (again.status_code, again.json()) == (200, {"status": "recorded before", "id": "run-4711"})
    [change] = await kept(store)
    assert (change.source, change.kind, change.author) == ("github-actions", "engine", "ci")
    assert abs(datetime.now(UTC) - change.at) < timedelta(minutes=1)
    assert change.scope == {"deployment": ("chat-vllm",)}
    assert change.undo == {}
    [row] = await AuditLog(store.database).about("service:chat")
    assert row.actor == "source:github-actions"


async def test_a_reported_text_is_kept_as_its_service_allows(store: Store, house: OperatorHouse) -> None:
    """Credentials never, of a prompt no words by default."""
    secret = "sk-proj-" + "a1B2c3D4e5F6g7H8" * 3
    told = {**REPORT, "kind": "prompt", "before": "Be kind.", "after": f"Be kind to {{{{user}}}}. key={secret}"}

    await send(house, await mint(store), {**told, "summary": f"key={secret}"})

    [change] = await kept(store)
    assert secret not in repr(change)
    assert change.after is not None
    assert change.after.startswith("▒ ▒ ▒ {{user}}.")


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"kind": "weather"}, "kind"),
        ({"service": "caht"}, "service"),
        ({"summary": ""}, "summary"),
        ({"summary": "x" * 501}, "summary"),
        ({"id": ""}, "id"),
        ({"at": "2026-03-02T11:50:00"}, "at"),
        ({"at": "2020-03-02T11:50:00Z"}, "at"),
        ({"at": "2999-03-02T11:50:00Z"}, "at"),
        ({"source": "prompts"}, "source"),
        ({"scope": {"planet": ["earth"]}}, "scope.planet"),
        ({"scope": {"pod": "one"}}, "scope.pod"),
        ({"scope": {"pod": ["x"] * 101}}, "scope.pod"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"after": "x" * 65_537}, "after"),
        ({"undo": {"prompt": "chat-system", "previous_version": "1"}}, ""),
    ],
)
async def test_a_fault_is_told_with_its_place(tmp_path: Path, more: dict[str, Any], where: str) -> None:
    """The value is not repeated, and nothing is kept. What takes a change back is not a sender's to name."""
    book = Book()
    answer = await send_past_the_guard(tmp_path, book, {**REPORT, **more})

    assert answer.status_code == 400
    [fault, *_] = answer.json()["faults"]
    assert fault["where"].startswith(where)
    assert fault["what"]
    assert book.reports == []


async def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """Whoever writes a pipeline does not want to find them one by one."""
    answer = await send_past_the_guard(tmp_path, Book(), {"kind": "weather"})

    assert [fault["where"] for fault in answer.json()["faults"]] == ["id", "kind", "service", "summary"]


async def test_a_misspelt_service_is_guessed(tmp_path: Path) -> None:
    """A change under no name would be suspected by nobody."""
    answer = await send_past_the_guard(tmp_path, Book(), {**REPORT, "service": "chatt"})

    assert "did you mean chat?" in answer.json()["faults"][0]["what"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"id": NaN}'])
async def test_what_is_no_json_is_no_change(tmp_path: Path, body: bytes) -> None:
    """Never more than a 400."""
    answer = await send_past_the_guard(tmp_path, Book(), body)

    assert (answer.status_code, answer.json()["status"]) == (400, "not a change")


async def test_a_large_body_is_not_read_to_its_end(tmp_path: Path) -> None:
    """As at the webhooks' door."""
    assert (await send_past_the_guard(tmp_path, Book(), b" " * (256 * 1024 + 1))).status_code == 413


async def test_strangers_are_told_nothing(store: Store, house: OperatorHouse) -> None:
    """One answer for every wrong token, before the body is looked at."""
    for secret in ("", "wkc_short", "wkc_" + "A" * 43, "wko_" + "A" * 43, "\xe9" * 43):
        answer = await send(house, secret, b"not even json")
        assert (answer.status_code, answer.json()) == (401, {"status": "unauthorized"})

    assert await kept(store) == []


async def test_each_token_opens_its_own_door_only(store: Store, house: OperatorHouse) -> None:
    """An operator's token reports nothing, and a reporter's reads and approves nothing."""
    operator, reporter = await house.mint("bob"), await mint(store)

    refused = await send(house, operator, REPORT)
    async with house.client(reporter) as client:
        reading = await client.get("/api/incidents")
        signing_in = await client.post("/sign-in", data={"token": reporter, "next": "/"})

    assert (refused.status_code, reading.status_code) == (401, 401)
    assert "set-cookie" not in signing_in.headers


async def test_a_token_ends(store: Store, house: OperatorHouse) -> None:
    """By its time, and when somebody revokes it."""
    old, new = await mint(store, days=1, ago=timedelta(days=2)), await mint(store)
    reporters = Reporters(OperatorTokens(store.database))

    assert (await send(house, old, REPORT)).status_code == 401
    assert (await send(house, new, REPORT)).status_code == 201
    await reporters.revoke(hash_of(new)[:12], actor="unix:root", now=datetime.now(UTC))
    assert (await send(house, new, REPORT)).status_code == 401


async def test_a_token_is_shown_once_and_on_record(store: Store) -> None:
    """Neither the table nor the record holds it; operators' lists and reporters' lists are apart."""
    secret = await mint(store)
    tokens = OperatorTokens(store.database)
    [row] = await AuditLog(store.database).about("reporter:github-actions")
    [listed] = await Reporters(tokens).tokens()

    assert (row.action, row.actor) == ("reporter.added", "unix:root")
    assert secret not in repr(row) + repr(listed)
    assert (listed.token_hash, listed.person_id) == (hash_of(secret), "github-actions")
    assert await tokens.tokens() == []
    with pytest.raises(NotFoundError, match="change token list"):
        await Reporters(tokens).revoke("0" * 12, actor="unix:root", now=NOW)
    with pytest.raises(NotFoundError, match="operator list"):
        await tokens.revoke(listed.token_id, actor="unix:root", now=NOW)


async def test_no_token_speaks_for_another_source(store: Store) -> None:
    """Whoever reports cannot pass for a prompt store, a cluster or the command line."""
    for source in ("metrics", "self-report", "command line", "", "../x"):
        with pytest.raises(WatchkeeperError, match="cannot be a source's name"):
            await mint(store, source=source)


class Clock:
    """Monotonic seconds that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_reports_are_limited_for_each_token(store: Store) -> None:
    """Sixty a minute; another pipeline goes on."""
    clock = Clock()
    reporters = Reporters(OperatorTokens(store.database), clock=clock)
    looping, other = await mint(store), await mint(store, source="argo-workflows")
    now = datetime.now(UTC)

    for _ in range(MOST_REPORTS):
        assert await reporters.recognise(looping, address="192.0.2.1", now=now) == "github-actions"
        clock.now += 0.5
    with pytest.raises(TooManyAttemptsError) as refused:
        await reporters.recognise(looping, address="192.0.2.1", now=now)
    assert await reporters.recognise(other, address="192.0.2.1", now=now) == "argo-workflows"

    assert refused.value.wait_s == 30.0
    clock.now += 30.5
    assert await reporters.recognise(looping, address="192.0.2.1", now=now) == "github-actions"


async def test_guessing_is_slowed_down(store: Store) -> None:
    """Ten wrong tokens a minute from one address; a right one still counts there."""
    clock = Clock()
    reporters = Reporters(OperatorTokens(store.database), throttle=Throttle(clock), clock=clock)
    token, now = await mint(store), datetime.now(UTC)

    for _ in range(MOST_FAILURES):
        with pytest.raises(NotSignedInError):
            await reporters.recognise("wkc_wrong", address="192.0.2.1", now=now)
    with pytest.raises(TooManyAttemptsError):
        await reporters.recognise("wkc_wrong", address="192.0.2.1", now=now)

    assert await reporters.recognise(token, address="192.0.2.1", now=now) == "github-actions"


async def test_a_loop_is_told_when_to_come_back(tmp_path: Path) -> None:
    """429 with Retry-After, as at the webhooks' door."""
    answer = await send_past_the_guard(tmp_path, Book(), REPORT, guard=Busy())

    assert (answer.status_code, answer.json()["status"]) == (429, "later")
    assert answer.headers["retry-after"] == "30"


async def test_what_could_not_be_stored_was_not_reported(tmp_path: Path) -> None:
    """503, so that the pipeline tries again; 201 only after the commit."""
    answer = await send_past_the_guard(tmp_path, Book(away=True), REPORT)

    assert (answer.status_code, answer.json()["status"]) == (503, "try again")
    assert answer.headers["retry-after"] == "2"


async def test_a_report_may_say_when(tmp_path: Path) -> None:
    """With any zone; a clock that is a little ahead is believed."""
    book = Book()

    for at in ("2026-11-22T02:00:00+01:00", "2026-11-22T03:04:00Z"):
        assert (await send_past_the_guard(tmp_path, book, {**REPORT, "at": at})).status_code == 201

    assert [change.at - NOW for change in book.reports] == [timedelta(hours=-2), timedelta(minutes=4)]
