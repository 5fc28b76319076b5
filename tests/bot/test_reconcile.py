"""What no webhook told us is found in PagerDuty's list, once, and nothing newer is overwritten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bot.incidents import IncidentState, NotFoundError
from bot.pagerduty import parse_event
from bot.pagerduty_client import PagerDutyError
from bot.reconcile import EVERY_S, Reconciler
from bot.store.audit import AuditLog
from bot.store.workers import Duties
from lab.pagerduty import ON_CALL, PagerDuty
from lab.pagerduty import PagerDutyError as StandInError
from lab.pagerduty_shapes import SERVICE_ID, Json, rest_incident
from tests.kit import INCIDENT, Store

ROUTING_KEY = "R" * 32


class Account:
    """The lab's PagerDuty account, read without HTTP; `told` are its webhooks, delivered when the test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
        self.told: list[Json] = []
        self.account = PagerDuty(now=lambda: self.now, routing_key=ROUTING_KEY, webhooks=self)  # type: ignore[arg-type]
        self.subscriptions: list[Json] = []
        self.services_shown = [SERVICE_ID]
        self.share_left = 1.0
        self.reads: list[str] = []
        self.between: list[Any] = []  # called after the list was made

    def send(self, incident_id: str, event: Mapping[str, Any]) -> None:
        self.told.append({"event": {**event, "incident": incident_id}})

    async def open_incidents(self, service_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        assert SERVICE_ID in service_ids
        rows: list[Mapping[str, Any]] = [
            rest_incident(each) for each in self.account.incidents.values() if each.status != "resolved"
        ]
        for act in self.between:
            await act()
        return rows

    async def incident(self, incident_id: str) -> Mapping[str, Any]:
        self.reads.append(incident_id)
        try:
            return rest_incident(self.account.incident(incident_id))
        except StandInError as error:
            raise PagerDutyError(str(error), permanent=True, status=error.status) from error

    async def services(self) -> list[Mapping[str, Any]]:
        return [{"id": each} for each in self.services_shown]

    async def webhook_subscriptions(self) -> list[Mapping[str, Any]]:
        return list(self.subscriptions)

    def page(self, key: str = "LLMHighTTFT") -> str:
        payload = {"summary": f"{key} chat", "source": "prometheus", "severity": "critical"}
        event = {"routing_key": ROUTING_KEY, "event_action": "trigger", "dedup_key": key, "payload": payload}
        self.account.enqueue(event)
        return next(each.id for each in self.account.incidents.values() if each.key == key)

    def change(self, incident_id: str, status: str, *, after_s: float = 10) -> None:
        self.now += timedelta(seconds=after_s)
        self.account.change(incident_id, {"status": status}, ON_CALL)


class House:
    """A store, an account, and the reconciler between them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.there = Account()
        self.registry = CollectorRegistry()
        self.reconciler = self.another("one")

    def another(self, me: str) -> Reconciler:
        return Reconciler(
            pagerduty=self.there,
            incidents=self.store.incidents,
            inbox=self.store.inbox,
            duties=Duties(self.store.database, me),
            service_ids=(SERVICE_ID,),
            registry=self.registry if me == "one" else CollectorRegistry(),
        )

    async def sweep(self) -> int:
        self.reconciler._next_at = 0.0  # five minutes later
        healed = await self.reconciler.sweep()
        await self.store.inbox.fold(now=self.there.now)
        return healed

    async def webhooks(self) -> None:
        """PagerDuty delivers what it still holds."""
        while self.there.told:
            await self.store.inbox.deliver(parse_event(json.dumps(self.there.told.pop(0)).encode()), now=self.there.now)
        await self.store.inbox.fold(now=self.there.now)

    async def state(self, incident_id: str) -> IncidentState:
        return (await self.store.incidents.get(incident_id)).state

    async def runs(self, incident_id: str) -> int:
        return (await self.store.incidents.get(incident_id)).run


@pytest.fixture
async def house(store: Store) -> House:
    return House(store)


async def test_pages_that_were_missed_are_found(house: House) -> None:
    """As if their webhooks had come: the incident is known, and its diagnosis is queued."""
    missed = [house.there.page(f"alert-{number}") for number in range(3)]

    assert await house.sweep() == 3
    assert {each.incident_id for each in await house.store.incidents.unresolved()} == set(missed)
    assert len(await house.store.incidents.runs_to_start()) == 3
    assert await house.sweep() == 0


async def test_a_late_webhook_changes_nothing_more(house: House) -> None:
    """It has its own id and says what we know: no second diagnosis."""
    page = house.there.page()
    await house.sweep()
    await house.webhooks()

    assert (await house.state(page), await house.runs(page)) == (IncidentState.TRIGGERED, 1)
    assert await house.sweep() == 0


async def test_every_missed_change_is_found(house: House) -> None:
    """Acknowledged, taken back, resolved, re-opened: one after the other, without a webhook."""
    page = house.there.page()
    await house.webhooks()
    seen = []
    for status in ("acknowledged", "triggered", "resolved", "triggered"):
        house.there.change(page, status)
        assert await house.sweep() == 1
        seen.append(await house.state(page))
    runs = await house.runs(page)
    await house.webhooks()

    assert seen == ["acknowledged", "triggered", "resolved", "triggered"]
    assert (runs, await house.runs(page)) == (2, 2)
    assert await house.state(page) is IncidentState.TRIGGERED


async def test_changes_within_a_second_are_found(house: House) -> None:
    """REST tells whole seconds, webhooks milliseconds: what REST says now is newer than what we knew before."""
    house.there.now += timedelta(milliseconds=100)
    page = house.there.page()
    await house.webhooks()
    house.there.change(page, "acknowledged", after_s=0.5)

    assert await house.sweep() == 1
    assert await house.state(page) is IncidentState.ACKNOWLEDGED


async def test_a_merge_is_found(house: House) -> None:
    """The source ends and says where it went; the target has its alert."""
    source, target = house.there.page("one"), house.there.page("two")
    await house.webhooks()
    house.there.account.merge(target, [source], ON_CALL)

    assert await house.sweep() == 1
    incident = await house.store.incidents.get(source)
    assert (incident.state, incident.merged_into) == (IncidentState.RESOLVED, target)
    assert len(house.there.account.incidents[target].alerts) == 2
    assert await house.state(target) is IncidentState.TRIGGERED


async def test_an_incident_that_is_gone_ends(house: House) -> None:
    """PagerDuty answers 404 for it; it would stay open here for ever."""
    page = house.there.page()
    await house.webhooks()
    del house.there.account.incidents[page]

    assert await house.sweep() == 1
    assert await house.state(page) is IncidentState.RESOLVED
    rows = await AuditLog(house.store.database).about(page)
    assert [(row.action, row.details.get("source")) for row in rows] == [
        ("incident.seen", None), ("incident.gone", "reconcile"),
    ]  # fmt: skip
    assert await house.sweep() == 0


async def test_a_key_that_sees_less_closes_nothing(house: House) -> None:
    """A key of another account or team is told 404 of every incident; none of them has ended."""
    page = house.there.page()
    await house.webhooks()
    del house.there.account.incidents[page]
    house.there.services_shown = ["POTHER1"]

    assert await house.sweep() == 0
    assert await house.state(page) is IncidentState.TRIGGERED


@pytest.mark.parametrize("status", [400, 403])
async def test_an_incident_that_may_not_be_read_holds_up_nobody(house: House, status: int) -> None:
    """It stays as it is; those behind it are still compared."""
    pages = [house.there.page(f"alert-{number}") for number in range(3)]
    await house.webhooks()
    for page in pages:
        house.there.change(page, "resolved")
    read = house.there.incident

    async def refused(incident_id: str) -> Mapping[str, Any]:
        if incident_id == pages[0]:
            raise PagerDutyError("refused", permanent=status == 400, status=status)
        return await read(incident_id)

    house.there.incident = refused  # type: ignore[method-assign]

    assert await house.sweep() == 2
    assert [await house.state(page) for page in pages] == [
        IncidentState.TRIGGERED, IncidentState.RESOLVED, IncidentState.RESOLVED,
    ]  # fmt: skip


async def test_who_is_paged_now_is_found(house: House) -> None:
    """A reassignment changes no state, and the card names the wrong person until it is known."""
    page = house.there.page()
    await house.webhooks()
    house.there.account.incidents[page].title = "LLMHighTTFT chat, worse"

    assert await house.sweep() == 1
    assert (await house.store.incidents.get(page)).title == "LLMHighTTFT chat, worse"
    assert await house.runs(page) == 1
    assert await house.sweep() == 0


async def test_a_webhook_that_comes_between_the_list_and_us_wins(house: House) -> None:
    """The list said triggered; while it was on its way, somebody resolved."""
    page = house.there.page()
    await house.webhooks()
    house.there.change(page, "acknowledged")

    async def resolved() -> None:
        house.there.change(page, "resolved")
        await house.webhooks()

    house.there.between = [resolved]

    assert await house.sweep() == 0
    assert await house.state(page) is IncidentState.RESOLVED


async def test_one_process_asks_for_all(house: House) -> None:
    """Whoever has the duty keeps it; and if two did the same at once, the second would find it done."""
    house.there.page()
    other = house.another("two")

    assert [await house.reconciler.sweep(), await other.sweep()] == [1, 0]
    assert await other._compare() == 0
    assert await house.reconciler.sweep() == 0  # not again within five minutes


async def test_near_the_rate_limit_the_rest_waits(house: House) -> None:
    """Acknowledging and resolving need the same key."""
    house.there.page()
    house.there.share_left = 0.1

    assert await house.sweep() == 0
    house.there.share_left = 0.9
    assert await house.sweep() == 1


async def test_a_subscription_that_is_off_is_said_aloud(house: House) -> None:
    """On /healthz and in a metric, until somebody switches it on; subscriptions of others do not matter."""
    method = {"url": "https://watchkeeper.example.com/webhooks/pagerduty", "temporarily_disabled": True}
    others = {"id": "POTHER", "active": False, "delivery_method": {"url": "https://other.example.com/hook"}}
    house.there.subscriptions = [others, {"id": "PSUB", "active": True, "delivery_method": method}]
    await house.sweep()
    trouble = house.reconciler.trouble()
    off = house.registry.get_sample_value("watchkeeper_webhook_subscription_enabled")

    method["temporarily_disabled"] = False
    await house.sweep()

    assert "PSUB is switched off" in trouble
    assert (off, house.reconciler.trouble()) == (0.0, "")


async def test_what_was_healed_is_counted(house: House) -> None:
    """So that somebody looks why no webhook came."""
    house.there.page()
    await house.sweep()

    assert house.registry.get_sample_value("watchkeeper_reconciled_total", {"kind": "incident.triggered"}) == 1


@pytest.mark.parametrize("odd", [{}, {"id": "Q1"}, {"id": "Q1", "status": "open", "created_at": "soon"}, {"id": 7}])
async def test_an_odd_incident_in_the_list_is_passed_over(house: House, odd: Json) -> None:
    """The others are compared all the same."""
    page = house.there.page()
    listed = house.there.open_incidents

    async def with_an_odd_one(service_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        return [odd, *await listed(service_ids)]

    house.there.open_incidents = with_an_odd_one  # type: ignore[method-assign]

    assert await house.sweep() == 1
    assert await house.state(page) is IncidentState.TRIGGERED


async def test_pagerduty_that_cannot_be_asked_is_asked_again_soon(house: House) -> None:
    """Nothing is closed because of an outage; the next look tries again."""
    await house.store.page()

    async def away(service_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        raise PagerDutyError(f"{service_ids} cannot be listed now", permanent=False)

    listed = house.there.open_incidents
    house.there.open_incidents = away  # type: ignore[method-assign]
    assert await house.reconciler.sweep() == 0
    house.there.open_incidents = listed  # type: ignore[method-assign]

    assert await house.state(INCIDENT) is IncidentState.TRIGGERED
    assert await house.reconciler.sweep() == 1  # PagerDuty does not have it
    assert EVERY_S <= 300


async def test_an_incident_of_a_resolved_stranger_is_not_begun(house: House) -> None:
    """What opened and ended while we were down is history."""
    page = house.there.page()
    house.there.change(page, "resolved")

    assert await house.sweep() == 0
    with pytest.raises(NotFoundError):
        await house.store.incidents.get(page)
