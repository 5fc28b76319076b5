"""Signed checkpoints: written by the clock while the record grows; nobody forges or turns one back unseen."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from bot.checkpoint_places import CheckpointWriter, FilePlace, NotKeptError, places_of
from bot.checkpoints import read_checkpoints, signed_line
from bot.far_ends import FarEnds
from bot.incidents import WatchkeeperError
from bot.proof import Checkpoint, NotProvenError, canonical
from bot.seal import SealKey, new_secret
from bot.settings import Settings
from bot.slack.client import SlackClient, web_client
from bot.store import audit, tables
from bot.store.audit import AuditLog
from tests.bot.test_audit import disarm
from tests.kit import CONFIG, NOW, Store, config_in
from tests.slack_server import SlackServer

SECRET = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEY, OTHERS = SealKey(SECRET), SealKey(new_secret())


def checkpoint(row: int, *, record: str = "a", hash_of: str = "b") -> Checkpoint:
    return Checkpoint(record=record * 64, sequence=row, hash=hash_of * 64, at=NOW.isoformat(), count=row)


def lines(*found: Checkpoint, key: SealKey = KEY) -> str:
    return "".join(f"{signed_line(each, key)}\n" for each in found)


PLACES = """
[[checkpoint]]
url = "https://archive.example.com/lines"
credential = "ARCHIVE_TOKEN"
every_min = 10

