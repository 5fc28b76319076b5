"""What operators see of the product itself, and the memory that prompt stores lack."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bot.far_ends import FarEnds
from bot.heartbeat import Heartbeat
from bot.incidents import StoreUnavailableError
from bot.operators import Operators
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.operators import OperatorTokens
from bot.store.retention import forget
from bot.vitals import Vitals
from bot.watched import WatchedTelemetry
from diagnostics.telemetry.model import TelemetryError
from runbooks.engine.records import Outcome, record_json
from tests.kit import INCIDENT, NOW, Store, event
from tests.stories import FakeLook, fresh_plan

HOUR = timedelta(hours=1)


async def test_what_waits_is_counted(store: Store) -> None:
    """Open incidents, dead letters, and how long the oldest event and the oldest message have waited."""
    registry = CollectorRegistry()
    await store.page()
    await store.inbox.bury(event("incident.triggered", event_id="odd"), "unknown event type", now=NOW)
    await store.inbox.deliver(event("incident.acknowledged", event_id="waits"), now=datetime.now(UTC) - HOUR)
    await store.outbox.post(
        key="k", incident_id=INCIDENT, lane="pagerduty", kind="note", now=datetime.now(UTC) - HOUR, text="hello"
    )

    await Vitals(store.database, registry).fresh()

    assert registry.get_sample_value("watchkeeper_open_incidents") == 1
    assert registry.get_sample_value("watchkeeper_dead_letters") == 1
    assert registry.get_sample_value("watchkeeper_inbox_waiting") == 1
    assert registry.get_sample_value("watchkeeper_inbox_oldest_age_seconds") == pytest.approx(3600, abs=30)
    assert registry.get_sample_value("watchkeeper_outbox_waiting", {"lane": "pagerduty"}) == 1
    assert registry.get_sample_value("watchkeeper_outbox_waiting", {"lane": "slack"}) == 0
    age = registry.get_sample_value("watchkeeper_outbox_oldest_age_seconds", {"lane": "pagerduty"})
    assert age == pytest.approx(3600, abs=30)
    assert registry.get_sample_value("watchkeeper_database_up") == 1


async def test_what_happened_is_counted_from_the_record(store: Store) -> None:
    """Decisions by channel, actions by result, first causes, waits: in a process that did none of it."""
    registry = CollectorRegistry()
    vitals = Vitals(store.database, registry)
    await vitals.sweep()
    await store.page()
    now = datetime.now(UTC)
    await store.incidents.record(INCIDENT, 1, diagnosis={"seconds": 1.5})
    await store.incidents.finish(INCIDENT, 1, now=now, cause="S04", probability=0.9)
    item = await store.offer(fresh_plan(store))
    await store.incidents.refused(INCIDENT, who="alice", what="approve", why="no", about="plan-1", now=now)
    row = await store.plans.get("plan-1")
    await store.plans.decide(
        row, "approve", by="bob", role="prompt-owner", suffice=bool, start_by=now, now=now, channel="operator"
    )
    outcome = record_json(Outcome(step=0, ok=True))
    await store.journal.append(item, position=1, step=0, kind="outcome", record=outcome, now=now)

    await vitals.sweep()
    await vitals.sweep()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"watchkeeper_{name}", labels)

    assert value("decisions_total", decision="approve", channel="operator") == 1
    assert value("decisions_total", decision="refused", channel="slack") == 1
    assert value("actions_total", action="fake.set", result="ok") == 1
    assert value("diagnoses_total", cause="S04") == 1
    assert value("diagnosis_seconds_sum") == 1.5
    assert value("page_to_verdict_seconds_count") == 1
    assert value("record_rows_total", action="plan.approve") == 1


async def test_a_restart_loses_no_count_and_no_time_counts_twice(store: Store) -> None:
    """Counters begin with the whole record; histograms with the process, so that a restart does not repeat them."""
    await store.page()
    await store.incidents.finish(INCIDENT, 1, now=NOW, cause="S04", probability=0.9)
    registry = CollectorRegistry()

    await Vitals(store.database, registry).sweep()

    assert registry.get_sample_value("watchkeeper_diagnoses_total", {"cause": "S04"}) == 1
    assert registry.get_sample_value("watchkeeper_page_to_verdict_seconds_count") == 0


async def test_the_wait_for_the_first_card_is_counted_once(store: Store) -> None:
    """From the first event to the first card; redrawing it changes nothing."""
    registry = CollectorRegistry()
    vitals = Vitals(store.database, registry)
    later = datetime.now(UTC) + timedelta(seconds=3)
    await store.inbox.deliver(event("incident.triggered"), now=later - timedelta(seconds=2))
    await store.inbox.fold(now=later)
    for shown in (later, later + HOUR):
        await store.incidents.card_shown(INCIDENT, 1, "C1", "1", now=shown, next_at=shown)

    await vitals.sweep()
    await vitals.sweep()

    assert registry.get_sample_value("watchkeeper_page_to_card_seconds_count") == 1
    assert registry.get_sample_value("watchkeeper_page_to_card_seconds_sum") == pytest.approx(2)


async def test_a_database_that_is_away_leaves_the_last_numbers(tmp_path: Any) -> None:
    """The metrics still answer, and say themselves that they are old."""
    registry = CollectorRegistry()
    database = Database(f"sqlite:///{tmp_path}/no/such/folder.sqlite")

    await Vitals(database, registry).fresh()
    await database.close()

    assert registry.get_sample_value("watchkeeper_database_up") == 0
    assert (registry.get_sample_value("watchkeeper_database_failures_total") or 0) >= 1


class Loop:
    """A loop of ours, as its time sheet tells."""

    def __init__(self, name: str, healthy_at: datetime | None) -> None:
        self.name = name
        self.healthy_at = healthy_at


class Outside:
    """Whoever watches our heartbeat: remembers each, and answers as told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.status = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.heard.append(str(request.url))
        if self.status == 0:
            raise httpx.ConnectError("no route")
        return httpx.Response(self.status, headers={"Location": "https://elsewhere.example.com/"})


