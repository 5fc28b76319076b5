"""Incidents and their diagnoses: what is known, what waits to be diagnosed, and what the card must show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.incidents import Incident, IncidentState, NotFoundError, Person, StaleError
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.outbox import post
from bot.store.statements import new_run, touch
from bot.store.tables import Utc, incident, run
from bot.store.workers import free


@dataclass(frozen=True, kw_only=True)
class Run:
    """One diagnosis of an incident, as JSON; None where it has not been written yet."""

    incident_id: str
    number: int
    reason: str
    requested_by: str | None
    state: str
    created_at: datetime
    alerts: Sequence[Mapping[str, Any]] | None
    diagnosis: Mapping[str, Any] | None
    hits: Sequence[Mapping[str, Any]] | None
    notes: Sequence[str] | None
    similar: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class CardPlace:
    """Where an incident's card stands in Slack, which revision it shows, and which it should."""

    incident_id: str
    revision: int
    shown: int
    channel: str | None
    card_ts: str | None


def to_incident(row: Any) -> Incident:
    """A row of `incident` as a value."""
    return Incident(
        incident_id=row.incident_id,
        number=row.number,
        title=row.title,
        state=IncidentState(row.state),
        state_at=row.state_at,
        created_at=row.created_at,
        pagerduty_service=row.service_id,
        pagerduty_service_name=row.service_name,
        service=row.service,
        url=row.url,
        urgency=row.urgency,
        assignees=dict(row.assignees),
        run=row.run,
        revision=row.revision,
        acknowledged_by=row.acknowledged_by,
        resolved_by=row.resolved_by,
        merged_into=row.merged_into if row.state == IncidentState.RESOLVED.value else None,
    )


ESCALATE = "escalate"
"""The kind of the parcel that asks for the secondary."""


