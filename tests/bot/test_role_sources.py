"""Roles by Slack's user groups and PagerDuty's schedules: for people we know, and only as long as they are fresh."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.approvals import Approvals
from bot.config import ConfigError
from bot.doctor import roles as doctor
from bot.doctor.advice import State
from bot.given_roles import given_by
from bot.incidents import Incident, NotAllowedError, Person, PlanState, StaleError
from bot.pagerduty import parse_event
from bot.pagerduty_client import PagerDutyClient
from bot.policy import Policy, accounts
from bot.role_watch import RoleWatch
from bot.settings import Settings
from bot.slack.client import SlackClient
from bot.store.audit import AuditLog
from bot.store.people import PeopleTable
from bot.store.role_sources import RoleSources
from bot.store.trust_tables import role_source
from lab.listening import listening, new_socket
from lab.pagerduty import PagerDuty, PagerDutyError
from lab.pagerduty_shapes import webhook_incident
from lab.pagerduty_web import pagerduty_app
from lab.people import WATCHKEEPER_EMAIL
from lab.serve import write_certificates
from runbooks.engine.values import Plan
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, open_store, plan
from tests.lab_workspace import LocalSlack, local_slack

pytestmark = pytest.mark.integration

PAYLOAD = {"summary": "LLMHighTTFT chat", "source": "Alertmanager", "severity": "error"}
SOURCES = """
[[role_source]]
role = "security"
slack_usergroup = "T0LAB00001/S0PROMPTS"

[[role_source]]
role = "on-call"
pagerduty_escalation = "chat"

[[role_source]]
role = "secondary"
pagerduty_escalation = "chat"
"""
WITH_SOURCES = (
    CONFIG.replace('roles = ["prompt-owner", "service-owner"]', 'roles = ["security", "secondary"]') + SOURCES
)


class House:
    """The group holds Bob and Mallory, whom nobody knows here; PagerDuty pages Alice first and Bob second."""

    def __init__(self, store: Store, slack: LocalSlack, account: PagerDuty, pagerduty: PagerDutyClient) -> None:
        self.store = store
        self.account = account
        self.pagerduty = pagerduty
        self.given = given_by(store.config)
        self.people = PeopleTable(store.database, self.given)
        self.policy = Policy(store.config, self.given)
        self.approvals = Approvals(plans=store.plans, incidents=store.incidents, people=self.people, policy=self.policy)
        self.slack = slack
        self.watch = RoleWatch(
            config=store.config,
            sources=RoleSources(store.database),
            slack=SlackClient(slack.client),
            pagerduty=pagerduty,
        )

    async def person(self, name: str) -> Person:
        found = await self.people.get(name)
        assert found is not None
        return found

    async def grow_old(self, minutes: int) -> None:
        """As if nothing could be read for so long."""
        read_at = datetime.now(UTC) - timedelta(minutes=minutes)
        async with self.store.database.write() as connection:
            await connection.execute(sa.update(role_source).values(read_at=read_at, trouble="ratelimited"))

    async def advice(self) -> dict[str, State]:
        settings = Settings(database_url=self.store.database.url.render_as_string(hide_password=False))
        return {each.about: each.state for each in await doctor.examine(settings, self.store.config)}


@asynccontextmanager
async def opened(url: str, folder: Path, text: str = WITH_SOURCES) -> AsyncIterator[House]:
    account = PagerDuty(now=lambda: NOW, routing_key="0" * 32)
    certificate = write_certificates(folder)
    async with (
        open_store(url, config_in(folder, text)) as store,
        local_slack() as slack,
        listening(pagerduty_app(account), new_socket(), certificate=certificate) as address,
    ):
        house = House(store, slack, account, PagerDutyClient(account.api_key, base_url=address))
        await house.people.replace(accounts(store.config))
        await store.page()
        await store.offer(plan(house.policy.version))
        yield house


@pytest.fixture
async def house(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with opened(database_url, tmp_path) as house:
        yield house


async def test_groups_and_schedules_give_roles_to_people_we_know(house: House) -> None:
    """Bob is in the group and second in line, so he approves; who is not in the configuration gets nothing."""
    with pytest.raises(NotAllowedError, match="was never read"):
        await house.approvals.approve("plan-1", by=await house.person("bob"), now=NOW)
    assert set((await house.advice()).values()) == {State.BAD}

    await house.watch.sweep()

    bob, alice = await house.person("bob"), await house.person("alice")
    assert set(bob.given) == {("*", "security"), ("chat", "secondary")}
    assert set(alice.given) == {("chat", "on-call")}
    assert "security (Bob Brandt)" in house.policy.who(*await _asked(house))
    assert set((await house.advice()).values()) == {State.OK}
    await house.approvals.approve("plan-1", by=bob, now=NOW)
    row = await house.store.plans.get("plan-1")
    await house.approvals.still_hold(row, now=NOW)
    assert row.state is PlanState.APPROVED
    read = await AuditLog(house.store.database).newest(subject="", actor="", before=None, limit=20)
    assert [each.details["came"] for each in read if each.action == "roles.read"] == [["bob"], ["alice"], ["bob"]]
    assert [str(each) for each in read if "mallory" in str(each).lower()] == []


async def test_what_is_old_names_nobody(house: House) -> None:
    """Not at the click, not at the start of what was approved; people and the doctor say since when and why."""
    await house.watch.sweep()
    await house.approvals.approve("plan-1", by=await house.person("bob"), now=NOW)
    await house.grow_old(14)
    await house.approvals.still_hold(await house.store.plans.get("plan-1"), now=NOW)

    await house.grow_old(16)

    assert (await house.person("bob")).given == frozenset()
    with pytest.raises(StaleError, match=r"was read 16 min ago \(ratelimited\)"):
        await house.approvals.still_hold(await house.store.plans.get("plan-1"), now=NOW)
    assert set((await house.advice()).values()) == {State.BAD}


async def test_a_source_that_fails_keeps_its_age(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that is switched off, Slack away: what it said before counts until it is old, and no longer."""
    await house.watch.sweep()
    monkeypatch.setattr("lab.slack_api.USERGROUPS", {})

    await house.watch.sweep()

    readings, _ = await RoleSources(house.store.database).readings()
    [failed] = [each for each in readings.values() if each.trouble]
    assert "no user group S0PROMPTS" in failed.trouble
    assert ("*", "security") in (await house.person("bob")).given
    await house.grow_old(16)
    assert (await house.person("bob")).given == frozenset()


