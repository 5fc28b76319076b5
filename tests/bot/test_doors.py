"""Whether traffic may come, and whether this process may work at all."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from bot.doors import Readiness
from bot.incidents import UnreadableEventError
from bot.pagerduty import parse_event
from bot.store import schema
from bot.store.database import Database
from bot.vitals import Vitals
from tests.kit import NOW, Store, event


def readiness(database: Database) -> Readiness:
    """Over a product without sweeps."""
    return Readiness(database, [], Vitals(database, CollectorRegistry()))


async def test_a_migrated_database_lets_traffic_in(store: Store) -> None:
    """And a product that is being stopped does not."""
    ready = readiness(store.database)

    assert await ready.not_ready_because() == []
    ready.stopping = True
    assert await ready.not_ready_because() == ["shutting down"]


async def test_an_old_schema_keeps_traffic_out(store: Store) -> None:
    """The reason names both revisions."""
    url = store.database.url.render_as_string(hide_password=False)
    await asyncio.to_thread(schema.downgrade, url, "base")

    [reason] = await readiness(store.database).not_ready_because()

    assert schema.head() in reason


async def test_a_writer_does_not_make_the_product_unready(store: Store) -> None:
    """Probes read; they never wait for the one writer of SQLite."""
    async with store.database.write():
        assert await readiness(store.database).not_ready_because() == []


async def test_what_nobody_can_read_is_kept_and_counted(store: Store) -> None:
    """A dead letter rings no bell: there is nothing to fold."""
    rings: list[str] = []
    intake = store.intake(lambda: rings.append("rung"))

    await intake.deliver(event("incident.triggered"))
    with pytest.raises(UnreadableEventError) as unreadable:
        parse_event(b"{}")
    await intake.dead_letter(b'{"a": "\x00"}', str(unreadable.value), "key")

    assert rings == ["rung"]
    assert [letter.event_id for letter in await store.inbox.dead_letters()] == ["key"]
    assert await store.inbox.fold(now=NOW) == 1
