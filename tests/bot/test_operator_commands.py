"""`watchkeeper operator`, `incidents`, `show`, `approve`, `deny`: as somebody types them while Slack is down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from bot.cli import WRONG_INPUT, app
from bot.incidents import NotFoundError, PlanState, WatchkeeperError
from bot.operator_client import OperatorClient, thing_in_words
from bot.store.audit import AuditLog
from tests.kit import INCIDENT, Store, config_in, open_store
from tests.operator_house import listening, operator_house
from tests.stories import diagnosed, fresh_plan


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A shell with the settings of an operator, beside a running server and its database."""

    store: Store
    folder: Path
    url: str
    seal_key: str = ""

    async def type(self, *words: str, token: str = "", answer: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors of `watchkeeper WORDS`, in a thread, since the server runs in this one."""
        environment = {
            "DATABASE_URL": self.store.database.url.render_as_string(hide_password=False),
            "WATCHKEEPER_CONFIG": str(self.folder / "watchkeeper.toml"),
            "WATCHKEEPER_URL": self.url,
            "WATCHKEEPER_TOKEN": token or None,
            "WATCHKEEPER_SEAL_KEY": self.seal_key or None,
        }
        end = await asyncio.to_thread(CliRunner().invoke, app, words, input=answer, env=environment)
        if isinstance(end.exception, WatchkeeperError):
            return WRONG_INPUT, end.stdout, str(end.exception)  # as `main` tells it
        return end.exit_code, end.stdout, end.stderr


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        await store.page()
        await diagnosed(store)
        await store.offer(fresh_plan(store))
        async with operator_house(store) as house, listening(house.web) as url:
            yield Terminal(store=store, folder=tmp_path, url=url)


@pytest.mark.integration
async def test_an_operator_approves_from_a_terminal(terminal: Terminal) -> None:
    """A token is made and shown once; its bearer reads, is asked, says yes; the record says who and by which way."""
    made, token, _ = await terminal.type("operator", "add", "bob", "--label", "laptop")
    token = token.strip()
    _, listed, _ = await terminal.type("operator", "list")
    _, incidents, _ = await terminal.type("incidents", token=token)
    _, shown, _ = await terminal.type("show", INCIDENT, token=token)
    _, alike, _ = await terminal.type("similar", INCIDENT, token=token)
    await terminal.store.incidents.record(INCIDENT, 1, similar=[])
    _, none, _ = await terminal.type("similar", INCIDENT, "--json", token=token)
    done, said, errors = await terminal.type("approve", "plan-1", token=token, answer="yes\n")

    assert made == 0
    assert token.startswith("wko_")
    assert token not in listed
    assert "bob" in listed
    assert "laptop" in listed
    assert f"{INCIDENT}  triggered" in incidents
    assert "A prompt change broke the prefix cache" in shown
    assert alike.startswith("not compared yet")
    assert json.loads(none) == []
    assert (done, errors) == (0, "")
    for words in ("Set the thing from 8 to 7.", "R1, reversible", "fake.set to: 8", "Your approval is recorded."):
        assert words in said
    assert (await terminal.store.plans.get("plan-1")).state is PlanState.APPROVED
    row = (await AuditLog(terminal.store.database).about(INCIDENT))[-1]
    assert (row.actor, row.action, row.details["channel"]) == ("bob", "plan.approve", "operator")

    done, said, errors = await terminal.type("revoke", "plan-1", token=token, answer="yes\n")

    assert (done, errors) == (0, "")
    assert "The approval is taken back; nothing has run." in said
    assert (await terminal.store.plans.get("plan-1")).state is PlanState.SUPERSEDED


@pytest.mark.integration
async def test_a_refusal_is_a_sentence_and_status_2(terminal: Terminal) -> None:
    """Not "yes", not allowed, not known, not this hash, revoked: told in words, and nothing happened."""
    _, token, _ = await terminal.type("operator", "add", "alice")
    token = token.strip()
    hesitates = await terminal.type("deny", "plan-1", token=token, answer="y\n")
    refused = await terminal.type("approve", "plan-1", token=token, answer="yes\n")
    unknown = await terminal.type("approve", "plan-9", token=token, answer="yes\n")
    other = await terminal.type("approve", "plan-1", "--yes", "--digest", "0" * 64, token=token)
    unclear = await terminal.type("approve", "plan-1", "--yes", token=token)
    stranger = await terminal.type("operator", "add", "mallory")
    _, listed, _ = await terminal.type("operator", "list")
    await terminal.type("operator", "revoke", listed.split()[0])
    revoked = await terminal.type("incidents", token=token)
    nobody = await terminal.type("incidents")

    told = {
        hesitates: "nothing was done",
        refused: "This fix needs prompt-owner (Bob Brandt)",
        unknown: "plan plan-9 is not known here",
        other: "is not the plan that you read",
        unclear: "--yes needs --digest",
        stranger: "mallory is not in",
        revoked: "does not count",
        nobody: "WATCHKEEPER_TOKEN is not set",
    }
    for (status, _, error), words in told.items():
        assert (status, words in error) == (2, True), (words, error)
    assert (await terminal.store.plans.get("plan-1")).state is PlanState.PROPOSED


@pytest.mark.integration
async def test_a_script_approves_what_it_read(terminal: Terminal) -> None:
    """`--yes` with the hash asks nobody; the hash comes from `show --json`."""
    _, token, _ = await terminal.type("operator", "add", "bob")
    token = token.strip()
    _, shown, _ = await terminal.type("show", "plan-1", "--json", token=token)
    status, _, error = await terminal.type(
        "approve", "plan-1", "--yes", "--digest", json.loads(shown)["digest"], token=token
    )

    assert (status, error) == (0, "")
    assert (await terminal.store.plans.get("plan-1")).state is PlanState.APPROVED


def answering(response: httpx.Response | Exception) -> OperatorClient:
    """A client of a server that always answers this."""

    def answer(_: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    return OperatorClient("https://watch.example.com", "wko_secret", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.ConnectError("refused"), "https://watch.example.com cannot be reached: ConnectError"),
        (httpx.Response(200, text="<html>"), "does not answer like Watchkeeper"),
        (httpx.Response(302, json={}, headers={"Location": "https://evil.example.com"}), "answered 302"),
        (httpx.Response(500, json=[]), "answered 500"),
        (httpx.Response(429, json={"error": "Too many attempts; wait a minute."}), "wait a minute"),
        (httpx.Response(401, json={"error": "You are not signed in."}), "does not count"),
    ],
    ids=range(6),
)
def test_whatever_answers_the_person_hears_a_sentence(response: Any, words: str) -> None:
    """No trace, no token, and no redirect followed with the token in hand."""
    with pytest.raises(WatchkeeperError) as told:
        answering(response).incidents()

    assert words in str(told.value)
    assert "wko_secret" not in str(told.value)


def test_what_is_neither_plan_nor_incident_is_not_found() -> None:
    """Asked as both."""
    with pytest.raises(NotFoundError, match="not known"):
        answering(httpx.Response(404, json={"error": "it is not known here"})).show("x")


def test_a_terminal_obeys_no_title() -> None:
    """Escape sequences in an incident's title do not reach the terminal."""
    story: dict[str, Any] = {
        "id": "Q1",
        "service": "chat",
        "title": "\x1b]0;owned\x07\x1b[2J",
        "state": "triggered",
        "since": None,
        "causes": [],
        "troubles": [],
        "plans": [],
        "timeline": [],
    }

    assert "\x1b" not in thing_in_words(story)


@pytest.mark.integration
async def test_an_operator_gives_other_values(terminal: Terminal) -> None:
    """By name and value; what the fix has not is told in a sentence, like what cannot be read."""
    _, token, _ = await terminal.type("operator", "add", "bob")
    token = token.strip()
    unread = await terminal.type("narrow", "plan-1", "--param", "replicas", token=token)
    fixed = await terminal.type("narrow", "plan-1", "--param", "replicas=4", token=token)

    assert (unread[0], "NAME=VALUE" in unread[2]) == (2, True)
    assert (fixed[0], fixed[2]) == (2, "The runbook changed since this fix was made. Diagnose again for a fresh one.")
