"""Events in any order, any number of times, make the same incident."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import permutations

import pytest

from bot.incidents import IncidentState, PlanState, StoreUnavailableError
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.folding import BATCH
from bot.store.inbox import Inbox
from tests.kit import INCIDENT, NOW, Store, event, plan

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


async def test_a_resolution_ends_what_nobody_decided(store: Store) -> None:
    """The proposed fix is stale and says why, alternatives go, and taking back what was done stays possible."""
    await store.page()
    version = store.config.policy_version
    proposed = await store.offer(plan(version, plan_id="p-1"))
    other = await store.offer(plan(version, plan_id="p-2"), rank=1, state=PlanState.ALTERNATIVE)
    undo = await store.offer(plan(version, plan_id="p-3", undoes="p-0"), rank=2)
    await store.inbox.deliver(RESOLVED, now=NOW)
    await store.inbox.deliver(RESOLVED, now=NOW)
    await store.inbox.fold(now=NOW)

    rows = [await store.plans.get(each.plan_id) for each in (proposed, other, undo)]
    assert [row.state for row in rows] == [PlanState.STALE, PlanState.SUPERSEDED, PlanState.PROPOSED]
    assert rows[0].why == "The incident was resolved in PagerDuty."
    assert [(row.action, row.actor) for row in await AuditLog(store.database).about(INCIDENT)][-2:] == [
        ("incident.resolved", "pagerduty"), ("plan.stale", "pagerduty"),
    ]  # fmt: skip


async def test_a_merge_ends_the_source_and_leaves_the_target(store: Store) -> None:
    """The source says where it went; the target's plans stay on the table."""
    await store.page()
    await store.page(incident_id="Q0TARGET", event_id="another")
    mine = await store.offer(plan(store.config.policy_version))
    its = await store.offer(plan(store.config.policy_version, plan_id="p-2", incident_id="Q0TARGET"))
    merged = event("incident.resolved", at=NOW + timedelta(seconds=9), merged_into="Q0TARGET")
    await store.inbox.deliver(merged, now=NOW)
    await store.inbox.fold(now=NOW)

    assert (await store.incidents.get(INCIDENT)).merged_into == "Q0TARGET"
    assert (await store.plans.get(mine.plan_id)).why == "PagerDuty merged the incident into another one."
    assert (await store.plans.get(its.plan_id)).state is PlanState.PROPOSED
    assert (await store.incidents.get("Q0TARGET")).state is IncidentState.TRIGGERED


async def test_through_every_change_the_card_and_the_record_agree(store: Store) -> None:
    """Acknowledged, taken back, escalated, delegated, resolved, re-opened: the state, the runs and one row for each."""
    kinds = ["acknowledged", "unacknowledged", "escalated", "reassigned", "priority_updated", "delegated", "resolved",
             "reopened", "acknowledged"]  # fmt: skip
    await store.page()
    revisions = set()
    for second, kind in enumerate(kinds, 1):
        await store.inbox.deliver(event(f"incident.{kind}", at=NOW + timedelta(seconds=second)), now=NOW)
        await store.inbox.fold(now=NOW)
        revisions.add((await store.incidents.get(INCIDENT)).revision)
    incident = await store.incidents.get(INCIDENT)

    assert (incident.state, incident.run) == (IncidentState.ACKNOWLEDGED, 2)
    assert len(revisions) == len(kinds)
    assert [row.action for row in await AuditLog(store.database).about(INCIDENT)] == [
        "incident.seen", "incident.acknowledged", "incident.triggered", "incident.resolved", "incident.triggered",
        "incident.acknowledged",
    ]  # fmt: skip
    assert (await AuditLog(store.database).verify()).broken_at is None


async def test_a_burst_is_folded_in_few_transactions(store: Store) -> None:
    """Five events each of sixty incidents, and copies of them: all are folded, each incident is diagnosed once."""
    kinds = ("triggered", "acknowledged", "escalated", "unacknowledged", "acknowledged")
    for second, kind in enumerate(kinds):
        for number in range(60):
            item = event(f"incident.{kind}", at=NOW + timedelta(seconds=second), incident_id=f"Q{number}",
                         event_id=f"{number}-{second}")  # fmt: skip
            await store.inbox.deliver(item, now=NOW)
    folded = [await store.inbox.fold(now=NOW) for _ in range(4)]

    assert folded == [BATCH, BATCH, BATCH, 0]
    assert len(await store.incidents.runs_to_start()) == 60
    assert {each.state for each in await store.incidents.unresolved()} == {IncidentState.ACKNOWLEDGED}


async def test_two_processes_fold_side_by_side(store: Store, database_url: str) -> None:
    """Both see the same new incidents; each event is folded once and nothing is given up."""
    other = Database(database_url)
    for number in range(240):
        item = event("incident.triggered", incident_id=f"Q{number % 40}", event_id=f"e{number}")
        await store.inbox.deliver(item, now=NOW)

    async def all_of_it(inbox: Inbox) -> int:
        return sum([await inbox.fold(now=NOW) for _ in range(4)])

    folded = await asyncio.gather(all_of_it(store.inbox), all_of_it(Inbox(other, services={"PCHAT01": "chat"})))
    await other.close()

    assert sum(folded) == 240
    assert await store.inbox.dead_letters() == []
    assert len(await store.incidents.runs_to_start()) == 40
