"""The composition root: it refuses what it must not run on, and says what it knows of itself."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from bot.app import serve
from bot.doors import Backlog, Intake, Readiness
from bot.engine import Sweeper
from bot.incidents import StoreUnavailableError, UnreadableEventError, WatchkeeperError
from bot.operate import replay, services_by_pagerduty, verify_audit
from bot.parts import engine_url, reveal, vectors_path
from bot.settings import Settings
from bot.store import schema, tables
from bot.store.database import Database
from bot.store.inbox import Inbox
from bot.store.inbox_writer import InboxWriter
from bot.vitals import Vitals
from tests.kit import INCIDENT, NOW, Store, config_in, event

READABLE = json.dumps(
    {
        "event": {
            "id": "dead-1",
            "event_type": "incident.triggered",
            "resource_type": "incident",
            "occurred_at": "2026-11-22T03:00:00Z",
            "data": {
                "id": INCIDENT,
                "type": "incident",
                "html_url": "https://acme.pagerduty.com/incidents/Q0INCIDENT1",
                "number": 7,
                "status": "triggered",
                "created_at": "2026-11-22T03:00:00Z",
                "title": "LLMHighTTFT chat",
                "service": {"id": "PCHAT01", "summary": "Chat"},
                "assignees": [],
                "urgency": "high",
            },
        }
    }
)


def settings_of(url: str) -> Settings:
    """What every command needs, and nothing to serve with."""
    return Settings.load({"DATABASE_URL": url})


@pytest.mark.parametrize("is_migrated", [False, True], ids=["empty", "older"])
async def test_serving_on_another_schema_is_refused_with_the_remedy(
    tmp_path: Path, *, is_migrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on an empty database nor on one of another release; nothing is opened, nothing is written."""
    url = f"sqlite:///{tmp_path}/store.sqlite"
    if is_migrated:
        await asyncio.to_thread(schema.upgrade, url)
        monkeypatch.setattr(schema, "head", lambda: "9999")

    with pytest.raises(WatchkeeperError, match="run `watchkeeper migrate`") as refusal:
        await serve(settings_of(url), config_in(tmp_path))

    assert ("schema none" in str(refusal.value)) is not is_migrated
    assert not (tmp_path / "store-engine.sqlite").exists()


class Probe:
    """Readiness over a database, with one sweeper."""

    def __init__(self, url: str) -> None:
        async def sweep() -> None:
            return None

        self.database = Database(url)
        self.sweeper = Sweeper("stories", sweep)
        self.vitals = Vitals(self.database, CollectorRegistry())
        self.readiness = Readiness(self.database, [self.sweeper], self.vitals)


async def test_a_database_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    """The reason names the kind of error, and neither address nor password."""
    probe = Probe("postgresql://watchkeeper:hunter2@127.0.0.1:9/watchkeeper")

    [reason] = await probe.readiness.not_ready_because()

    assert reason.startswith("the database does not answer")
    assert "hunter2" not in reason
    await probe.database.close()


async def test_an_unmigrated_database_is_not_ready(tmp_path: Path) -> None:
    """Somebody restored an empty one under the running process."""
    probe = Probe(f"sqlite:///{tmp_path}/empty.sqlite")

    [reason] = await probe.readiness.not_ready_because()

    assert reason == f"the schema is at None, not {schema.head()}"
    await probe.database.close()


async def test_the_details_say_when_each_sweep_went_through(store: Store, database_url: str) -> None:
    """None while it never did; and the counts of the metrics."""
    probe = Probe(database_url)
    assert (await probe.readiness.details())["swept"] == {"stories": None}

    probe.sweeper.healthy_at = NOW
    await probe.vitals.sweep()

    details = await probe.readiness.details()
    assert details["swept"] == {"stories": NOW.isoformat()}
    assert details["counts"]
    assert json.loads(json.dumps(details)) == details
    await probe.database.close()


async def test_nothing_rings_when_nothing_was_committed(tmp_path: Path) -> None:
    """The door answers 503, and PagerDuty tries again."""
    seen: list[int] = []
    away = Database(f"sqlite:///{tmp_path}/without-tables.sqlite")

    intake = Intake(InboxWriter(away), lambda: seen.append(1), Backlog(Inbox(away, services={})))
    with pytest.raises(StoreUnavailableError):
        await intake.deliver(event("incident.triggered"))

    await away.close()
    assert seen == []


