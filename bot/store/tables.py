"""The tables. Times are UTC; JSON is text, so that both databases keep it byte for byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)


class Utc(TypeDecorator[datetime]):
    """An aware datetime, always UTC. SQLite forgets the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Plain JSON as text with sorted keys."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else json.loads(value)


# The inbox: what came through the door, committed before it was answered. The row is the queue.
delivery = Table(
    "delivery",
    metadata,
    Column("event_id", String(255), primary_key=True),
    Column("source", String(32), nullable=False),
    Column("kind", String(255), nullable=False),
    Column("incident_id", String(255)),
    Column("occurred_at", Utc, nullable=False),
    Column("received_at", Utc, nullable=False),
    Column("state", String(16), nullable=False),  # new | done | dead
    Column("why", Text),  # of a dead letter
    Column("incident", Json, nullable=False),
    Column("raw", Text, nullable=False),
    Index(None, "state", "received_at"),
)

incident = Table(
    "incident",
    metadata,
    Column("incident_id", String(255), primary_key=True),
    Column("number", Integer),
    Column("title", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("urgency", String(16), nullable=False),
    Column("service_id", String(255), nullable=False),
    Column("service_name", Text, nullable=False),
    Column("service", String(255)),
    Column("assignees", Json, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_at", Utc, nullable=False),
    # The fold over events is a maximum of these keys, so order and repetition cannot matter (see incidents.py).
    Column("latest_key", String(512), nullable=False),
    Column("latest_state", String(16), nullable=False),
    Column("resolved_key", String(512), nullable=False),
    Column("reopened_key", String(512), nullable=False),
    Column("assigned_key", String(512)),  # of the newest event that named assignees; null in rows of version 1
    Column("run", Integer, nullable=False),
    Column("merged_into", String(255)),  # PagerDuty's id of the incident that took this one in
    Column("acknowledged_by", String(255)),
    Column("resolved_by", String(255)),
    # The card is a projection: `revision` counts changes, `shown` is the revision that Slack shows.
    Column("revision", Integer, nullable=False),
    Column("shown", Integer, nullable=False),
    Column("channel", String(64)),
    Column("card_ts", String(64)),
    Column("card_due", Utc),
    Column("carded_at", Utc),  # when its first card stood in Slack
    Column("card_owner", String(64)),  # the process that draws it; free when that one is dead
    Index(None, "state"),
)

# One diagnosis of an incident; its workflow's id is "<incident_id>:<number>".
run = Table(
    "run",
    metadata,
    Column("incident_id", ForeignKey("incident.incident_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("requested_by", String(255)),
    Column("state", String(16), nullable=False),  # new | started | done
    Column("created_at", Utc, nullable=False),
    Column("finished_at", Utc),
    Column("alerts", Json),
    Column("diagnosis", Json),
    Column("hits", Json),
    Column("notes", Json),  # what the application itself could not do: no alerts from PagerDuty, no plan because ...
    Column("similar", Json),  # past incidents that resemble it; null until somebody looked
    Index(None, "state"),
    Index(None, "finished_at"),
)

plan = Table(
    "plan",
    metadata,
    Column("plan_id", String(64), primary_key=True),
    Column("incident_id", ForeignKey("incident.incident_id"), nullable=False),
    Column("run", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_why", Text),
    Column("state_at", Utc, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("frozen", Json, nullable=False),
    Column("requester", String(255)),
    Column("undoes", String(64)),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("start_by", Utc),  # the second clock: an approved plan starts by then or not at all
    Column("chapter", Integer, nullable=False),  # workflow "<plan_id>:<chapter>"; a person's answer begins the next one
    Column("started_chapter", Integer, nullable=False),
    Column("stops", Integer, nullable=False, server_default="0"),  # of the kill switch when this was made
    UniqueConstraint("incident_id", "run", "rank"),
    Index(None, "state"),
)

# The key (plan, person) and the conditional update of the plan decide, not an earlier SELECT.
approval = Table(
    "approval",
    metadata,
    Column("plan_id", ForeignKey("plan.plan_id"), primary_key=True),
    Column("person_id", String(255), primary_key=True),
    Column("decision", String(16), nullable=False),  # approve | deny | break_glass
    Column("role", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", Utc, nullable=False),
    Column("step_up", String(16)),  # totp: proved outside Slack with a one-time code
    Column("channel", String(16), nullable=False, server_default="slack"),  # slack | operator | policy
    Column("seal", String(64)),  # HMAC with a key that is not here; null in rows of schema 7, which start nothing
)

# The journal of a remediation: intents, outcomes, probes, verifications, people's answers.
step_record = Table(
    "step_record",
    metadata,
    Column("plan_id", ForeignKey("plan.plan_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", Utc, nullable=False),
    Column("record", Json, nullable=False),
    Column("telemetry_at", Utc),  # the telemetry's clock, from which verification waits
)

# What Slack and PagerDuty must still be told; sent in order per incident.
outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", Integer, primary_key=True, autoincrement=True),
    Column("key", String(255), nullable=False, unique=True),
    Column("incident_id", ForeignKey("incident.incident_id"), nullable=False),
    Column("lane", String(32), nullable=False),  # slack | pagerduty
    Column("kind", String(32), nullable=False),
    Column("content", Json, nullable=False),
    Column("state", String(16), nullable=False),  # new | sending | done | dead
    Column("attempts", Integer, nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("why", Text),
    Column("owner", String(64)),  # the process that delivers it; free when that one is dead
    Column("created_at", Utc),
    Index(None, "state", "lane", "due_at"),
)

# Append-only and hash-chained; triggers refuse UPDATE, DELETE and a row in another's place (see the migrations).
audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Utc, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("details", Json, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "subject"),
)

person = Table(
    "person",
    metadata,
    Column("person_id", String(255), primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", String(320)),
    Column("pagerduty", String(64)),
    Column("roles", Json, nullable=False),
    Column("active", Boolean, nullable=False),
)

person_slack = Table(
    "person_slack",
    metadata,
    Column("team", String(64), primary_key=True),
    Column("user", String(64), primary_key=True),
    Column("person_id", ForeignKey("person.person_id"), nullable=False),
)

# Prompt stores do not remember label moves, so we do: which version a label was first seen on.
label_sighting = Table(
    "label_sighting",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("prompt", String(255), primary_key=True),
    Column("label", String(255), primary_key=True),
    Column("seen_at", Utc, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("last_seen_at", Utc),  # of this stretch; null in rows of schema 2
)

# The change journal: what sources told and pipelines reported, kept because most sources forget. Texts are redacted.
change = Table(
    "change",
    metadata,
    Column("service", String(255), primary_key=True),
    Column("source", String(255), primary_key=True),
    Column("change_id", String(512), primary_key=True),
    Column("at", Utc, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("summary", Text, nullable=False),
    Column("author", Text),
    Column("scope", Json, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("url", Text, nullable=False),
    Column("undo", Json, nullable=False),
    Column("is_symptom", Boolean, nullable=False),
    Column("recorded_at", Utc, nullable=False),  # by the wall's clock; `at` is the telemetry's, or the sender's
    Index(None, "service", "at"),
    Index(None, "recorded_at"),
)

# Who works on this database: each process beats every few seconds, by the database's clock, and a silent one is dead.
worker = Table(
    "worker",
    metadata,
    Column("executor_id", String(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("place", Text, nullable=False),  # the boot and the process namespace in which `pid` means something
    Column("pid", Integer, nullable=False),
    Column("role", String(16), nullable=False),  # serve | web | worker
    Column("started_at", Utc, nullable=False),
    Column("steady_since", Utc, nullable=False),  # since when it has beaten without a gap
    Column("beat_at", Utc, nullable=False),
    Column("ended_at", Utc),  # it stopped, or somebody declared it dead
)

# What only one process at a time does: looking at prompts, taking over from the dead, reconciling.
duty = Table(
    "duty",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Utc, nullable=False),
)

# The one row of the kill switch. It is read in each transaction that starts something; without it nothing starts.
kill_switch = Table(
    "kill_switch",
    metadata,
    Column("switch_id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("is_stopped", Boolean, nullable=False),
    Column("stops", Integer, nullable=False),  # how often everything was stopped; a plan from before a stop never runs
    Column("turns", Integer, nullable=False),  # how often it was turned, either way
    Column("told", Integer, nullable=False),  # the turn that Slack knows of
    Column("who", String(255), nullable=False),  # turned it last: a name for people; the record has the id
    Column("reason", Text, nullable=False),
    Column("at", Utc),  # when; null before the first time
)

# How operators sign in outside Slack: the SHA-256 of a secret that was shown once. A session is one with a short life.
operator_token = Table(
    "operator_token",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("person_id", String(255), nullable=False),
    Column("kind", String(16), nullable=False),  # token | session | reporter (person_id is then a source's name)
    Column("parent", String(64)),  # of a session: the token that it was begun with, and that ends it
    Column("label", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("revoked_at", Utc),
    Index(None, "person_id"),
)

# Slack delivers an event up to four times; whoever inserts its id first handles it. One that was begun and not done
# was cut off by a crash, and is handled when it comes again.
slack_event = Table(
    "slack_event",
    metadata,
    Column("event_id", String(255), primary_key=True),
    Column("received_at", Utc, nullable=False),
    Column("done_at", Utc),
    Index(None, "received_at"),
)

# Incidents that came together, faster than Slack takes cards: one summary card for them, a projection like every card.
burst = Table(
    "burst",
    metadata,
    Column("burst_id", Integer, primary_key=True, autoincrement=True),
    Column("opened_at", Utc, nullable=False),
    Column("joined_at", Utc, nullable=False),  # when the last incident joined
    Column("closed_at", Utc),
    Column("due_at", Utc, nullable=False),
    Column("owner", String(64)),  # the process that draws it; free when that one is dead
    Column("is_begun", Boolean, nullable=False),  # a first post may have gone out: look before posting again
    Column("channel", String(64)),
    Column("card_ts", String(64)),
    Column("shown", String(64)),  # hash of what Slack shows
)

burst_member = Table(
    "burst_member",
    metadata,
    Column("incident_id", ForeignKey("incident.incident_id"), primary_key=True),
    Column("burst_id", ForeignKey("burst.burst_id"), nullable=False),
    Index(None, "burst_id"),
)

# What a person asked for that only a process with the action credentials can do; the row is the queue.
errand = Table(
    "errand",
    metadata,
    Column("errand_id", Integer, primary_key=True, autoincrement=True),
    Column("key", String(255), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),  # undo, narrow
    Column("subject", String(255), nullable=False),
    Column("person_id", String(255), nullable=False),
    Column("content", Json, nullable=False),
    Column("state", String(16), nullable=False),  # new | done | refused
    Column("why", Text),
    Column("owner", String(64)),  # the process that runs it; free when that one is dead
    Column("created_at", Utc, nullable=False),
    Index(None, "state"),
)
