"""What happens in Slack happens in PagerDuty, and the other way round: client and courier against the lab's account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.card import Cards
from bot.incidents import IncidentState, Person, PlanState
from bot.keeper import Mailroom, PagerDutyCourier
from bot.pagerduty import parse_event
from bot.pagerduty_client import PagerDutyClient
from bot.slack.view import CardState, CardView
from bot.store.audit import AuditLog
from bot.store.past import PastIncidents
from lab.listening import listening, new_socket
from lab.pagerduty import USERS, PagerDuty
from lab.pagerduty_shapes import Incident, Json, User
from lab.pagerduty_web import pagerduty_app
from lab.people import WATCHKEEPER_EMAIL
from lab.serve import write_certificates
from tests.kit import Store, plan

pytestmark = pytest.mark.integration

ROUTING_KEY = "R" * 32
BOB = next(user for user in USERS if user.id == "PBOB001")


class Account(PagerDuty):
    """The lab's account; `meanwhile` happens just before the next change, `told` are webhooks to be delivered."""

    def __init__(self) -> None:
        self.clock = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
        self.told: list[Json] = []
        self.meanwhile: list[Mapping[str, Any]] = []
        super().__init__(now=lambda: self.clock, routing_key=ROUTING_KEY, webhooks=self)  # type: ignore[arg-type]

    def send(self, incident_id: str, event: Mapping[str, Any]) -> None:
        assert incident_id
        self.told.append({"event": event})

    def change(self, incident_id: str, wish: Mapping[str, Any], user: User) -> Incident:
        self.clock += timedelta(seconds=5)
        while self.meanwhile:
            super().change(incident_id, self.meanwhile.pop(0), BOB)
        return super().change(incident_id, wish, user)

    def page(self, key: str) -> str:
        payload = {"summary": f"{key} chat", "source": "prometheus", "severity": "critical"}
        self.enqueue({"routing_key": ROUTING_KEY, "event_action": "trigger", "dedup_key": key, "payload": payload})
        return next(each.id for each in self.incidents.values() if each.key == key)

    @property
    def writes(self) -> int:
        return sum(call["method"] == "PUT" for call in self.calls)


class House:
    """An account over TLS, and the product's parts that speak with it."""

    def __init__(self, store: Store, account: Account, url: str) -> None:
        self.store, self.account = store, account
        self.client = PagerDutyClient(account.api_key, base_url=url)
        self.cards = Cards(
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            outbox=store.outbox,
            switch=store.switch,
            record=AuditLog(store.database),
            past=PastIncidents(store.database, lambda _: ()),
            votes=store.votes,
            config=store.config,
            policy=store.policy,
        )
        courier = PagerDutyCourier(cards=self.cards, pagerduty=self.client, from_email=WATCHKEEPER_EMAIL)
        self.mail = Mailroom("pagerduty", store.outbox, courier.deliver, store.pulse)

    async def paged(self, key: str = "LLMHighTTFT") -> str:
        page = self.account.page(key)
        await self.webhooks()
        return page

    async def webhooks(self) -> None:
        while self.account.told:
            await self.store.inbox.deliver(
                parse_event(json.dumps(self.account.told.pop(0)).encode()), now=self.account.clock
            )
        await self.store.inbox.fold(now=self.account.clock)

    async def click(self, kind: str, page: str, by: Person) -> None:
        await self.store.incidents.asked(page, kind, key=f"{kind}-{page}", by=by, now=self.account.clock)
        assert await self.mail.sweep() == 1

    async def card(self, page: str) -> CardView:
        return await self.cards.view(page)


