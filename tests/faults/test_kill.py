"""kill -9 of the product at random moments of the whole story: it ends well, nothing is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.store.audit import AuditLog
from bot.store.database import Database
from lab.actors import play_story
from lab.demo import still_missing
from lab.drill import DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOT_USER
from lab.progress import Progress

STORIES = 2
KILLS_PER_STORY = 5
"""10 kills in all; each story is played from the page to the verified fix."""

DEADLINE_S = 240

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(DEADLINE_S + 60)]


@pytest.mark.parametrize("number", range(STORIES))
async def test_the_story_survives_kills(number: int, tmp_path: Path) -> None:
    """Five kills somewhere between readiness and the resolved incident; the seed is the story's number."""
    said: list[str] = []
    options = DrillOptions(folder=tmp_path, seed=number)
    async with (
        asyncio.timeout(DEADLINE_S),
        running_drill(options, Progress()) as drill,
        local_client(base_url=drill.page) as client,
    ):
        killing = asyncio.create_task(_kill_now_and_then(tmp_path, random.Random(number)))
        await play_story(client, said.append)
        while await still_missing(drill, client):
            await asyncio.sleep(0.3)
        assert await killing == KILLS_PER_STORY
        await _settled(tmp_path)

        assert await still_missing(drill, client) == []
        await _nothing_ran_twice(tmp_path)
        await _nothing_was_told_twice(client)
        await _the_record_is_whole(tmp_path)
    assert said[-1] == "Bob approved the fix"


async def _kill_now_and_then(folder: Path, moments: random.Random) -> int:
    """kill -9 by the id that the supervisor wrote down for exactly this process; it starts the next one."""
    kills = 0
    while kills < KILLS_PER_STORY:
        await asyncio.sleep(moments.uniform(0.3, 7.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((folder / "watchkeeper-serve.pid").read_text()), signal.SIGKILL)
            kills += 1
    return kills


async def _settled(folder: Path) -> None:
    """Until the last of the outbox is out: the notes may follow the resolution by a moment."""
    while True:
        with sqlite3.connect(folder / "watchkeeper.sqlite") as connection:
            if not set(_column(connection, "SELECT DISTINCT state FROM outbox")) - {"done", "dead"}:
                return
        await asyncio.sleep(0.2)


async def _nothing_ran_twice(folder: Path) -> None:
    """The prompt store counts what it was told: one move of the label, and the journal says the same."""
    address = json.loads((folder / "lab.json").read_text())["langfuse"]
    async with local_client(base_url=address) as client:
        writes = (await client.get("/_lab/writes")).json()
    assert len(writes) == 1, writes


async def _nothing_was_told_twice(client: httpx.AsyncClient) -> None:
    """One card; in its thread the evidence and the outcome once each, the picture at most once."""
    channel = (await client.get("/channel")).json()
    cards = [message for message in channel["messages"] if message["user"] == BOT_USER]
    assert len(cards) == 1
    replies = [reply.get("text", "") for reply in cards[0]["replies"]]
    assert sum(text.startswith("Evidence for diagnosis 1") for text in replies) == 1, replies
    assert sum(text.startswith("Fix ") for text in replies) == 1, replies


async def _the_record_is_whole(folder: Path) -> None:
    """The chain holds, every delivery was folded, every diagnosis ended, nothing waits in the outbox."""
    path = folder / "watchkeeper.sqlite"
    database = Database(f"sqlite:///{path}")
    try:
        assert (await AuditLog(database).verify()).broken_at is None
    finally:
        await database.close()
    with sqlite3.connect(path) as connection:
        assert _column(connection, "SELECT DISTINCT state FROM delivery") == ["done"]
        assert _column(connection, "SELECT DISTINCT state FROM run") == ["done"]
        assert "dead" not in _column(connection, "SELECT DISTINCT state FROM outbox")


def _column(connection: sqlite3.Connection, query: str) -> list[Any]:
    return [row[0] for row in connection.execute(query)]
