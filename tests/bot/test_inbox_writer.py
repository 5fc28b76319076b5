"""Webhooks share commits, and each is answered for its own row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TypeVar

import pytest
import sqlalchemy as sa

from bot.doors import Backlog, Intake
from bot.incidents import OverloadedError, StoreUnavailableError, UnreadableEventError
from bot.store.database import Database
from bot.store.inbox import to_row
from bot.store.inbox_writer import InboxWriter, RefusedRowError
from tests.kit import NOW, Store, event

T = TypeVar("T")


class CountedDatabase(Database):
    """Counts the transactions that were begun; `gate` holds each of them up until it is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def write_at_once(self, work: Callable[[sa.Connection], T], *, first: bool = False) -> T:
        self.begun += 1
        await self.gate.wait()
        return await super().write_at_once(work, first=first)


@pytest.fixture
async def counted(store: Store) -> AsyncIterator[CountedDatabase]:
    database = CountedDatabase(store.database.url.render_as_string(hide_password=False))
    yield database
    await database.close()


def row(name: str, **more: object) -> dict[str, object]:
    return {**to_row(event("incident.triggered", event_id=name, incident_id=f"Q{name}"), now=NOW), **more}


async def test_what_gathers_during_a_commit_shares_the_next_one(store: Store, counted: CountedDatabase) -> None:
    """A hundred webhooks at once take two commits, and all of them are there."""
    writer = InboxWriter(counted)

    stored = await asyncio.gather(*(writer.write(row(f"e{number}")) for number in range(100)))

    assert stored == [True] * 100
    assert counted.begun <= 2
    assert await store.inbox.fold(now=NOW) == 100


async def test_copies_are_told_apart_in_one_batch_and_in_the_table(counted: CountedDatabase) -> None:
    """The first of three copies is new, whether the others come with it or later."""
    writer = InboxWriter(counted)
    stored = await asyncio.gather(*(writer.write(row(name)) for name in ("a", "a", "b")))

    assert stored == [True, False, True]
    assert await writer.write(row("a")) is False


async def test_a_poisoned_row_does_not_fail_its_neighbours(store: Store, counted: CountedDatabase) -> None:
    """What the database does not take is refused alone."""
    writer = InboxWriter(counted)
    poisoned = row("bad", occurred_at="no time at all")

    good, bad, other = await asyncio.gather(
        writer.write(row("a")), writer.write(poisoned), writer.write(row("b")), return_exceptions=True
    )

    assert (good, other) == (True, True)
    assert isinstance(bad, RefusedRowError)
    assert await store.inbox.fold(now=NOW) == 2


async def test_what_the_database_refuses_becomes_a_dead_letter(store: Store) -> None:
    """The door keeps its bytes then; a 503 for ever would hold up the incident's later events."""
    intake = store.intake()

    with pytest.raises(UnreadableEventError, match="the database does not take it"):
        await intake.deliver(event("incident.triggered", odd={1, 2}))


async def test_a_database_that_fails_fails_everybody_who_waits(store: Store) -> None:
    """Nothing is answered as stored that is not; the writer goes on when the database is back."""
    away = Database("sqlite:////nonexistent/folder/x.sqlite")
    writer = InboxWriter(away)

    ends = await asyncio.gather(*(writer.write(row(f"e{n}")) for n in range(3)), return_exceptions=True)
    await away.close()

    assert [type(end) for end in ends] == [StoreUnavailableError] * 3
    assert writer.fullness == 0.0


async def test_a_database_that_hangs_is_left(counted: CountedDatabase) -> None:
    """After the patience everybody is told to send again."""
    counted.gate.clear()
    writer = InboxWriter(counted, patience_s=0.05)

    with pytest.raises(StoreUnavailableError, match="took more than"):
        await writer.write(row("a"))


async def test_memory_is_bounded(counted: CountedDatabase) -> None:
    """While the database hangs, what does not fit is refused at once; nothing that was taken is forgotten."""
    counted.gate.clear()
    writer = InboxWriter(counted, most_bytes=10_000)
    taken = [asyncio.create_task(writer.write(row(f"e{number}"))) for number in range(4)]
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailableError, match="are waiting"):
        await writer.write(row("one-too-many"))
    counted.gate.set()

    assert await asyncio.gather(*taken) == [True] * 4
    assert writer.fullness == 0.0


async def test_a_sender_who_went_away_takes_nobody_along(store: Store, counted: CountedDatabase) -> None:
    """His row is stored all the same, and PagerDuty's copy of it will be a copy."""
    counted.gate.clear()
    writer = InboxWriter(counted)
    gone, here = [asyncio.create_task(writer.write(row(name))) for name in ("gone", "here")]
    await asyncio.sleep(0)
    gone.cancel()
    counted.gate.set()

    assert await here is True
    await writer.drain()
    assert await store.inbox.fold(now=NOW) == 2


async def test_while_we_are_behind_only_what_changes_an_incident_is_taken(store: Store) -> None:
    """A note can wait; a page is never put off."""
    old = event("incident.triggered", event_id="old")
    await store.inbox.deliver(old, now=NOW - timedelta(days=1))
    intake = Intake(InboxWriter(store.database), lambda: None, Backlog(store.inbox, every_s=0))
    note = event("incident.annotated", event_id="note", status=None)

    with pytest.raises(OverloadedError):
        await intake.deliver(note)
    assert await intake.deliver(event("incident.triggered", event_id="page"))
    await store.inbox.fold(now=NOW)

    assert await intake.deliver(note)
