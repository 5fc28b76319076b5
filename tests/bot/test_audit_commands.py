"""`watchkeeper audit` and the kill switch as somebody types them, over a real database and a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.seal import new_secret
from bot.store.audit import AuditLog
from bot.store.kill_switch import SUBJECT
from tests.bot.test_operator_commands import Terminal
from tests.kit import config_in, open_store
from tests.operator_house import listening, operator_house


@pytest.fixture
async def terminal(database_url: str, tmp_path: Path) -> AsyncIterator[Terminal]:
    async with open_store(database_url, config_in(tmp_path)) as store:
        await store.page()
        async with operator_house(store) as house, listening(house.web) as url:
            yield Terminal(store=store, folder=tmp_path, url=url, seal_key=new_secret())


@pytest.mark.integration
async def test_the_record_is_exported_and_verified_without_its_database(terminal: Terminal) -> None:
    """The export holds, alone and against the checkpoint; an edited one, or an older file's name, is refused."""
    head, out = terminal.folder / "head.json", terminal.folder / "all.ndjson"
    await terminal.type("stop", "--reason", "wrong cluster")
    assert (await terminal.type("audit", "checkpoint", "--out", str(head)))[0] == 0
    exported = await terminal.type("audit", "export", "--out", str(out))
    _, printed, _ = await terminal.type("audit", "export")

    against = ("audit", "verify", "--export", str(out), "--checkpoint", str(head))
    status, said, _ = await terminal.type(*against)
    assert (exported[0], status) == (0, 0)
    assert printed == out.read_text(encoding="utf-8")
    assert f"it holds the checkpoint's row {json.loads(head.read_text())['sequence']}" in said
    _, alone, _ = await terminal.type("audit", "verify", "--export", str(out))
    assert "without a checkpoint, rows that were cut off its end are not noticed" in alone
    _, whole, _ = await terminal.type("audit", "verify", "--checkpoint", str(head))
    assert "unbroken" in whole

    again = await terminal.type("audit", "export", "--out", str(out))
    out.write_text(printed.replace("wrong cluster", "right cluster"), encoding="utf-8")
    edited = await terminal.type(*against)
    _, day, _ = await terminal.type("audit", "export", "--since", "2000-01-01", "--until", "2000-01-02")
    wrong = await terminal.type("audit", "export", "--since", "yesterday")
    assert (again[0], "File exists" in again[2]) == (2, True)
    assert (edited[0], "was changed" in edited[2]) == (2, True)
    assert json.loads(day)["rows"] == 0
    assert (wrong[0], "--since has to be" in wrong[2]) == (2, True)


@pytest.mark.integration
async def test_a_checkpoint_counts_only_as_it_was_signed(terminal: Terminal) -> None:
    """Edited, of another deployment's key, or unsigned it is refused; the public key is enough to verify with."""
    head = terminal.folder / "head.json"
    await terminal.type("audit", "checkpoint", "--out", str(head))
    stranger = replace(terminal, seal_key=new_secret())
    auditor = replace(terminal, seal_key="")
    public = (await terminal.type("audit", "public-key"))[1].strip()
    verify = ("audit", "verify", "--checkpoint", str(head))

    held = await auditor.type(*verify, "--key", public)
    other = await stranger.type(*verify)
    none = await auditor.type("audit", "checkpoint")
    known = json.loads(head.read_text())
    head.write_text(json.dumps({**known, "sequence": known["sequence"] + 1, "count": known["count"] + 1}))
    edited = await terminal.type(*verify)
    head.write_text("{}")
    unsigned = await terminal.type(*verify)

    assert (held[0], f"it holds the checkpoint's row {known['sequence']}" in held[1]) == (0, True)
    assert (other[0], "signed with another key" in other[2]) == (2, True)
    assert (none[0], "WATCHKEEPER_SEAL_KEY is not set" in none[2]) == (2, True)
    assert (edited[0], "head.json: line 1 was changed" in edited[2]) == (2, True)
    assert (unsigned[0], "no signed checkpoint" in unsigned[2]) == (2, True)


@pytest.mark.integration
async def test_everything_is_stopped_and_released_from_a_terminal(terminal: Terminal) -> None:
    """By the server as who signed in, or beside the database as the Unix user; refusals are sentences."""
    tokens = {name: (await terminal.type("operator", "add", name))[1].strip() for name in ("bob", "paul")}
    stopped = await terminal.type("stop", "--reason", "wrong cluster", token=tokens["bob"])
    again = await terminal.type("stop", token=tokens["paul"])
    refused = await terminal.type("go", token=tokens["bob"])
    _, shown, _ = await terminal.type("show", "Q0INCIDENT1", token=tokens["bob"])
    released = await terminal.type("go", token=tokens["paul"])
    beside = await terminal.type("stop", "--database", token=tokens["bob"])
    released_beside = await terminal.type("go")
    nothing = await terminal.type("go")

    assert (stopped[0], stopped[1][:22]) == (0, "Everything is stopped.")
    assert again[1] == "Everything was stopped already.\n"
    assert (refused[0], "Only who may approve an R2 fix" in refused[2]) == (2, True)
    assert "Everything is stopped since" in shown
    assert [each[0] for each in (released, beside, released_beside)] == [0, 0, 0]
    assert nothing[1] == "Nothing is stopped.\n"
    rows = await AuditLog(terminal.store.database).about(SUBJECT)
    assert [(row.action, row.details["channel"]) for row in rows] == [
        ("switch.stopped", "operator"),
        ("refused", "operator"),
        ("switch.released", "operator"),
        ("switch.stopped", "database"),
        ("switch.released", "database"),
    ]
    assert (rows[0].actor, rows[0].details["reason"], rows[2].actor) == ("bob", "wrong cluster", "paul")
    assert rows[3].actor.startswith("unix:")


@pytest.mark.integration
async def test_the_api_takes_a_short_reason_and_nothing_else(terminal: Terminal) -> None:
    """Neither strangers nor odd bodies turn the switch."""
    async with operator_house(terminal.store) as house:
        stranger = await house.client().post("/api/stop", json={"reason": ""})
        async with house.client(await house.mint("bob")) as bob:
            odd = [
                await bob.post("/api/stop", json=body)
                for body in ({}, {"reason": 1}, {"reason": "x" * 301}, {"reason": "", "by": "paul"})
            ]

    assert stranger.status_code == 401
    assert [answer.status_code for answer in odd] == [400] * 4
    assert not (await terminal.store.switch.read()).is_stopped