class Incidents:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, incident_id: str) -> Incident:
        """Raises NotFoundError."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(sa.select(incident).where(incident.c.incident_id == incident_id))
            ).one_or_none()
        if row is None:
            raise NotFoundError(f"incident {incident_id} is not known here")
        return to_incident(row)

    async def unresolved(self) -> list[Incident]:
        """Every incident that is not resolved, newest first."""
        query = (
            sa.select(incident)
            .where(incident.c.state != IncidentState.RESOLVED.value)
            .order_by(incident.c.created_at.desc())
        )
        async with self._database.read() as connection:
            return [to_incident(row) for row in await connection.execute(query)]

    async def run(self, incident_id: str, number: int) -> Run | None:
        """One diagnosis, or None."""
        query = sa.select(run).where(run.c.incident_id == incident_id, run.c.number == number)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        values = row._asdict()
        values.pop("finished_at")
        return Run(**values)

    async def runs_to_start(self) -> list[tuple[str, int]]:
        """Diagnoses whose workflow nobody has started yet, oldest first."""
        query = sa.select(run.c.incident_id, run.c.number).where(run.c.state == "new").order_by(run.c.created_at)
        async with self._database.read() as connection:
            return [(row.incident_id, row.number) for row in await connection.execute(query)]

    async def mark_started(self, incident_id: str, number: int) -> None:
        """The workflow exists; starting it again under its id would run nothing."""
        statement = (
            run.update()
            .where(run.c.incident_id == incident_id, run.c.number == number, run.c.state == "new")
            .values(state="started")
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def record(self, incident_id: str, number: int, **columns: Any) -> None:
        """Write down what a diagnosis has found so far (alerts, diagnosis, hits, notes) and refresh the card."""
        statement = run.update().where(run.c.incident_id == incident_id, run.c.number == number).values(columns)
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            await connection.execute(statement)

    async def finish(self, incident_id: str, number: int, *, now: datetime, cause: str, probability: float) -> None:
        """The diagnosis stands; it goes on record once, however often the step is repeated."""
        statement = (
            run.update()
            .where(run.c.incident_id == incident_id, run.c.number == number, run.c.state != "done")
            .values(state="done", finished_at=now)
        )
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            if (await connection.execute(statement)).rowcount:
                await chain.append(
                    connection,
                    at=now,
                    actor="watchkeeper",
                    action="diagnosis.made",
                    subject=incident_id,
                    run=number,
                    cause=cause,
                    probability=round(probability, 3),
                )

    async def ask_again(self, incident_id: str, *, by: str, now: datetime) -> int:
        """
        Take the next run number for a re-diagnosis; returns it.

        A second click while one is waiting or running changes nothing. Raises NotFoundError; StaleError when the
        incident is resolved.
        """
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            row = (
                await connection.execute(sa.select(incident).where(incident.c.incident_id == incident_id))
            ).one_or_none()
            if row is None:
                raise NotFoundError(f"incident {incident_id} is not known here")
            if row.state == IncidentState.RESOLVED.value:
                raise StaleError("This incident is resolved; there is nothing to diagnose.")
            latest = sa.select(run.c.state).where(run.c.incident_id == incident_id, run.c.number == row.run)
            if (await connection.execute(latest)).scalar_one_or_none() in ("new", "started"):
                return int(row.run)
            number = int(row.run) + 1
            await connection.run_sync(new_run, incident_id, number, reason="asked for in Slack", by=by, now=now)
            await connection.execute(incident.update().where(incident.c.incident_id == incident_id).values(run=number))
            await chain.append(
                connection, at=now, actor=by, action="diagnosis.requested", subject=incident_id, run=number
            )
            return number

    async def asked(self, incident_id: str, kind: str, *, key: str, by: Person, now: datetime) -> None:
        """A person acknowledges or resolves: on record and in the outbox together; a second click adds nothing."""
        column = {"acknowledge": "acknowledged_by", "resolve": "resolved_by"}[kind]
        words = {"by": by.person_id, "email": by.email}
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            if not await post(
                connection, key=key, incident_id=incident_id, lane="pagerduty", kind=kind, now=now, **words
            ):
                return
            await connection.execute(
                incident.update().where(incident.c.incident_id == incident_id).values({column: by.person_id})
            )
            await chain.append(
                connection,
                at=now,
                actor=by.person_id,
                action=f"incident.{kind}",
                subject=incident_id,
                channel=by.channel,
            )

    async def ask_secondary(self, incident_id: str, plan_id: str, *, by: Person, now: datetime) -> bool:
        """Have PagerDuty page the secondary for a plan, once: on record and in the outbox; False the second time."""
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            if not await post(
                connection,
                key=f"{plan_id}:{ESCALATE}",
                incident_id=incident_id,
                lane="pagerduty",
                kind=ESCALATE,
                now=now,
                plan=plan_id,
                name=by.name,
            ):
                return False
            said = {"plan": plan_id, "channel": by.channel}
            await chain.append(
                connection, at=now, actor=by.person_id, action="plan.escalated", subject=incident_id, **said
            )
            return True

    async def refused(
        self, incident_id: str, *, who: str, what: str, why: str, about: str, now: datetime, channel: str = "slack"
    ) -> None:
        """Somebody tried what they may not; it goes on record and on the card."""
        said = {"what": what, "why": why, "about": about, "channel": channel}
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            await chain.append(connection, at=now, actor=who, action="refused", subject=incident_id, **said)

    async def cards_to_show(self, *, now: datetime, me: str = "", new: int = 20, old: int = 20) -> list[CardPlace]:
        """
        Cards whose incident changed since they were last drawn, unless Slack asked us to wait or others draw it.

        At most so many that have not been posted yet, and so many that have; new ones first.
        """
        query = sa.select(incident).where(
            incident.c.revision > incident.c.shown,
            sa.or_(incident.c.card_due.is_(None), incident.c.card_due <= now),
            free(incident.c.card_owner, me),  # `me`: see bot.store.workers; several processes sweep
        )
        first = query.where(incident.c.card_ts.is_(None)).order_by(incident.c.created_at).limit(new)
        again = query.where(incident.c.card_ts.is_not(None)).order_by(incident.c.card_due).limit(old)
        async with self._database.read() as connection:
            rows = [*await connection.execute(first), *await connection.execute(again)]
        return [
            CardPlace(
                incident_id=row.incident_id,
                revision=row.revision,
                shown=row.shown,
                channel=row.channel,
                card_ts=row.card_ts,
            )
            for row in rows
        ]

    async def place(self, incident_id: str) -> tuple[str, str] | None:
        """Channel and ts of the card, None while it has not been posted."""
        query = sa.select(incident.c.channel, incident.c.card_ts).where(incident.c.incident_id == incident_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return (row.channel, row.card_ts) if row and row.card_ts else None

    async def claim_card(self, place: CardPlace, *, now: datetime, me: str = "") -> bool:
        """
        Take a card to draw it; False when somebody else was faster, or something happened to it since it was seen.

        Where none stands the first post is about to be sent: whoever finds this mark (`shown` is -1) and no ts must
        look before posting again.
        """
        seen = (
            incident.c.incident_id == place.incident_id,
            incident.c.shown == place.shown,
            incident.c.card_ts.is_not_distinct_from(place.card_ts),
            sa.or_(incident.c.card_due.is_(None), incident.c.card_due <= now),
            free(incident.c.card_owner, me),
        )
        begun = {"shown": -1} if place.card_ts is None else {}
        async with self._database.write() as connection:
            statement = incident.update().where(*seen).values(card_owner=me, **begun)
            return bool((await connection.execute(statement)).rowcount)

    async def card_shown(
        self, incident_id: str, revision: int, channel: str, ts: str, *, now: datetime, next_at: datetime
    ) -> None:
        """Slack shows this revision; a newer one stays to be shown, not before `next_at`."""
        statement = (
            incident.update()
            .where(incident.c.incident_id == incident_id)
            .values(
                channel=channel,
                card_ts=ts,
                card_due=next_at,
                card_owner=None,
                carded_at=sa.func.coalesce(incident.c.carded_at, sa.literal(now, Utc())),
                shown=sa.case((incident.c.shown > revision, incident.c.shown), else_=revision),
            )
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def card_gone(self, incident_id: str, *, me: str = "") -> None:
        """Somebody deleted the card; the next sweep posts it anew."""
        await self._let_go(incident_id, me, card_ts=None, shown=0)

    async def card_later(self, incident_id: str, due: datetime, *, me: str = "") -> None:
        """Slack asked us to wait, or did not answer."""
        await self._let_go(incident_id, me, card_due=due)

    async def _let_go(self, incident_id: str, me: str, **values: Any) -> None:
        """Unless another process has taken the card over from me meanwhile."""
        mine = incident.update().where(incident.c.incident_id == incident_id, free(incident.c.card_owner, me))
        async with self._database.write() as connection:
            await connection.execute(mine.values(card_owner=None, **values))