URL = "https://hc.example.com/ping/secret"


async def well() -> None:
    """A database that answers."""


async def away() -> None:
    """A database that does not."""
    raise StoreUnavailableError("the database does not answer")


@pytest.mark.parametrize(
    ("stuck_s", "database", "beats"), [(1, well, True), (61, well, False), (None, well, True), (1, away, False)]
)
async def test_the_heart_beats_only_while_all_is_well(
    stuck_s: float | None, database: Callable[[], Awaitable[None]], *, beats: bool
) -> None:
    """A stuck loop or a silent database means silence, which is what somebody outside is woken by."""
    outside, tally = Outside(), FarEnds(CollectorRegistry())
    at = None if stuck_s is None else datetime.now(UTC) - timedelta(seconds=stuck_s)
    async with httpx.AsyncClient(transport=httpx.MockTransport(outside.answer)) as client:
        heart = Heartbeat(
            URL,
            client=client,
            sweepers=lambda: [Loop("inbox", at)],
            ask_database=database,
            far_ends=tally,
        )
        with contextlib.suppress(StoreUnavailableError):
            await heart.sweep()

    assert outside.heard == ([URL] if beats else [])


@pytest.mark.parametrize("status", [0, 302, 404, 500])
async def test_a_heartbeat_that_nobody_takes_is_shown_and_harms_nothing(status: int) -> None:
    """No redirect is followed, nothing is raised, the address stays a secret; /statusz says that it fails."""
    outside, registry = Outside(), CollectorRegistry()
    tally = FarEnds(registry)
    outside.status = status
    async with httpx.AsyncClient(transport=httpx.MockTransport(outside.answer)) as client:
        await Heartbeat(URL, client=client, sweepers=list, ask_database=well, far_ends=tally).sweep()

    [end] = tally.all()
    assert outside.heard == [URL]
    assert end.is_well is False
    assert "secret" not in end.why + generate_latest(registry).decode()


async def test_what_nobody_needs_is_forgotten_after_a_month(store: Store) -> None:
    """Folded events, told messages of resolved incidents, tokens that ended; dead letters and the record stay."""
    await store.page()
    await store.inbox.deliver(event("incident.resolved", at=NOW + HOUR), now=NOW)
    await store.page(incident_id="QOPEN", event_id="open")
    await store.inbox.bury(event("incident.triggered", event_id="dead"), "unknown", now=NOW)
    for incident_id in (INCIDENT, "QOPEN"):
        await store.outbox.post(key=incident_id, incident_id=incident_id, lane="pagerduty", kind="verdict", now=NOW)
        [parcel] = [each for each in await store.outbox.due("pagerduty", now=NOW) if each.key == incident_id]
        await store.outbox.delivered(parcel.outbox_id)
    operators = Operators(tokens=OperatorTokens(store.database), people=store.people)
    await operators.issue("bob", label="", days=1, actor="unix:root", now=NOW)
    rows = len(await AuditLog(store.database).newest(subject="", actor="", before=None, limit=100))

    soon = await forget(store.database, now=NOW + timedelta(days=29))
    late = await forget(store.database, now=NOW + timedelta(days=40))

    assert soon == {"deliveries": 0, "parcels": 0, "errands": 0, "tokens": 0, "changes": 0}
    assert late == {"deliveries": 3, "parcels": 1, "errands": 0, "tokens": 1, "changes": 0}
    assert [letter.event_id for letter in await store.inbox.dead_letters()] == ["dead"]
    assert len(await AuditLog(store.database).newest(subject="", actor="", before=None, limit=100)) == rows
    assert (await AuditLog(store.database).verify()).broken_at is None


async def test_a_telemetry_that_cannot_be_asked_is_told(store: Store) -> None:
    """Its errors are counted and shown, and still reach who asked."""
    registry = CollectorRegistry()
    tally = FarEnds(registry)
    watched = WatchedTelemetry("metrics", FakeLook(), tally)  # type: ignore[arg-type]  # only its clock is asked

    with pytest.raises(TelemetryError):
        await watched.now()

    labels = {"to": "metrics", "method": "now", "result": "unreachable"}
    assert registry.get_sample_value("watchkeeper_calls_total", labels) == 1
    assert [(end.name, end.is_well, end.why) for end in tally.all()] == [("metrics", False, "connection refused")]
