"""`watchkeeper change ...`: as somebody types it beside the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import WRONG_INPUT, app
from bot.incidents import WatchkeeperError
from bot.store.audit import AuditLog
from tests.kit import Store, config_in, open_store

RECORD = ("change", "record", "--service", "chat", "--kind", "prompt", "--summary", "a shorter system prompt")


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A shell on the machine of the database."""

    store: Store
    folder: Path

    async def type(self, *words: str) -> tuple[int, str]:
        """Exit status, and output or the error's sentence, of `watchkeeper WORDS`."""
        environment = {
            "DATABASE_URL": self.store.database.url.render_as_string(hide_password=False),
            "WATCHKEEPER_CONFIG": str(self.folder / "watchkeeper.toml"),
        }
        end = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
        if isinstance(end.exception, WatchkeeperError):
            return WRONG_INPUT, str(end.exception)  # as `main` tells it
        return end.exit_code, end.stdout


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        yield Terminal(store=store, folder=tmp_path)


async def test_a_change_is_recorded_and_listed(terminal: Terminal) -> None:
    """With its texts from files, who recorded it, and as much of the prompt as the service allows."""
    before, after = terminal.folder / "old.txt", terminal.folder / "new.txt"
    before.write_text("Be kind.\nBe brief.\n")
    after.write_text("Be kind to {{user}}.\n")
    at = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    files = ("--before-file", str(before), "--after-file", str(after))

    said = await terminal.type(*RECORD, *files, "--at", at, "--scope", "prompt=chat-system", "--author", "bob")
    _, words = await terminal.type("change", "list", "--service", "chat")
    _, listed = await terminal.type("change", "list", "--service", "chat", "--json")
    _, nothing = await terminal.type("change", "list", "--service", "chat", "--since", "1h")

    assert said[0] == 0
    assert said[1].startswith("recorded: prompt:")
    assert f"{at}  prompt      a shorter system prompt  (command line, bob)" in words
    assert "+▒ ▒ ▒ {{user}}." in words
    [change] = json.loads(listed)
    assert (change["source"], change["author"], change["scope"]) == ("command line", "bob", {"prompt": ["chat-system"]})
    assert "brief" not in listed
    assert nothing == "nothing is known to have changed\n"
    [row] = await AuditLog(terminal.store.database).about("service:chat")
    assert row.actor.startswith("unix:")


async def test_a_diagnosis_from_the_command_line_reads_the_journal(terminal: Terminal) -> None:
    """Beside the server's database; with a telemetry that is away the change is all that there is."""
    await terminal.type(*RECORD, "--id", "deploy-7")

    status, said = await terminal.type("diagnose", "chat", "--json")

    assert status == 0
    answer = json.loads(said[said.index("{\n") :])
    assert [suspect["change"] for suspect in answer["suspects"]] == ["deploy-7"]


async def test_a_diagnosis_can_be_of_another_time(terminal: Terminal) -> None:
    """What came later is hidden from it; a time that nobody understands is refused before anything is asked."""
    await terminal.type(*RECORD, "--id", "deploy-7")

    status, said = await terminal.type("diagnose", "chat", "--at", "2026-01-02T03:04:05Z", "--json")
    refused = await terminal.type("diagnose", "chat", "--at", "noon")

    assert status == 0
    answer = json.loads(said[said.index("{\n") :])
    assert (answer["at"], answer["suspects"]) == ("2026-01-02T03:04:05Z", [])
    assert refused[0] != 0
    assert "'noon' is no time" in refused[1]


async def test_a_script_that_runs_twice_records_once(terminal: Terminal) -> None:
    """By its id, or by what it says when it says when."""
    first = [await terminal.type(*RECORD, "--id", "deploy-7") for _ in range(2)]
    second = [await terminal.type(*RECORD, "--at", datetime.now(UTC).isoformat()[:19] + "Z") for _ in range(1)]

    assert [words.split(":")[0] for _, words in (*first, *second)] == ["recorded", "recorded before", "recorded"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "weather"), "kind: Input should be"),
        (("--service", "chta"), "did you mean chat?"),
        (("--at", "yesterday"), "at: "),
        (("--scope", "pod"), "is not DIMENSION=VALUE"),
        (("--scope", "planet=earth"), "scope.planet"),
        (("--after-file", "/nowhere/at/all"), "/nowhere/at/all cannot be read"),
        (("--url", "javascript:x"), "url: must start with https://"),
    ],
)
async def test_a_mistake_is_a_sentence(terminal: Terminal, words: tuple[str, ...], said: str) -> None:
    """The last one of an option given twice counts; nothing is recorded."""
    status, sentence = await terminal.type(*RECORD, *words)

    assert status == WRONG_INPUT
    assert said in sentence
    assert (await terminal.type("change", "list", "--service", "chat"))[1] == "nothing is known to have changed\n"


async def test_an_unknown_service_has_no_list(terminal: Terminal) -> None:
    """An empty one would look like a quiet service."""
    status, sentence = await terminal.type("change", "list", "--service", "caht")

    assert (status, "there is no service 'caht'" in sentence) == (WRONG_INPUT, True)


async def test_a_pipeline_gets_a_token_that_ends(terminal: Terminal) -> None:
    """Shown once; the list names the source, and revoking ends it."""
    made, token = await terminal.type("change", "token", "add", "github-actions", "--label", "deploys", "--days", "30")
    _, listed = await terminal.type("change", "token", "list")
    _, operators = await terminal.type("operator", "list")
    revoked, said = await terminal.type("change", "token", "revoke", listed.split()[0])
    _, after = await terminal.type("change", "token", "list")
    refused, sentence = await terminal.type("change", "token", "add", "metrics")

    assert made == 0
    assert token.startswith("wkc_")
    assert token.strip() not in listed
    assert "github-actions" in listed
    assert "counts" in listed
    assert operators == "nobody has a token\n"
    assert (revoked, "github-actions" in said) == (0, True)
    assert "revoked" in after
    assert (refused, "cannot be a source's name" in sentence) == (WRONG_INPUT, True)
