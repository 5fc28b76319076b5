"""The engine starts each row's story once, takes up what a crash cut off, and outlives its database's absences."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot import engine
from bot.engine import Bell, Engine, Sweeper
from bot.incidents import PlanState, StoreUnavailableError
from bot.parts import engine_url
from bot.store import tables
from bot.store.database import Database, sync_engine, workflow_engine
from bot.stories import Stories
from tests.engine_room import Diary, EngineRoom, process, until
from tests.kit import INCIDENT, NOW, Store, event
from tests.stories import FOUND, fresh_plan

# Bells, sweeps and tasks, without DBOS.


async def test_many_rings_before_a_look_are_one() -> None:
    """And a ring during the look is not lost."""
    bell = Bell()
    for _ in range(5):
        bell.ring()

    await bell.wait()

    assert not bell._rung.is_set()
    bell.ring()
    async with asyncio.timeout(1):
        await bell.wait()


class Shaky:
    """A sweep that fails as told, once each, and lets the test wait for its rounds."""

    def __init__(self, *troubles: Exception | None) -> None:
        self.troubles = list(troubles)
        self.rounds = 0
        self.sweeper = Sweeper("shaky", self._sweep)

    async def _sweep(self) -> None:
        self.rounds += 1
        if self.troubles and (trouble := self.troubles.pop(0)) is not None:
            raise trouble

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.sweeper.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def another_round(self) -> None:
        rounds = self.rounds
        self.sweeper.bell.ring()
        async with asyncio.timeout(2):
            while self.rounds == rounds:
                await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("trouble", [StoreUnavailableError("the database does not answer"), RuntimeError("a defect")])
async def test_a_sweep_survives_its_troubles(trouble: Exception) -> None:
    """A failed round is not a healthy one, and the next ring sweeps again."""
    shaky = Shaky(trouble)
    async with shaky.running():
        await shaky.another_round()
        assert shaky.sweeper.healthy_at is None

        await shaky.another_round()

    assert shaky.sweeper.healthy_at is not None
    assert shaky.rounds == 2


async def test_nothing_is_swept_before_the_bell_rings() -> None:
    """Idle is idle."""
    shaky = Shaky()
    async with shaky.running():
        for _ in range(10):
            await asyncio.sleep(0)

    assert shaky.rounds == 0


def idle_engine(store: Store, tmp_path: Path) -> Engine:
    """Not started: only its sweeps are called."""
    system = workflow_engine(sa.make_url(f"sqlite:///{tmp_path}/engine.sqlite"))
    return Engine(
        system_engine=system,
        pulse=store.pulse,
        workers=store.workers,
        duties=store.duties,
        inbox=store.inbox,
        incidents=store.incidents,
        plans=store.plans,
    )


async def test_an_offer_that_nobody_decided_on_expires(store: Store, tmp_path: Path) -> None:
    """Proposals and alternatives whose time is over; the others stay."""
    await store.page()
    past = {"made_at": NOW - timedelta(days=9000), "expires_at": NOW - timedelta(days=8999)}
    for rank, (name, state, more) in enumerate(
        [
            ("old", PlanState.PROPOSED, past),
            ("old-alternative", PlanState.ALTERNATIVE, past),
            ("old-denied", PlanState.DENIED, past),
            ("new", PlanState.PROPOSED, {}),
        ]
    ):
        await store.offer(fresh_plan(store, plan_id=name, **more), rank=rank, state=state)

    await idle_engine(store, tmp_path)._start_fixes()

    rows = {row.plan.plan_id: (row.state, row.why) for row in await store.plans.of_incident(INCIDENT)}
    assert rows == {
        "old": (PlanState.EXPIRED, "Nobody decided in time."),
        "old-alternative": (PlanState.EXPIRED, "Nobody decided in time."),
        "old-denied": (PlanState.DENIED, ""),
        "new": (PlanState.PROPOSED, ""),
    }


async def test_an_approved_plan_that_could_not_start_in_time_expires(store: Store, tmp_path: Path) -> None:
    """The product was down for longer than an approval lasts; whoever approved meant then, not now."""
    await store.page()
    await store.offer(fresh_plan(store))
    row = await store.plans.get("plan-1")
    long_ago = NOW - timedelta(days=9000)
    await store.plans.decide(
        row, "approve", by="bob", role="prompt-owner", suffice=bool, start_by=long_ago, now=long_ago
    )

    await idle_engine(store, tmp_path)._start_fixes()

    ended = await store.plans.get("plan-1")
    assert (ended.state, ended.why) == (PlanState.EXPIRED, "It could not start in time.")
    assert await store.plans.to_start() == []


async def test_a_fold_rings_for_what_it_has_found(store: Store, tmp_path: Path) -> None:
    """A run to start and a card to draw; an empty inbox rings for nobody."""
    idle = idle_engine(store, tmp_path)
    await idle._fold()
    assert not any(sweeper.bell._rung.is_set() for sweeper in idle.sweepers)

    await store.inbox.deliver(event("incident.triggered"), now=NOW)
    await idle._fold()

    assert all(sweeper.bell._rung.is_set() for sweeper in idle.sweepers)


async def test_a_story_that_breaks_off_says_so() -> None:
    """Its card must not say "diagnosing" for ever."""
    rings: list[int] = []
    said: list[str] = []

    async def story() -> None:
        raise KeyError("a defect")

    async def broke_off(why: str) -> None:
        said.append(why)

    await Stories(lambda: rings.append(1)).tell(story(), broke_off)

    assert said == ["KeyError"]
    assert rings


async def test_a_story_that_cannot_even_say_so_is_left_for_the_next_look() -> None:
    """The database went away in this moment: an ended workflow behind an open row would be nobody's for ever."""

    async def story() -> None:
        raise KeyError("a defect")

    async def broke_off(_: str) -> None:
        raise StoreUnavailableError("the database does not answer")

    stories = Stories(lambda: None)
    with pytest.raises(asyncio.CancelledError):
        await stories.tell(story(), broke_off)

    assert not stories.told


