"""The inbox: deliveries are committed before they are answered, and folded into incidents afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import Delivery, IncidentState
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import insert_new, new_run
from bot.store.tables import delivery, incident

_RANK = {IncidentState.TRIGGERED: 0, IncidentState.ACKNOWLEDGED: 1, IncidentState.RESOLVED: 2}
_STATES = {state.value: state for state in IncidentState}
BATCH = 100


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A delivery that could not be understood or folded, and why."""

    event_id: str
    kind: str
    received_at: datetime
    why: str


class Inbox:
    """
    Receives and folds deliveries.

    The state of an incident is a fold over its events that cannot depend on their order: it keeps the newest event,
    the newest `resolved` and the newest `reopened`, each by (occurred_at, rank of the state, event id). An incident
    is resolved while its newest `resolved` is newer than its newest `reopened`; else the newest event's state holds.
    """

    def __init__(self, database: Database, *, services: dict[str, str]) -> None:
        """`services` maps a PagerDuty service id to the name of a configured service."""
        self._database = database
        self._services = services

    async def deliver(self, item: Delivery, *, now: datetime) -> bool:
        """Commit one delivery; False when its event id is here already. Raises StoreUnavailableError."""
        async with self._database.write() as connection:
            return await self._insert(connection, item, now=now, state="new", why=None)

    async def bury(self, item: Delivery, why: str, *, now: datetime) -> bool:
        """Keep an authentic delivery that we cannot read, for people and `watchkeeper replay`."""
        async with self._database.write() as connection:
            return await self._insert(connection, item, now=now, state="dead", why=why)

    async def _insert(
        self, connection: AsyncConnection, item: Delivery, *, now: datetime, state: str, why: str | None
    ) -> bool:
        row = {
            "event_id": item.event_id,
            "source": item.source,
            "kind": item.kind,
            "incident_id": item.incident_id,
            "occurred_at": item.occurred_at,
            "received_at": now,
            "state": state,
            "why": why,
            "incident": dict(item.incident),
            "raw": item.raw,
        }
        return await insert_new(connection, delivery, row)

    async def fold(self, *, now: datetime) -> int:
        """
        Fold waiting deliveries into incidents, each in a transaction of its own; returns how many were folded.

        The first sight of an incident and every re-opening take the next run number in that transaction, so a crash
        between the commit and the start of the diagnosis loses nothing.
        """
        waiting = (
            sa.select(delivery.c.event_id)
            .where(delivery.c.state == "new")
            .order_by(delivery.c.received_at, delivery.c.event_id)
            .limit(BATCH)
        )
        async with self._database.read() as connection:
            event_ids = list((await connection.execute(waiting)).scalars())
        folded = 0
        for event_id in event_ids:
            try:
                async with self._database.write() as connection:
                    folded += await self._fold_one(connection, event_id, now)
            except (KeyError, TypeError, ValueError, DBAPIError) as error:  # one poisoned event, not those behind it
                await self._give_up(event_id, f"cannot be folded: {type(error).__name__}: {error}")
        return folded

    async def _give_up(self, event_id: str, why: str) -> None:
        statement = delivery.update().where(delivery.c.event_id == event_id).values(state="dead", why=why[:500])
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def _fold_one(self, connection: AsyncConnection, event_id: str, now: datetime) -> int:
        claim = (
            delivery.update()
            .where(delivery.c.event_id == event_id, delivery.c.state == "new")
            .values(state="done")
            .returning(*delivery.c)
        )
        row = (await connection.execute(claim)).one_or_none()
        if row is None:
            return 0
        if row.incident_id is not None and row.incident.get("status") in _STATES:
            await self._merge(connection, row, now)
        return 1

    async def _merge(self, connection: AsyncConnection, event: Any, now: datetime) -> None:
        facts = event.incident
        state = _STATES[facts["status"]]
        key = f"{event.occurred_at.isoformat(timespec='microseconds')}|{_RANK[state]}|{event.event_id}"
        locked = sa.select(incident).where(incident.c.incident_id == event.incident_id).with_for_update()
        known = (await connection.execute(locked)).one_or_none()
        values = {
            "latest_key": key,
            "latest_state": state.value,
            "resolved_key": key if state is IncidentState.RESOLVED else "",
            "reopened_key": key if event.kind == "incident.reopened" else "",
            "state_at": event.occurred_at,
            **_facts(facts),
        }
        if known is not None:
            older = key <= known.latest_key
            kept = ("latest_key", "latest_state", "state_at", *_facts(facts)) if older else ()
            values |= {name: getattr(known, name) for name in kept}
            # A resolved incident has no assignees any more, but whoever was paged for it may still have to answer.
            values["assignees"] = values["assignees"] or known.assignees
            values["resolved_key"] = max(values["resolved_key"], known.resolved_key)
            values["reopened_key"] = max(values["reopened_key"], known.reopened_key)
        is_resolved = values["resolved_key"] > values["reopened_key"]
        values["state"] = IncidentState.RESOLVED.value if is_resolved else values["latest_state"]
        if known is None:
            await self._first_sight(connection, event, values, now)
        else:
            await self._later_event(connection, event, known, values, now)

    async def _first_sight(
        self, connection: AsyncConnection, event: Any, values: dict[str, Any], now: datetime
    ) -> None:
        starts = values["state"] != IncidentState.RESOLVED
        row = {
            **values,
            "incident_id": event.incident_id,
            "service": self._services.get(values["service_id"]),
            "run": 1 if starts else 0,
            "revision": 1,
            "shown": 0,
        }
        await connection.execute(incident.insert().values(row))
        await chain.append(
            connection,
            at=now,
            actor="pagerduty",
            action="incident.seen",
            subject=event.incident_id,
            event=event.event_id,
            kind=event.kind,
            state=values["state"],
        )
        if starts:
            await new_run(connection, event.incident_id, 1, reason=event.kind, by=None, now=now)

    async def _later_event(
        self, connection: AsyncConnection, event: Any, known: Any, values: dict[str, Any], now: datetime
    ) -> None:
        reopened = event.kind == "incident.reopened" and values["state"] != IncidentState.RESOLVED
        if known.acknowledged_by and values["state"] == IncidentState.TRIGGERED:
            values["acknowledged_by"] = None
        if known.resolved_by and known.state == IncidentState.RESOLVED and values["state"] != IncidentState.RESOLVED:
            values["resolved_by"] = None
        if reopened:
            values["run"] = known.run + 1
        if all(getattr(known, name) == value for name, value in values.items()):
            return
        changed = {**values, "revision": incident.c.revision + 1}
        await connection.execute(incident.update().where(incident.c.incident_id == known.incident_id).values(changed))
        if values["state"] != known.state:
            await chain.append(
                connection,
                at=now,
                actor="pagerduty",
                action=f"incident.{values['state']}",
                subject=known.incident_id,
                event=event.event_id,
                kind=event.kind,
            )
        if reopened:
            await new_run(connection, known.incident_id, values["run"], reason=event.kind, by=None, now=now)

    async def dead_letters(self) -> list[DeadLetter]:
        """Everything that waits for a person, oldest first."""
        query = sa.select(delivery).where(delivery.c.state == "dead").order_by(delivery.c.received_at)
        async with self._database.read() as connection:
            return [
                DeadLetter(event_id=row.event_id, kind=row.kind, received_at=row.received_at, why=row.why or "")
                for row in await connection.execute(query)
            ]

    async def exhume(self, event_id: str) -> str | None:
        """The raw text of a dead letter, None when there is no such dead letter."""
        query = sa.select(delivery.c.raw).where(delivery.c.event_id == event_id, delivery.c.state == "dead")
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def revive(self, event_id: str, item: Delivery) -> bool:
        """A dead letter that can be read now goes back into the queue; False when it is not dead any more."""
        statement = (
            delivery.update()
            .where(delivery.c.event_id == event_id, delivery.c.state == "dead")
            .values(
                state="new",
                why=None,
                kind=item.kind,
                incident_id=item.incident_id,
                occurred_at=item.occurred_at,
                incident=dict(item.incident),
            )
        )
        async with self._database.write() as connection:
            return bool((await connection.execute(statement)).rowcount)


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The columns that the newest event decides."""
    return {
        "number": facts.get("number"),
        "title": facts.get("title") or "(no title)",
        "url": facts.get("url") or "",
        "urgency": facts.get("urgency") or "high",
        "service_id": facts.get("service_id") or "",
        "service_name": facts.get("service_name") or "",
        "assignees": dict(facts.get("assignees") or {}),
        "created_at": datetime.fromisoformat(facts["created_at"]),
    }