async def test_an_unreadable_delivery_is_kept_as_text(store: Store) -> None:
    """Bytes that are no text, and the one character that PostgreSQL cannot keep."""
    intake = store.intake()

    await intake.dead_letter(b"\xff\x00{", "not JSON", "sha-1")

    [letter] = await store.inbox.dead_letters()
    assert (letter.event_id, letter.why) == ("sha-1", "not JSON")
    assert await store.inbox.exhume("sha-1") == "\ufffd\ufffd{"


async def _bury(store: Store, event_id: str, raw: str) -> None:
    intake = store.intake()
    await intake.dead_letter(raw.encode(), "unknown", event_id)


async def test_replay_puts_what_can_be_read_now_back_into_the_queue(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    """All dead letters: the readable ones go back, the others stay where they are."""
    await _bury(store, "dead-1", READABLE)
    await _bury(store, "dead-2", "{}")

    count = await replay(settings_of(database_url), config_in(tmp_path), None)

    assert count == 1
    assert [letter.event_id for letter in await store.inbox.dead_letters()] == ["dead-2"]
    assert await store.inbox.fold(now=datetime.now(UTC)) == 1
    assert (await store.incidents.get(INCIDENT)).service == "chat"


async def test_replay_of_one_says_why_it_cannot_be_read(store: Store, database_url: str, tmp_path: Path) -> None:
    """Whoever names it wants to know."""
    await _bury(store, "dead-2", "{}")

    with pytest.raises(UnreadableEventError):
        await replay(settings_of(database_url), config_in(tmp_path), "dead-2")
    with pytest.raises(WatchkeeperError, match="there is no dead letter dead-9"):
        await replay(settings_of(database_url), config_in(tmp_path), "dead-9")


async def test_a_replayed_letter_is_not_replayed_twice(store: Store, database_url: str, tmp_path: Path) -> None:
    """It is no dead letter any more."""
    await _bury(store, "dead-1", READABLE)
    assert await replay(settings_of(database_url), config_in(tmp_path), "dead-1") == 1

    with pytest.raises(WatchkeeperError, match="no dead letter"):
        await replay(settings_of(database_url), config_in(tmp_path), "dead-1")


async def test_an_unbroken_record_is_said_with_its_head(store: Store, database_url: str) -> None:
    """The head is what people write down outside."""
    await store.page()

    sentence = await verify_audit(settings_of(database_url))

    assert sentence.startswith("1 rows, unbroken; head ")


async def test_a_broken_record_is_an_error_that_names_the_row(store: Store, database_url: str) -> None:
    """Somebody with the rights of the owner dropped the triggers and rewrote history."""
    await store.page()
    async with store.database.write() as connection:
        drops = {
            "sqlite": ["DROP TRIGGER audit_no_update"],
            "postgresql": ["DROP TRIGGER audit_append_only ON audit"],
        }[connection.dialect.name]
        for drop in drops:
            await connection.execute(sa.text(drop))
        await connection.execute(tables.audit.update().values(actor="mallory"))

    with pytest.raises(WatchkeeperError, match="broken at row 1: the row was changed"):
        await verify_audit(settings_of(database_url))


@pytest.mark.parametrize(
    ("url", "engine", "vectors"),
    [
        ("sqlite:////data/watchkeeper.sqlite", "/data/watchkeeper-engine.sqlite", "/data/vectors.sqlite"),
        ("sqlite:///watchkeeper.sqlite", "watchkeeper-engine.sqlite", "vectors.sqlite"),
        ("postgresql://u:p@db/watchkeeper", "watchkeeper", "vectors.sqlite"),
    ],
)
def test_the_engine_has_a_file_of_its_own_on_sqlite(url: str, engine: str, vectors: str) -> None:
    """One file has one writer; PostgreSQL has as many as it likes, and no folder for the vectors."""
    assert engine_url(url).database == engine
    assert vectors_path(url) == Path(vectors)


def test_a_service_is_found_by_its_pagerduty_id(tmp_path: Path) -> None:
    """Services without one are diagnosed from the command line only."""
    assert services_by_pagerduty(config_in(tmp_path)) == {"PCHAT01": "chat"}


def test_a_secret_that_is_not_set_is_empty() -> None:
    """Clients are built from strings; whether it may be empty was decided before."""
    assert reveal(None) == ""
    assert reveal(settings_of("sqlite:///x.sqlite").database_url) == "sqlite:///x.sqlite"