async def test_an_interrupted_story_has_not_broken_off() -> None:
    """The process is stopping; the next one goes on with it."""
    stories = Stories(lambda: None)
    said: list[str] = []
    began = asyncio.Event()

    async def story() -> None:
        began.set()
        await asyncio.Event().wait()

    async def broke_off(why: str) -> None:
        said.append(why)

    task = asyncio.create_task(stories.tell(story(), broke_off))
    await began.wait()
    await stories.interrupt()

    assert task.cancelled()
    assert said == []


# What the databases promise.


@pytest.mark.integration
async def test_a_postgresql_that_only_reads_is_away(postgres_url: str) -> None:
    """As after a failover: whoever took that for a poisoned webhook would give a page up as a dead letter."""
    database, name = Database(postgres_url), sa.make_url(postgres_url).database
    async with database.write() as connection:
        await connection.execute(sa.text("CREATE TABLE page (number integer)"))
        await connection.execute(sa.text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    await database.close()
    database = Database(postgres_url)
    with pytest.raises(StoreUnavailableError, match="read-only"):
        async with database.write() as connection:
            await connection.execute(sa.text("INSERT INTO page VALUES (1)"))
    await database.close()


async def test_a_committed_delivery_survives_a_power_cut(tmp_path: Path) -> None:
    """Both engines on SQLite: write-ahead log, and every commit is on the disk before it is answered."""
    url = f"sqlite:///{tmp_path}/store.sqlite"
    database = Database(url)
    async with database.read() as connection:
        ours = [await connection.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")]
    await database.close()
    others = []
    for made in (workflow_engine(engine_url(url)), sync_engine(url)):
        with made.connect() as link:
            others.append([link.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")])
        made.dispose()

    full = 2  # of OFF, NORMAL, FULL, EXTRA
    assert [ours, *others] == [["wal", full]] * 3


def test_the_version_that_stories_are_resumed_under_never_changes() -> None:
    """DBOS strands what another version began: this is a promise to databases that exist already."""
    assert engine.APPLICATION_VERSION == "1"


# The real engine.


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> EngineRoom:
    """Paged, and not started."""
    await store.page()
    return EngineRoom(store, tmp_path)


def diagnosed(store: Store) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        run = await store.incidents.run(INCIDENT, 1)
        return run is not None and run.state == "done"

    return ask


def ended(store: Store, plan_id: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        row = await store.plans.get(plan_id)
        return row.state not in (PlanState.APPROVED, PlanState.RUNNING)

    return ask


def rows_of(url: str, query: str) -> list[Any]:
    """What DBOS keeps."""
    link = workflow_engine(engine_url(url))
    try:
        with link.connect() as connection:
            schema = "dbos." if link.dialect.name == "postgresql" else ""
            return [row._mapping for row in connection.execute(sa.text(query.format(schema=schema)))]
    finally:
        link.dispose()


@pytest.mark.integration
async def test_a_page_becomes_a_verified_fix(room: EngineRoom) -> None:
    """From the row to the verdict, and from the click to the verified fix; each thing once."""
    async with room.running():
        await until(diagnosed(room.store))
        plan_id = await room.approve()
        await until(ended(room.store, plan_id))

    assert (await room.store.plans.get(plan_id)).state is PlanState.VERIFIED
    assert room.diary.lines() == ["alerts", "diagnosis", "runbooks", "about to act", "act", "check", "check"]


@pytest.mark.integration
async def test_a_row_whose_start_was_not_recorded_is_not_told_twice(room: EngineRoom) -> None:
    """The process died between the start and its mark: the next sweep starts it again, under the same id."""
    async with room.running():
        await until(diagnosed(room.store))
        async with room.store.database.write() as connection:
            await connection.execute(tables.run.update().values(state="new"))
        room.engine.ring()

        async def marked() -> bool:
            return not await room.store.incidents.runs_to_start()

        await until(marked)

    assert room.diary.lines() == ["alerts", "diagnosis", "runbooks"]
    assert len(rows_of(room.url, "SELECT * FROM {schema}workflow_status")) == 1


@pytest.mark.integration
async def test_what_the_engine_keeps_is_json(room: EngineRoom) -> None:
    """No pickles, which would let whoever writes the database run code here; and the version and the executor."""
    async with room.running():
        await until(diagnosed(room.store))
        await until(ended(room.store, await room.approve()))

    workflows = rows_of(room.url, "SELECT * FROM {schema}workflow_status")
    steps = rows_of(room.url, "SELECT * FROM {schema}operation_outputs")
    kept = [row[name] for row in workflows for name in ("inputs", "output", "error")]
    kept += [row[name] for row in steps for name in ("output", "error")]
    assert [json.loads(value) for value in kept if value is not None]
    assert len(workflows) == 2
    assert len(steps) >= 9
    assert {row["status"] for row in workflows} == {"SUCCESS"}
    assert {(row["application_version"], row["executor_id"]) for row in workflows} == {("1", room.pulse.me)}


@pytest.mark.integration
async def test_a_stopped_engine_goes_on_where_it_stopped(room: EngineRoom, tmp_path: Path) -> None:
    """Stopped in the middle of the diagnosis; the next engine does not ask PagerDuty again."""
    room.diary.hang("diagnosis")
    async with room.running():
        async with asyncio.timeout(30):
            await room.diary.until("diagnosis")
    room.diary.hang("")
    assert {row["status"] for row in rows_of(room.url, "SELECT * FROM {schema}workflow_status")} == {"PENDING"}

    later = EngineRoom(room.store, tmp_path)
    async with later.running():
        await until(diagnosed(room.store))

    assert room.diary.lines() == ["alerts", "diagnosis", "diagnosis", "runbooks"]


@pytest.mark.integration
async def test_a_database_that_is_away_for_a_moment_is_waited_for(room: EngineRoom) -> None:
    """The step is told again, and the story goes on as if nothing had been."""
    room.neighbours.broken = [StoreUnavailableError("the database does not answer")]
    async with room.running():
        await until(diagnosed(room.store))

    run = await room.store.incidents.run(INCIDENT, 1)
    assert run is not None
    assert not run.notes
    assert room.diary.lines() == ["alerts", "diagnosis", "diagnosis", "runbooks"]


@pytest.mark.integration
async def test_a_defect_ends_the_diagnosis_in_words(room: EngineRoom) -> None:
    """The card says so, and another diagnosis may be asked for."""
    room.neighbours.broken = [ZeroDivisionError("a defect")]
    async with room.running():
        await until(diagnosed(room.store))
        run = await room.store.incidents.run(INCIDENT, 1)
        assert run is not None
        assert any("ZeroDivisionError" in note for note in run.notes or [])

        assert await room.store.incidents.ask_again(INCIDENT, by="alice", now=NOW) == 2
        room.engine.ring()

        async def again() -> bool:
            second = await room.store.incidents.run(INCIDENT, 2)
            return second is not None and second.state == "done"

        await until(again)

    second = await room.store.incidents.run(INCIDENT, 2)
    assert second is not None
    assert second.diagnosis is not None
    assert second.diagnosis["causes"][0]["cause"] == FOUND.causes[0].cause


# Processes of their own.


async def killed_at(moment: str, url: str, folder: Path) -> None:
    """SIGKILL in the middle of this moment."""
    diary = Diary(folder)
    diary.hang(moment)
    async with process(url, folder), asyncio.timeout(60):
        await diary.until(moment)
    diary.hang("")


@pytest.mark.integration
@pytest.mark.timeout(240)
async def test_a_killed_process_repeats_nothing_that_had_ended(
    store: Store, room: EngineRoom, database_url: str, tmp_path: Path
) -> None:
    """kill -9 in the diagnosis, then in the fix: the step is asked again, the change is probed and not repeated."""
    await killed_at("diagnosis", database_url, tmp_path)
    async with process(database_url, tmp_path):
        await until(diagnosed(store), 60)
    assert room.diary.lines() == ["alerts", "diagnosis", "diagnosis", "runbooks"]

    plan_id = await room.approve()
    await killed_at("act", database_url, tmp_path)
    async with process(database_url, tmp_path):
        await until(ended(store, plan_id), 60)

    assert (await store.plans.get(plan_id)).state is PlanState.VERIFIED
    assert room.diary.lines()[4:] == ["about to act", "act", "probe", "check", "check"]
    kinds = [entry.kind for entry in await store.journal.read(plan_id)]
    assert kinds == ["intent", "probed", "verified"]


@pytest.mark.integration
@pytest.mark.timeout(180)
async def test_a_terminated_process_leaves_its_story_to_the_next(
    store: Store, room: EngineRoom, database_url: str, tmp_path: Path
) -> None:
    """SIGTERM in mid-diagnosis: it ends soon and cleanly, the workflow stays pending, the next start finishes it."""
    room.diary.hang("diagnosis")
    async with process(database_url, tmp_path) as first:
        async with asyncio.timeout(60):
            await room.diary.until("diagnosis")
        first.terminate()
        async with asyncio.timeout(15):
            assert await first.wait() == 0, (tmp_path / "output").read_text()
    room.diary.hang("")
    assert {row["status"] for row in rows_of(room.url, "SELECT * FROM {schema}workflow_status")} == {"PENDING"}

    async with process(database_url, tmp_path):
        await until(diagnosed(store), 60)

    assert room.diary.lines() == ["alerts", "diagnosis", "diagnosis", "runbooks"]
    [run] = rows_of(room.url, "SELECT * FROM {schema}workflow_status")
    assert run["workflow_uuid"] == f"{INCIDENT}:1"
