"""Errands: what a person asked for that only a process with the action credentials can do. The row is the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import Person
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.outbox import post
from bot.store.statements import insert_new, touch
from bot.store.tables import errand
from bot.store.workers import free
from runbooks.engine.values import canonical

WATCHKEEPER = "watchkeeper"
"""Who asks for an errand where nobody did: a plan said beforehand that it would be."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """
    One thing to do for a person; `subject` is the plan's id, `channel` how the person came, `asked_at` when.

    `values` are those that the plan's parameters shall have, where that is what they asked for.
    """

    errand_id: int
    kind: str
    subject: str
    person_id: str
    incident_id: str
    channel: str
    asked_at: datetime
    values: Mapping[str, Any] = field(default_factory=dict)


class Errands:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(
        self,
        kind: str,
        subject: str,
        *,
        incident_id: str,
        by: Person,
        now: datetime,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Put it on record and into the queue; while it waits, a second click of the same person changes nothing."""
        key = f"{kind}:{subject}:{by.person_id}"
        content: dict[str, Any] = {"incident_id": incident_id, "channel": by.channel}
        if values is not None:
            key += f":{hashlib.sha256(canonical(values)).hexdigest()[:32]}"
            content["values"] = dict(values)
        row = {"kind": kind, "subject": subject, "person_id": by.person_id, "content": content}
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            is_new = await insert_new(connection, errand, {"key": key, "state": "new", "created_at": now, **row})
            again = errand.update().where(errand.c.key == key, errand.c.state != "new")
            again = again.values(state="new", why=None, owner=None, created_at=now, content=content)
            if is_new or (await connection.execute(again)).rowcount:
                said = {"plan": subject, "channel": by.channel} | ({} if values is None else {"values": dict(values)})
                await chain.append(
                    connection, at=now, actor=by.person_id, action=f"{kind}.asked", subject=incident_id, **said
                )

    async def claim(self, *, me: str) -> list[Errand]:
        """Take what waits and what the dead have left, so that nobody else does it meanwhile."""
        async with self._database.write() as connection:
            statement = (
                errand.update()
                .where(errand.c.state == "new", free(errand.c.owner, me))
                .values(owner=me)
                .returning(*errand.c)
            )
            rows = (await connection.execute(statement)).all()
        return [_to_errand(row._asdict()) for row in sorted(rows, key=lambda row: row.errand_id)]

    async def done(self, item: Errand, *, me: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(self._mine(item, me).values(state="done", owner=None))

    async def refused(self, item: Errand, why: str, *, name: str, me: str, now: datetime) -> None:
        """It cannot be done; said on record and in the thread, where whoever asked (`name`) will read it."""
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            refuse = self._mine(item, me).values(state="refused", why=why[:500], owner=None)
            if not (await connection.execute(refuse)).rowcount:
                return
            await post(
                connection,
                key=f"errand:{item.errand_id}:{now.isoformat()}",
                incident_id=item.incident_id,
                lane="slack",
                kind="refusal",
                now=now,
                name=name,
                what=item.kind,
                why=why,
            )
            said = {"what": item.kind, "why": why, "about": item.subject, "channel": item.channel}
            await chain.append(
                connection, at=now, actor=item.person_id, action="refused", subject=item.incident_id, **said
            )

    def _mine(self, item: Errand, me: str) -> sa.Update:
        return errand.update().where(
            errand.c.errand_id == item.errand_id, errand.c.state == "new", errand.c.owner == me
        )


async def put_own(connection: AsyncConnection, kind: str, subject: str, *, incident_id: str, now: datetime) -> None:
    """An errand of Watchkeeper's own, inside the caller's transaction; the second of its kind changes nothing."""
    content = {"incident_id": incident_id, "channel": WATCHKEEPER}
    row = {"kind": kind, "subject": subject, "person_id": WATCHKEEPER, "content": content}
    key = f"{kind}:{subject}:{WATCHKEEPER}"
    await insert_new(connection, errand, {"key": key, "state": "new", "created_at": now, **row})


def _to_errand(row: Mapping[str, Any]) -> Errand:
    return Errand(
        errand_id=row["errand_id"],
        kind=row["kind"],
        subject=row["subject"],
        person_id=row["person_id"],
        incident_id=row["content"]["incident_id"],
        channel=row["content"]["channel"],
        asked_at=row["created_at"],
        values=row["content"].get("values", {}),
    )
