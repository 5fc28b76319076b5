"""Several processes on one database: who is killed, frozen, stopped or replaced loses nothing and repeats nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

from bot.cli import DECLARED_DEAD
from bot.incidents import PlanState
from bot.parts import engine_url
from bot.respond import Respond
from bot.store.database import workflow_engine
from bot.stories import Checkpoint
from tests.engine_room import EngineRoom, process, until
from tests.kit import INCIDENT, Store

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

TAKEN_OVER_WITHIN_S = 30.0


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> EngineRoom:
    """Paged; nobody works yet."""
    await store.page()
    return EngineRoom(store, tmp_path)


@pytest.fixture
async def crew() -> AsyncIterator[AsyncExitStack]:
    """Processes that a test starts; all of them are gone afterwards."""
    async with AsyncExitStack() as processes:
        yield processes


async def diagnosed(store: Store, *incidents: str) -> bool:
    runs = [await store.incidents.run(each, 1) for each in incidents or (INCIDENT,)]
    return all(run is not None and run.state == "done" for run in runs)


async def ended(store: Store, plan_id: str) -> bool:
    return (await store.plans.get(plan_id)).state not in (PlanState.APPROVED, PlanState.RUNNING)


def teller(room: EngineRoom, story: str) -> int:
    """The process id of who tells this story, from DBOS' own table."""
    link = workflow_engine(engine_url(room.url))
    schema = "dbos" if link.dialect.name == "postgresql" else None
    try:
        with link.connect() as connection:
            told = sa.table("workflow_status", sa.column("executor_id"), sa.column("workflow_uuid"), schema=schema)
            query = sa.select(told.c.executor_id).where(told.c.workflow_uuid == story)
            executor: str = connection.execute(query).scalar_one()
    finally:
        link.dispose()
    return int(executor.rsplit("-", 2)[1])


async def fix_under_way(room: EngineRoom, moment: str) -> str:
    """Diagnosed, approved, and held at this moment of the fix; the plan's id."""
    await until(lambda: diagnosed(room.store), 60)
    room.diary.hang(moment)
    plan_id = await room.approve()
    async with asyncio.timeout(60):
        await room.diary.until(moment)
    return plan_id


async def test_a_killed_process_is_taken_over(
    room: EngineRoom, database_url: str, tmp_path: Path, crew: AsyncExitStack
) -> None:
    """
    kill -9 in the middle of the change: the other one probes, does not repeat, and verifies.

    On the same machine (as always with SQLite) it sees that the process is gone; from another one the silence tells.
    """
    where = "together" if database_url.startswith("sqlite") else "apart"
    both = [await crew.enter_async_context(process(database_url, tmp_path, where)) for _ in range(2)]
    plan_id = await fix_under_way(room, "act")
    victim = teller(room, f"{plan_id}:1")
    assert victim in {each.pid for each in both}

    os.kill(victim, signal.SIGKILL)
    struck = time.monotonic()
    room.diary.hang("")
    await until(lambda: ended(room.store, plan_id), 60)

    assert time.monotonic() - struck < TAKEN_OVER_WITHIN_S
    assert (await room.store.plans.get(plan_id)).state is PlanState.VERIFIED
    assert room.diary.lines()[3:] == ["about to act", "act", "probe", "check", "check"]


async def test_a_frozen_process_that_thaws_does_nothing_more(
    room: EngineRoom, database_url: str, tmp_path: Path, crew: AsyncExitStack
) -> None:
    """It was about to act; the other one did meanwhile. It finds itself declared dead, and ends."""
    both = {each.pid: each for each in [await crew.enter_async_context(process(database_url, tmp_path)) for _ in "ab"]}
    plan_id = await fix_under_way(room, "about to act")
    victim = teller(room, f"{plan_id}:1")

    os.kill(victim, signal.SIGSTOP)
    room.diary.hang("")
    await until(lambda: ended(room.store, plan_id), TAKEN_OVER_WITHIN_S)
    os.kill(victim, signal.SIGCONT)
    async with asyncio.timeout(20):
        status = await both[victim].wait()

    assert status == DECLARED_DEAD, (tmp_path / "output").read_text()
    assert (await room.store.plans.get(plan_id)).state is PlanState.VERIFIED
    assert room.diary.lines()[3:] == ["about to act", "probe", "probe", "about to act", "act", "check", "check"]


async def test_a_rolling_restart_loses_nothing(
    room: EngineRoom, database_url: str, tmp_path: Path, crew: AsyncExitStack
) -> None:
    """Each process is told to stop in the middle of the diagnoses and replaced; no step that ended is repeated."""
    incidents = [INCIDENT, "Q0SECOND", "Q0THIRD"]
    for which in incidents[1:]:
        await room.store.page(incident_id=which, event_id=which)
    room.diary.hang("diagnosis")
    old = [await crew.enter_async_context(process(database_url, tmp_path)) for _ in range(2)]
    async with asyncio.timeout(60):
        while room.diary.lines().count("diagnosis") < 3 or len(await room.store.workers.living()) < 2:
            await asyncio.sleep(0.05)

    for each in old:
        each.terminate()
        async with asyncio.timeout(30):
            assert await each.wait() == 0, (tmp_path / "output").read_text()
        await crew.enter_async_context(process(database_url, tmp_path))
    room.diary.hang("")
    await until(lambda: diagnosed(room.store, *incidents), 60)

    lines = room.diary.lines()
    assert (lines.count("alerts"), lines.count("runbooks")) == (3, 3)


class NewerRespond(Respond):
    """The next release: one step before what is done already, one after it."""

    async def tell(self, incident_id: str, number: int, step: Checkpoint) -> None:
        if await DBOS.patch_async("greeting"):
            await step("greeting", self.greet, incident_id)
        await step("alerts", self.read_alerts, incident_id, number)
        await step("diagnosis", self.diagnose, incident_id, number)
        await step("runbooks", self.find_runbooks, incident_id, number)
        if await DBOS.patch_async("farewell"):
            await step("farewell", self.part, incident_id)
        await step("plans", self.make_plans, incident_id, number)
        await step("verdict", self.conclude, incident_id, number)

    async def greet(self, incident_id: str) -> None:
        await self._diary().write("greeting")

    async def part(self, incident_id: str) -> None:
        await self._diary().write("farewell")

    def _diary(self) -> Any:
        neighbours: Any = self._search
        return neighbours.diary


async def test_an_upgrade_in_mid_run_finishes_what_the_old_code_began(
    room: EngineRoom, database_url: str, tmp_path: Path
) -> None:
    """A new step before what the old code did is left out, a new one after it is done; the next story has both."""
    room.diary.hang("diagnosis")
    async with process(database_url, tmp_path), asyncio.timeout(60):
        await room.diary.until("diagnosis")
    room.diary.hang("")

    newer = EngineRoom(room.store, tmp_path)
    newer.respond_story = NewerRespond
    async with newer.running():
        await until(lambda: diagnosed(room.store), 60)
        assert room.diary.lines() == ["alerts", "diagnosis", "diagnosis", "runbooks", "farewell"]
        await room.store.page(incident_id="Q0SECOND", event_id="second")
        newer.engine.ring()
        await until(lambda: diagnosed(room.store, "Q0SECOND"), 60)

    assert room.diary.lines()[5:] == ["greeting", "alerts", "diagnosis", "runbooks", "farewell"]