async def _asked(house: House) -> tuple[Plan, Incident]:
    row = await house.store.plans.get("plan-1")
    return row.plan, await house.store.incidents.get(row.plan.incident_id)


@pytest.mark.parametrize(
    "wrong",
    [
        'role = "security"',
        'role = "security"\nslack_usergroup = "S0PROMPTS"',
        'role = "security"\npagerduty_escalation = "chat"',
        'role = "on-call"\npagerduty_escalation = "nosuch"',
        'role = "on-call"\npagerduty_escalation = "chat"\nslack_usergroup = "T0LAB00001/S0PROMPTS"',
        'role = "on-call"\npagerduty_escalation = "chat"\nmax_age_minutes = 0',
    ],
)
def test_the_configuration_is_checked(tmp_path: Path, wrong: str) -> None:
    """One source each, of a form that exists, for a service that exists."""
    with pytest.raises(ConfigError, match="role_source"):
        config_in(tmp_path, f"{CONFIG}\n[[role_source]]\n{wrong}\n")


async def test_alone_at_night_somebody_pages_the_secondary(house: House) -> None:
    """Once, beside whoever has the incident; told twice after a lost answer, PagerDuty asks Bob once."""
    account = house.account
    account.enqueue({"routing_key": "0" * 32, "event_action": "trigger", "dedup_key": "x", "payload": PAYLOAD})
    [incident] = account.incidents.values()
    for _ in range(2):
        await house.pagerduty.ask_secondary(incident.id, "a second person is needed", WATCHKEEPER_EMAIL)

    assert [each["user"]["id"] for each in incident.responders] == ["PBOB001"]
    alice = await house.person("alice")
    asked = [await house.store.incidents.ask_secondary(INCIDENT, "plan-1", by=alice, now=NOW) for _ in range(2)]
    [parcel] = await house.store.outbox.due("pagerduty", now=NOW)
    assert (asked, parcel.kind) == ([True, False], "escalate")


async def test_who_approved_on_call_keeps_the_incident(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account has no responders: the secondary is assigned beside Alice, so that her approval still counts."""

    def not_in_the_plan(*_: object) -> None:
        raise PagerDutyError(402, 2012, "Payment Required")

    monkeypatch.setattr("lab.pagerduty_response._add_responders", not_in_the_plan)
    account = house.account
    account.enqueue({"routing_key": "0" * 32, "event_action": "trigger", "dedup_key": "x", "payload": PAYLOAD})
    [incident] = account.incidents.values()
    for _ in range(2):
        await house.pagerduty.ask_secondary(incident.id, "a second person is needed", WATCHKEEPER_EMAIL)

    assert [each["type"] for each in incident.log] == ["assign_log_entry", "trigger_log_entry"]
    head = {"id": "01", "event_type": "incident.reassigned", "occurred_at": (NOW + timedelta(minutes=1)).isoformat()}
    told = parse_event(json.dumps({"event": {**head, "data": webhook_incident(incident)}}).encode())
    await house.store.inbox.deliver(replace(told, incident_id=INCIDENT), now=NOW)
    await house.store.inbox.fold(now=NOW)
    folded = await house.store.incidents.get(INCIDENT)
    assert set(folded.assignees) == {"PALICE1", "PBOB001"}
    assert "on-call" in house.policy.roles_of(await house.person("alice"), folded)
