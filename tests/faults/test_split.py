"""Doors and workers as processes of their own live through a whole incident in the lab, and through the loss of one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.tables import delivery, outbox, run, worker
from lab.actors import play_story
from lab.demo import still_missing
from lab.drill import DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOT_USER
from lab.progress import Progress

DEADLINE_S = 240

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(DEADLINE_S + 30)]


@pytest.fixture
def postgres_template() -> str:
    """Here the databases begin empty."""
    return "template0"


async def test_a_whole_incident_beside_a_killed_worker(database_url: str, tmp_path: Path) -> None:
    """One card, one fix, one outcome; the doors load no model, and each process is on record."""
    options = DrillOptions(
        folder=tmp_path, product=("-m", "tests.split_product"), variables={"DATABASE_URL": database_url}
    )
    said: list[str] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        running_drill(options, Progress()) as drill,
        local_client(base_url=drill.page) as client,
    ):
        doors = (tmp_path / "doors.pid").read_text()
        killing = asyncio.create_task(_kill(tmp_path / "worker-0.pid", said))
        await play_story(client, said.append)
        await killing
        while missing := await still_missing(drill, client):
            await asyncio.sleep(0.3)
        assert missing == []
        assert not _has_loaded_torch(doors)
        await _nothing_is_left(database_url)
        channel = (await client.get("/channel")).json()

    cards = [message for message in channel["messages"] if message["user"] == BOT_USER]
    assert len(cards) == 1
    replies = [reply.get("text", "") for reply in cards[0]["replies"]]
    assert sum(text.startswith("Evidence for diagnosis 1") for text in replies) == 1, replies
    assert sum(text.startswith("Fix ") for text in replies) == 1, replies


async def _kill(pid: Path, said: list[str]) -> None:
    """kill -9 of one worker when the story has begun; its supervisor starts the next one."""
    while not said:
        await asyncio.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(_number_in(pid), signal.SIGKILL)


def _number_in(pid: Path) -> int:
    return int(pid.read_text())


def _has_loaded_torch(pid: str) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


async def _nothing_is_left(url: str) -> None:
    """All that came is folded, all runs ended, all is told; the chain holds; doors and workers were there."""
    database = Database(url)
    try:
        while {"new", "sending"} & (
            await _states(database, outbox.c.state) | await _states(database, delivery.c.state)
        ):
            await asyncio.sleep(0.2)
        assert await _states(database, outbox.c.state) == {"done"}
        assert await _states(database, delivery.c.state) == {"done"}
        assert await _states(database, run.c.state) == {"done"}
        assert await _states(database, worker.c.role) == {"web", "worker"}
        assert (await AuditLog(database).verify()).broken_at is None
    finally:
        await database.close()


async def _states(database: Database, column: sa.Column[str]) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(sa.select(column).distinct())).scalars())
