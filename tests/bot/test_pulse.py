"""Who lives, who is dead, and what each of them may do: rows, claims, duties and guards on both databases."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bot.incidents import LifelessError
from bot.pulse import Pulse, place
from bot.store.tables import outbox, step_record, worker
from bot.store.workers import DEAD_AFTER_S, Duties
from bot.stories import Stories
from bot.takeover import TakeOver
from runbooks.engine.records import Intent, record_json
from tests.kit import INCIDENT, NOW, Store
from tests.stories import fresh_plan


async def live(store: Store, name: str, *, where: str = "elsewhere", pid: int = 1) -> None:
    """A process that has just registered."""
    await store.workers.register(executor_id=name, host="h", place=where, pid=pid, role="worker")


async def age(store: Store, name: str, **columns: float) -> None:
    """Move times of a process' row so many seconds into the past."""
    values = {column: datetime.now(UTC) - timedelta(seconds=ago) for column, ago in columns.items()}
    async with store.database.write() as connection:
        await connection.execute(worker.update().where(worker.c.executor_id == name).values(values))


def undertaker(store: Store) -> TakeOver:
    return TakeOver(pulse=store.pulse, workers=store.workers, duties=store.duties, stories=[Stories(lambda: None)])


# Beats.


async def test_whoever_was_silent_too_long_is_dead_if_somebody_else_was_not(store: Store) -> None:
    """A witness shows that it was not the database that was away."""
    await live(store, "silent")
    await live(store, "witness")
    await age(store, "silent", beat_at=DEAD_AFTER_S + 1)
    assert await store.workers.silent() == []

    await age(store, "witness", steady_since=DEAD_AFTER_S + 1)

    assert [each.executor_id for each in await store.workers.silent()] == ["silent"]


async def test_after_an_outage_of_the_database_nobody_is_dead(store: Store) -> None:
    """All were silent; the first who beats again has no steady past, so it proves nothing."""
    for name in ("one", "two"):
        await live(store, name)
        await age(store, name, beat_at=60, steady_since=600)

    assert await store.workers.beat("one")

    assert await store.workers.silent() == []


async def test_who_beats_without_a_gap_stays_steady(store: Store) -> None:
    """A beat moves `beat_at` alone; one after a gap begins a new series."""
    await live(store, "one")
    await age(store, "one", beat_at=3, steady_since=100)
    await store.workers.beat("one")
    [before] = await store.workers.living()
    assert before.beat_at - before.steady_since > timedelta(seconds=90)

    await age(store, "one", beat_at=8)
    await store.workers.beat("one")

    [after] = await store.workers.living()
    assert after.beat_at == after.steady_since


async def test_a_beat_saves_from_being_declared_dead(store: Store) -> None:
    """It came between the look and the deed; and the dead do not come back."""
    await live(store, "late")
    [seen] = await store.workers.living()
    await age(store, "late", beat_at=1)
    assert not await store.workers.declare_dead(seen)

    [seen] = await store.workers.living()
    assert await store.workers.declare_dead(seen)
    assert not await store.workers.declare_dead(seen)

    assert not await store.workers.beat("late")
    assert await store.workers.living() == []
    assert await store.workers.strangers({"late", "never", store.pulse.me}) == {"late", "never", store.pulse.me}


# Burials.


async def test_a_process_that_is_gone_from_this_machine_is_dead_at_once(store: Store) -> None:
    """Its pid means something only in the same boot and process namespace."""
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    await live(store, "gone", where=place(), pid=ended.pid)
    await live(store, "here", where=place(), pid=os.getpid())
    await live(store, "elsewhere", where="another machine", pid=ended.pid)

    await undertaker(store)._bury()

    assert [each.executor_id for each in await store.workers.living()] == ["here", "elsewhere"]


def test_the_place_is_the_same_for_all_processes_here() -> None:
    """Else nobody would ever look for a pid."""
    script = "from bot.pulse import place; print(place())"
    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert other.stdout.strip() == place()
    assert place().startswith(f"{socket.gethostname()}:")


# Guards.


async def test_a_guard_lets_pass_while_the_beat_is_fresh(store: Store) -> None:
    """And goes on for as long as beats keep coming."""
    pulse = Pulse(store.workers, "worker")
    await pulse.begin()
    async with pulse.guard():
        assert await pulse.beat()
        await asyncio.sleep(0)
    await pulse.end()

    assert await store.workers.living() == []
    with pytest.raises(LifelessError):
        async with pulse.guard():
            pytest.fail("it had ended")


async def test_a_guard_is_cut_off_when_the_trust_ends(store: Store) -> None:
    """In the middle of whatever it waits for."""
    pulse = Pulse(store.workers, "worker")
    await pulse.begin()

    async def act() -> None:
        async with pulse.guard():
            pulse._trust_until(-math.inf)
            await asyncio.Event().wait()

    with pytest.raises(LifelessError, match="in the middle"):
        await act()
    await pulse.end()


