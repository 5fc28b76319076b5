"""The cast and the props of the application's tests: people, a configuration, events, plans, databases."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.approvals import Approvals
from bot.config import Config, load_config
from bot.doors import Backlog, Intake
from bot.incidents import Delivery, PlanState
from bot.limits import Act
from bot.policy import Policy, accounts, person_of
from bot.pulse import Pulse
from bot.store import schema
from bot.store.database import Database
from bot.store.inbox import Inbox
from bot.store.inbox_writer import InboxWriter
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.kill_switch import KillSwitch
from bot.store.outbox import Outbox
from bot.store.people import PeopleTable
from bot.store.plans import Plans
from bot.store.rankings import Rankings
from bot.store.votes import Votes
from bot.store.workers import Duties, Workers
from runbooks.engine.values import Plan, PlannedStep, Tier

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
INCIDENT = "Q0INCIDENT1"

CONFIG = """
format = 1

[[datasource]]
name = "metrics"
kind = "prometheus"
url = "http://127.0.0.1:9"

[[service]]
name = "chat"
datasource = "metrics"
pagerduty_service = "PCHAT01"
environment = "prod"
mode = "approve"
owners = ["dana"]
[service.selectors]
serving = {namespace = "chat"}
[service.approvers]
prompt-owner = ["bob"]

[[policy]]
tier = "R1"
environment = "prod"
service = "*"
roles = ["prompt-owner", "service-owner"]

[[policy]]
tier = "R2"
environment = "prod"
service = "*"
roles = ["service-owner", "platform"]
count = 2

[[person]]
id = "alice"
name = "Alice Ahn"
slack = ["T0LAB00001/U0ALICE"]
pagerduty = "PALICE1"
email = "alice@example.com"

[[person]]
id = "bob"
name = "Bob Brandt"
slack = ["T0LAB00001/U0BOB"]
pagerduty = "PBOB001"
email = "bob@example.com"

[[person]]
id = "dana"
name = "Dana Diaz"
slack = ["T0LAB00001/U0DANA"]
email = "dana@example.com"

[[person]]
id = "paul"
name = "Paul Park"
slack = ["T0LAB00001/U0PAUL"]
roles = ["platform"]
"""


def unbound(_: Sequence[Act]) -> str:
    """No limit is broken."""
    return ""


def config_in(folder: Path, text: str = CONFIG) -> Config:
    """The configuration above, or another, read from a file as the product reads it."""
    path = folder / "watchkeeper.toml"
    path.write_text(text)
    return load_config(path)


@asynccontextmanager
async def open_store(url: str, config: Config) -> AsyncIterator[Store]:
    """A migrated database with the configuration's people in it."""
    await asyncio.to_thread(_migrate, url)
    database = Database(url)
    store = Store(database, config)
    await store.people.replace(accounts(config))
    try:
        yield store
    finally:
        await database.close()


def _migrate(url: str) -> None:
    """A new SQLite file begins as a copy of one that was migrated before: that is quicker."""
    parsed = sa.make_url(url)
    file = Path(parsed.database or "")
    if parsed.get_backend_name() == "sqlite" and not file.exists():
        file.write_bytes(_migrated_file())
    elif schema.current(url) is None:
        schema.upgrade(url)


@cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "migrated.sqlite")
        schema.upgrade(f"sqlite:///{file}")
        return file.read_bytes()


class Store:
    """All facts over one database."""

    def __init__(self, database: Database, config: Config) -> None:
        self.database = database
        self.config = config
        self.inbox = Inbox(
            database, services={s.pagerduty_service: s.name for s in config.services if s.pagerduty_service}
        )
        self.incidents = Incidents(database)
        self.plans = Plans(database)
        self.journal = Journal(database)
        self.outbox = Outbox(database)
        self.people = PeopleTable(database)
        self.votes = Votes(database)
        self.rankings = Rankings(database)
        self.switch = KillSwitch(database)
        self.policy = Policy(config)
        self.workers = Workers(database)
        self.pulse = Pulse(self.workers, "test")  # it does not beat, so nobody declares it dead
        self.duties = Duties(database, self.pulse.me)

    def approvals(self, **more: Any) -> Approvals:
        return Approvals(plans=self.plans, incidents=self.incidents, people=self.people, policy=self.policy, **more)

    def person(self, person_id: str) -> Any:
        return person_of(self.config, person_id)

    def intake(self, ring: Callable[[], None] = lambda: None) -> Intake:
        """The web door's way in, with a writer of its own."""
        return Intake(InboxWriter(self.database), ring, Backlog(self.inbox))

    async def page(self, *, incident_id: str = INCIDENT, **more: Any) -> None:
        """An incident is triggered and folded."""
        await self.inbox.deliver(event("incident.triggered", incident_id=incident_id, **more), now=NOW)
        await self.inbox.fold(now=NOW)

    async def offer(self, item: Plan, *, rank: int = 0, state: PlanState = PlanState.PROPOSED) -> Plan:
        """A plan lies on the table."""
        await self.plans.save(item, run=1, rank=rank, state=state, now=NOW)
        return item


def event(kind: str, *, at: datetime = NOW, event_id: str = "", incident_id: str = INCIDENT, **facts: Any) -> Delivery:
    """A delivery as `bot.pagerduty.parse_event` makes it; the status follows the kind unless it is given."""
    status = {"incident.acknowledged": "acknowledged", "incident.resolved": "resolved"}.get(kind, "triggered")
    known: Mapping[str, Any] = {
        "id": incident_id,
        "number": 7,
        "title": "[FIRING:1] LLMHighTTFT chat",
        "status": status,
        "service_id": "PCHAT01",
        "service_name": "Chat",
        "url": "https://acme.pagerduty.com/incidents/Q0INCIDENT1",
        "urgency": "high",
        "created_at": NOW.isoformat(),
        "assignees": {"PALICE1": "Alice Ahn"},
        **facts,
    }
    return Delivery(
        event_id=event_id or f"{kind}@{at.isoformat()}",
        source="pagerduty",
        kind=kind,
        occurred_at=at,
        incident_id=incident_id,
        incident=known,
        raw="{}",
    )


def step(**more: Any) -> PlannedStep:
    """One step: the label of a prompt goes back one version."""
    values: dict[str, Any] = {
        "index": 0,
        "title": "Move the label back",
        "action": "fake.set",
        "tier": Tier.R1,
        "target": "fake/thing/one",
        "params": {"to": 7},
        "before": {"value": 8},
        "effect": "Set the thing from 8 to 7.",
        "undo": {"to": 8},
        "verify": ("prefix_cache",),
        "settle_s": 60.0,
    }
    return PlannedStep(**{**values, **more})


def plan(policy_version: str, **more: Any) -> Plan:
    """A plan of one R1 step for the incident."""
    values: dict[str, Any] = {
        "plan_id": "plan-1",
        "incident_id": INCIDENT,
        "service": "chat",
        "environment": "prod",
        "runbook_id": "prefix-cache-collapse",
        "runbook_revision": "0" * 64,
        "title": "Prefix cache collapsed",
        "steps": (step(),),
        "policy_version": policy_version,
        "nonce": "n",
        "made_at": NOW,
        "expires_at": NOW + timedelta(minutes=15),
    }
    return Plan(**{**values, **more})


def renamed(item: Plan, plan_id: str, **more: Any) -> Plan:
    """The same plan under another id."""
    return replace(item, plan_id=plan_id, **more)