[[checkpoint]]
slack_channel = "C0AUDIT"
"""
HONEST = lines(checkpoint(3), checkpoint(7, hash_of="c"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 is no signed checkpoint"),
        ("{}", "line 1 is no signed checkpoint"),
        (canonical(checkpoint(3).model_dump()), "line 1 is no signed checkpoint"),  # nobody signed it
        (HONEST[:-20], "line 2 is no signed checkpoint"),  # cut short
        (HONEST.replace('"sequence":7', '"sequence":8'), "line 2 was changed"),
        (HONEST.replace('"count":7', '"count":"7"'), "line 2 is no signed checkpoint"),
        (lines(checkpoint(3)) + lines(checkpoint(7), key=OTHERS), "line 2 was changed, or signed with another key"),
        (lines(checkpoint(7), checkpoint(3)), "line 2 is of row 3, after one of row 7"),
        (lines(checkpoint(3), checkpoint(7, record="f")), "line 2 is of row 7"),  # another database's
        (lines(checkpoint(3), checkpoint(3, hash_of="f")), "line 2 is of row 3"),
    ],
)
def test_only_what_the_key_signed_in_this_order_is_read(text: str, says: str) -> None:
    """Unsigned, cut, edited, signed by others, in another order, of another record: the first such line is named."""
    with pytest.raises(NotProvenError, match=says):
        read_checkpoints(text, KEY.public)


def test_a_key_verifies_in_public_and_signs_in_secret() -> None:
    """What verifies is no secret and needs none; a key that is none is said so."""
    assert read_checkpoints(HONEST, KEY.public).newest.sequence == 7
    assert SealKey(SECRET).public == KEY.public
    assert SECRET not in KEY.public
    for odd in ("short", SECRET[:-2], "!" * 44):
        with pytest.raises(WatchkeeperError, match="audit new-key"):
            SealKey(odd)
    with pytest.raises(WatchkeeperError, match="audit public-key"):
        read_checkpoints(HONEST, "no key")


async def test_checkpoints_are_written_while_the_record_grows_and_holds(store: Store, tmp_path: Path) -> None:
    """
    One line for each round with something new; a rewritten row before the last line is never signed, by whichever
    process is next, and it is found with the file.
    """
    path = tmp_path / "checkpoints.ndjson"
    writer = _writer(store, path)
    await writer.sweep()
    assert not path.exists()  # nothing is on record yet
    for _ in range(3):
        await _deed(store)
        await writer.sweep()
        await writer.sweep()
    known = read_checkpoints(path.read_text(), KEY.public)
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert (await AuditLog(store.database).verify(known)).broken_at is None

    await _rewrite(store, 2)
    await _deed(store)
    for each in (writer, _writer(store, path)):
        await each.sweep()
        assert "the record is broken at row 3" in each.trouble()
    assert path.read_text().count("\n") == 3
    report = await AuditLog(store.database).verify(read_checkpoints(path.read_text(), KEY.public))
    assert (report.broken_at, "rewritten between row 2 and row 2" in report.why) == (2, True)
    assert (await AuditLog(store.database).verify()).broken_at is None  # the chain alone cannot tell


async def test_a_file_that_was_turned_back_is_not_gone_on_with(store: Store, tmp_path: Path) -> None:
    """Neither one that lost its newest line, nor one whose last line others signed, nor one that breaks off."""
    path = tmp_path / "checkpoints.ndjson"
    writer = _writer(store, path)
    for _ in range(2):
        await _deed(store)
        await writer.sweep()
    whole = path.read_text()

    said = []
    await _deed(store)
    for text, who in (
        (whole.splitlines(keepends=True)[0], writer),
        (whole + lines(checkpoint(3), key=OTHERS), _writer(store, path)),
        (whole[:-1], _writer(store, path)),
    ):
        path.write_text(text)
        await who.sweep()
        said.append(who.trouble())
        assert path.read_text() == text
    path.write_text(whole)
    await writer.sweep()

    assert ["not there any more" in said[0], "another key" in said[1], "half a line" in said[2]] == [True] * 3
    assert (writer.trouble(), path.read_text().count("\n")) == ("", 3)


@pytest.mark.integration
async def test_a_line_goes_to_an_address_and_to_a_channel(tmp_path: Path) -> None:
    """As it was signed, so that what is copied from there verifies; a place that refuses is not believed to keep it."""
    slack = SlackServer()
    runner = await slack.start()
    heard: list[httpx.Request] = []

    def hear(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(201 if len(heard) == 1 else 403)

    config = config_in(tmp_path, CONFIG + PLACES)
    settings = Settings.load({"ARCHIVE_TOKEN": "a-token-of-ours"})
    line = lines(checkpoint(3)).strip()
    async with httpx.AsyncClient(transport=httpx.MockTransport(hear)) as client:
        slack_client = SlackClient(web_client("xoxb-test", f"{slack.url}/api/", timeout_s=2))
        (every_s, address), (_, channel) = places_of(settings, config.checkpoints, slack_client, client)
        await address.keep(line)
        await channel.keep(line)
        with pytest.raises(NotKeptError, match="403"):
            await address.keep(line)
    await runner.cleanup()

    assert (every_s, heard[0].content.decode(), heard[0].headers["authorization"]) == (
        600.0,
        line,
        "Bearer a-token-of-ours",
    )
    [posted] = slack.asked("chat.postMessage")
    assert (posted["channel"], posted["text"]) == ("C0AUDIT", f"```{line}```")
    assert read_checkpoints(posted["text"].strip("`"), KEY.public).newest.sequence == 3
    assert set(config.credentials()) >= {"ARCHIVE_TOKEN", "WATCHKEEPER_SEAL_KEY"}


def _writer(store: Store, path: Path) -> CheckpointWriter:
    return CheckpointWriter(
        FilePlace(path),
        record=AuditLog(store.database),
        key=KEY,
        pulse=store.pulse,
        far_ends=FarEnds(CollectorRegistry()),
    )


async def _deed(store: Store) -> None:
    async with store.database.write() as connection:
        await audit.append(connection, at=NOW, actor="alice", action="test", subject="s")


async def _rewrite(store: Store, start: int) -> None:
    """What an administrator can do: take the triggers off, write rows anew, and hash all after them again."""
    await disarm(store)
    async with store.database.write() as connection:
        await connection.execute(tables.audit.delete().where(tables.audit.c.seq >= start))
    for actor in ("mallory", "alice"):
        async with store.database.write() as connection:
            await audit.append(connection, at=NOW, actor=actor, action="test", subject="s")