async def test_a_guards_own_time_out_stays_one(store: Store) -> None:
    """An action that takes too long has an unknown outcome; that is no question of life."""
    with pytest.raises(TimeoutError):
        async with store.pulse.guard(), asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_who_was_declared_dead_learns_it_at_the_next_beat(store: Store) -> None:
    """And touches nothing any more."""
    pulse = Pulse(store.workers, "worker")
    await pulse.begin()
    [seen] = await store.workers.living()
    await store.workers.declare_dead(seen)

    await pulse.beat()

    assert pulse.died.is_set()
    with pytest.raises(LifelessError):
        async with pulse.guard():
            pytest.fail("it was declared dead")
    await pulse.end()


async def test_an_intent_of_the_dead_never_stands(store: Store) -> None:
    """The database decides, in the transaction of the intent; whoever has no row was never declared dead."""
    await store.page()
    item = await store.offer(fresh_plan(store))
    intent: dict[str, Any] = {"step": 0, "kind": "intent", "record": record_json(Intent(step=0, token="t")), "now": NOW}
    await live(store, "dead")
    await store.workers.end("dead")

    with pytest.raises(LifelessError):
        await store.journal.append(item, position=1, unless_dead="dead", **intent)
    assert await store.journal.read(item.plan_id) == []
    await store.journal.append(item, position=1, unless_dead="unknown", **intent)

    async with store.database.read() as connection:
        assert len((await connection.execute(sa.select(step_record))).all()) == 1


# Claims and duties.


async def test_a_parcel_is_delivered_by_one(store: Store) -> None:
    """Two saw it; one claims it. When that one dies in the middle, the other must look before it tells again."""
    for name in ("one", "two"):
        await live(store, name)
    await store.page()
    await store.outbox.post(key="k", incident_id=INCIDENT, lane="pagerduty", kind="note", now=NOW)
    [seen] = await store.outbox.due("pagerduty", now=NOW, me="two")

    assert await store.outbox.claim(seen, now=NOW, me="one")
    assert not await store.outbox.claim(seen, now=NOW, me="two")
    assert await store.outbox.due("pagerduty", now=NOW, me="two") == []
    await store.workers.end("one")

    [left] = await store.outbox.due("pagerduty", now=NOW, me="two")
    assert left.uncertain
    assert not await store.outbox.claim(seen, now=NOW, me="two")
    assert await store.outbox.claim(left, now=NOW, me="two")


async def test_whoever_lost_a_parcel_does_not_put_it_off(store: Store) -> None:
    """A thawed process' "again" would let it be told a second time without a look; its "delivered" is true."""
    for name in ("zombie", "two"):
        await live(store, name)
    await store.page()
    await store.outbox.post(key="k", incident_id=INCIDENT, lane="pagerduty", kind="note", now=NOW)
    [seen] = await store.outbox.due("pagerduty", now=NOW, me="zombie")
    assert await store.outbox.claim(seen, now=NOW, me="zombie")
    await store.workers.end("zombie")
    [left] = await store.outbox.due("pagerduty", now=NOW, me="two")
    assert await store.outbox.claim(left, now=NOW, me="two")

    await store.outbox.again(seen, due=NOW, why="slow", untouched=True, me="zombie")
    await store.outbox.give_up(seen.outbox_id, why="no", incident_id=INCIDENT, me="zombie")
    assert await _state(store) == ("sending", "two")

    await store.outbox.delivered(seen.outbox_id)
    assert await _state(store) == ("done", None)


async def _state(store: Store) -> tuple[str, str | None]:
    async with store.database.read() as connection:
        row = (await connection.execute(sa.select(outbox.c.state, outbox.c.owner))).one()
    return row.state, row.owner


async def test_a_card_is_drawn_by_one(store: Store) -> None:
    """Two keepers saw that none stands; the one who dies between claim and post leaves a mark to look first."""
    for name in ("one", "two"):
        await live(store, name)
    await store.page()
    [seen] = await store.incidents.cards_to_show(now=NOW, me="two")

    assert await store.incidents.claim_card(seen, now=NOW, me="one")
    assert not await store.incidents.claim_card(seen, now=NOW, me="two")
    assert await store.incidents.cards_to_show(now=NOW, me="two") == []
    await store.workers.end("one")

    [left] = await store.incidents.cards_to_show(now=NOW, me="two")
    assert left.shown == -1
    assert await store.incidents.claim_card(left, now=NOW, me="two")
    await store.incidents.card_later(INCIDENT, NOW + timedelta(hours=1), me="one")
    assert not await store.incidents.claim_card(left, now=NOW, me="one")


async def test_a_duty_is_one_processes_until_it_dies_or_lets_it_lapse(store: Store) -> None:
    """The holder renews it; the others wait."""
    for name in ("one", "two"):
        await live(store, name)
    one, two = Duties(store.database, "one"), Duties(store.database, "two")

    assert await one.take("prompts", 60)
    assert not await two.take("prompts", 60)
    assert await one.take("prompts", 60)
    assert await two.take("other", 60)

    await store.workers.end("one")
    assert await two.take("prompts", -1)
    await live(store, "three")
    assert await Duties(store.database, "three").take("prompts", 60)


async def test_only_one_does_what_one_must_do(store: Store) -> None:
    """The others' sweeps pass."""
    done: list[str] = []
    for name in ("one", "two"):
        await live(store, name)

        async def sweep(name: str = name) -> None:
            done.append(name)

        await Duties(store.database, name).only_one("prompts", 30, sweep)()

    assert done == ["one"]
