"""Events in any order, any number of times, make the same incident."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import permutations

import pytest

from bot.incidents import IncidentState, StoreUnavailableError
from bot.store.database import Database
from bot.store.inbox import Inbox
from tests.kit import INCIDENT, NOW, Store, event

TRIGGERED = event("incident.triggered", at=NOW)
ACKNOWLEDGED = event("incident.acknowledged", at=NOW + timedelta(seconds=10))
RESOLVED = event("incident.resolved", at=NOW + timedelta(seconds=20))
REOPENED = event("incident.reopened", at=NOW + timedelta(seconds=30))


async def test_an_event_is_stored_once(store: Store) -> None:
    """PagerDuty delivers at least once; the signed event id tells copies apart."""
    first = await store.inbox.deliver(TRIGGERED, now=NOW)
    second = await store.inbox.deliver(TRIGGERED, now=NOW)

    assert (first, second) == (True, False)
    assert await store.inbox.fold(now=NOW) == 1
    assert await store.inbox.fold(now=NOW) == 0


async def test_the_first_sight_of_an_incident_queues_its_first_diagnosis(store: Store) -> None:
    """The run number is taken in the transaction that makes the incident, so no crash can lose it."""
    await store.page()

    incident = await store.incidents.get(INCIDENT)
    assert (incident.service, incident.run, incident.state) == ("chat", 1, IncidentState.TRIGGERED)
    assert await store.incidents.runs_to_start() == [(INCIDENT, 1)]


async def test_an_incident_of_an_unknown_service_is_kept(store: Store) -> None:
    """It is shown as not configured, never dropped."""
    await store.page(service_id="PUNKNOWN", service_name="Billing")

    incident = await store.incidents.get(INCIDENT)
    assert incident.service is None
    assert incident.pagerduty_service_name == "Billing"


@pytest.mark.parametrize("order", list(permutations([TRIGGERED, ACKNOWLEDGED, RESOLVED])))
async def test_a_resolved_incident_stays_resolved_in_any_order(store: Store, order: tuple[object, ...]) -> None:
    """An acknowledgement that arrives late must not bring a resolved incident back."""
    for item in order:
        await store.inbox.deliver(item, now=NOW)  # type: ignore[arg-type]  # permutations lose the type
        await store.inbox.fold(now=NOW)

    incident = await store.incidents.get(INCIDENT)
    assert incident.state is IncidentState.RESOLVED
    assert incident.state_at == RESOLVED.occurred_at


async def test_only_reopening_brings_an_incident_back_and_takes_the_next_run(store: Store) -> None:
    """`reopened` is the one event that leaves the resolved state; a late copy of an older one changes nothing."""
    for item in (TRIGGERED, RESOLVED, REOPENED, ACKNOWLEDGED):
        await store.inbox.deliver(item, now=NOW)
        await store.inbox.fold(now=NOW)

    incident = await store.incidents.get(INCIDENT)
    assert (incident.state, incident.run) == (IncidentState.TRIGGERED, 2)
    assert await store.incidents.runs_to_start() == [(INCIDENT, 1), (INCIDENT, 2)]


async def test_a_late_older_event_does_not_overwrite_newer_facts(store: Store) -> None:
    """The newest event decides title and assignees, whenever it arrives."""
    newer = event("incident.escalated", at=NOW + timedelta(seconds=5), title="new title")
    await store.inbox.deliver(newer, now=NOW)
    await store.inbox.deliver(event("incident.triggered", at=NOW, title="old title"), now=NOW)
    await store.inbox.fold(now=NOW)

    assert (await store.incidents.get(INCIDENT)).title == "new title"


async def test_one_poisoned_event_does_not_stop_those_behind_it(store: Store) -> None:
    """It becomes a dead letter with its reason."""
    poisoned = event("incident.triggered", event_id="bad", incident_id="QBAD", created_at="yesterday")
    await store.inbox.deliver(poisoned, now=NOW - timedelta(seconds=1))
    await store.page()

    assert (await store.incidents.get(INCIDENT)).run == 1
    [letter] = await store.inbox.dead_letters()
    assert letter.event_id == "bad"
    assert "ValueError" in letter.why


async def test_a_dead_letter_can_be_revived_once(store: Store) -> None:
    """After an upgrade that understands it, `replay` puts it back into the queue."""
    await store.inbox.bury(TRIGGERED, "unknown event type", now=NOW)

    assert await store.inbox.exhume(TRIGGERED.event_id) == "{}"
    assert await store.inbox.revive(TRIGGERED.event_id, TRIGGERED)
    assert not await store.inbox.revive(TRIGGERED.event_id, TRIGGERED)
    assert await store.inbox.fold(now=NOW) == 1


async def test_a_database_that_cannot_be_opened_is_said_so() -> None:
    """The door turns this into 503, so that PagerDuty tries again."""
    away = Database("sqlite:////nonexistent/folder/x.sqlite")

    with pytest.raises(StoreUnavailableError):
        await Inbox(away, services={}).deliver(TRIGGERED, now=NOW)
    await away.close()


async def test_a_value_that_no_column_holds_becomes_a_dead_letter(store: Store) -> None:
    """PostgreSQL refuses what SQLite swallows; either way the good incident behind it is seen."""
    odd = event("incident.triggered", event_id="odd", incident_id="QODD", urgency="u" * 40)
    await store.inbox.deliver(odd, now=NOW - timedelta(seconds=1))
    await store.page()

    assert (await store.incidents.get(INCIDENT)).run == 1


async def test_a_click_between_reading_and_folding_is_not_undone(store: Store) -> None:
    """An acknowledgement is folded while somebody asks for another diagnosis; both count."""
    await store.page()
    await store.incidents.finish(INCIDENT, 1, now=NOW, cause="S04", probability=0.9)
    for second in range(5):
        await store.inbox.deliver(event("incident.escalated", at=NOW + timedelta(seconds=second)), now=NOW)

    await asyncio.gather(
        store.inbox.fold(now=NOW),
        store.incidents.ask_again(INCIDENT, by="alice", now=NOW),
        store.inbox.fold(now=NOW),
    )

    assert (await store.incidents.get(INCIDENT)).run == 2


async def test_whoever_was_paged_stays_known_after_the_resolution(store: Store) -> None:
    """PagerDuty resolves with nobody assigned; a step in doubt still needs the on-call engineer's answer."""
    await store.page()
    await store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(seconds=9), assignees={}), now=NOW)
    await store.inbox.fold(now=NOW)

    assert (await store.incidents.get(INCIDENT)).assignees == {"PALICE1": "Alice Ahn"}


async def test_an_acknowledgement_that_is_taken_back_is_forgotten(store: Store) -> None:
    """So that the button comes back."""
    await store.page()
    await store.incidents.asked(INCIDENT, "acknowledge", key="k", by=store.person("alice"), now=NOW)
    await store.inbox.deliver(event("incident.unacknowledged", at=NOW + timedelta(seconds=9)), now=NOW)
    await store.inbox.fold(now=NOW)

    assert (await store.incidents.get(INCIDENT)).acknowledged_by is None