@pytest.fixture
async def house(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    certificate = write_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    account = Account()
    account.webhooks, told = None, account.webhooks  # the stand-in's server would close it
    app = pagerduty_app(account)
    async with listening(app, new_socket(), certificate=certificate) as url:
        account.webhooks = told
        house = House(store, account, url)
        yield house
        account.webhooks = None
        house.client._rest.close()


async def test_resolved_in_slack_is_resolved_in_pagerduty(house: House) -> None:
    """In the name of whoever clicked; the webhook that follows says what we know."""
    page = await house.paged()
    await house.click("resolve", page, house.store.person("bob"))
    await house.webhooks()

    there = house.account.incidents[page]
    assert (there.status, there.last_changed_by) == ("resolved", BOB)
    card = await house.card(page)
    assert (card.state, card.resolved_by) == (CardState.RESOLVED, "Bob Brandt")


async def test_whom_pagerduty_does_not_know_acts_in_our_name(house: House) -> None:
    """PagerDuty refuses a From that is no user of the account; the card still says who it was."""
    page = await house.paged()
    stranger = replace(house.store.person("dana"), email="dana@elsewhere.example")
    await house.click("acknowledge", page, stranger)

    there = house.account.incidents[page]
    assert there.status == "acknowledged"
    assert there.last_changed_by is not None
    assert there.last_changed_by.email == WATCHKEEPER_EMAIL
    assert (await house.card(page)).acknowledged_by == "Dana Diaz"


async def test_resolved_in_pagerduty_is_over_in_slack(house: House) -> None:
    """Its plans end, and the card offers nothing more."""
    page = await house.paged()
    offer = await house.store.offer(plan(house.store.config.policy_version, incident_id=page))
    house.account.change(page, {"status": "resolved"}, BOB)
    await house.webhooks()

    assert (await house.store.incidents.get(page)).state is IncidentState.RESOLVED
    assert (await house.store.plans.get(offer.plan_id)).state is PlanState.STALE
    card = await house.card(page)
    assert (card.is_over, card.other_fixes) == (True, ())


async def test_an_old_button_re_opens_nothing(house: House) -> None:
    """Resolved in PagerDuty while its webhook is still on the way; then somebody clicks Acknowledge."""
    page = await house.paged()
    house.account.change(page, {"status": "resolved"}, BOB)
    await house.click("acknowledge", page, house.store.person("alice"))
    await house.webhooks()

    assert house.account.incidents[page].status == "resolved"
    assert house.account.writes == 0
    assert (await house.card(page)).state is CardState.RESOLVED


async def test_a_click_in_the_same_moment_does_not_undo_a_resolution(house: House) -> None:
    """Between our reading and our writing somebody resolves: PagerDuty re-opens, and we take that back."""
    page = await house.paged()
    house.account.meanwhile = [{"status": "resolved"}]
    await house.click("acknowledge", page, house.store.person("alice"))
    await house.webhooks()

    assert house.account.incidents[page].status == "resolved"
    assert (await house.store.incidents.get(page)).state is IncidentState.RESOLVED


async def test_a_merged_incident_points_to_its_target(house: House) -> None:
    """And the target's next diagnosis sees the alerts of both."""
    source, target = await house.paged("LLMHighTTFT"), await house.paged("LLMQueue")
    house.account.merge(target, [source], BOB)
    await house.webhooks()

    card = await house.card(source)
    assert (card.state, card.merged_into) == (CardState.RESOLVED, "PagerDuty #2")
    assert card.merged_url.endswith(target)
    assert {alert.summary for alert in await house.client.alerts(target)} == {"LLMHighTTFT chat", "LLMQueue chat"}
    assert (await house.card(target)).state is not CardState.RESOLVED


async def test_a_reopened_incident_is_diagnosed_again(house: House) -> None:
    """It forgets who resolved it, and where it was merged into."""
    source, target = await house.paged("LLMHighTTFT"), await house.paged("LLMQueue")
    house.account.clock += timedelta(seconds=5)
    house.account.merge(target, [source], BOB)
    house.account.change(source, {"status": "triggered"}, BOB)
    await house.webhooks()

    incident = await house.store.incidents.get(source)
    assert (incident.state, incident.merged_into, incident.run) == (IncidentState.TRIGGERED, None, 2)
    assert (source, 2) in await house.store.incidents.runs_to_start()
