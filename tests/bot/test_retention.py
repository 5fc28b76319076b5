"""What the workflow engine forgets, with the real engine on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dbos import DBOS

from bot.retention import forget_workflows
from tests.engine_room import EngineRoom, until
from tests.kit import Store

pytestmark = pytest.mark.integration


async def test_ended_stories_are_forgotten_and_not_told_again(store: Store, tmp_path: Path) -> None:
    """Their checkpoints go when they are old enough, and the row still knows that the story was told."""
    room = EngineRoom(store, tmp_path)
    await store.page()
    async with room.running():

        async def is_told() -> bool:
            return [each.status for each in await DBOS.list_workflows_async()] == ["SUCCESS"]

        await until(is_told)
        now = datetime.now(UTC)
        young = await forget_workflows(now - timedelta(days=30))
        old = await forget_workflows(now + timedelta(minutes=1))
        left = await DBOS.list_workflows_async()
        room.engine.ring()
        await until(lambda: _swept_since(room, now))

    assert (young, old, left) == (0, 1, [])
    assert room.diary.lines().count("diagnosis") == 1


async def _swept_since(room: EngineRoom, at: datetime) -> bool:
    """Has every loop gone through again?"""
    return all(each.healthy_at is not None and each.healthy_at > at for each in room.engine.sweepers)
