"""What an outage of Slack leaves behind: what waits for it, and which incidents nobody can see there."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from bot.incidents import IncidentState
from bot.store.database import Database
from bot.store.outbox import post
from bot.store.tables import incident, outbox, run

LANE, KIND = "pagerduty", "slack_down"


def key_of(incident_id: str, number: int) -> str:
    """Of the note that says so, once for each diagnosis."""
    return f"{KIND}:{incident_id}:{number}"


class Outages:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def over(self, *, now: datetime) -> None:
        """Slack is back: whatever waited for another try is due, in the order of its rows."""
        waits = incident.c.revision > incident.c.shown
        mail = sa.and_(outbox.c.lane == "slack", outbox.c.state.in_(("new", "sending")), outbox.c.due_at > now)
        async with self._database.write() as connection:
            await connection.execute(incident.update().where(waits, incident.c.card_due > now).values(card_due=now))
            await connection.execute(outbox.update().where(mail).values(due_at=now))

    async def unseen(self, *, since: datetime, down_since: datetime | None) -> list[tuple[str, int]]:
        """
        Incidents with a verdict that Slack does not show, and of which PagerDuty was not told so: id and run.

        `since`: only diagnoses that were asked for before. A card that merely waits for its turn in a burst was not
        tried in vain (`shown` = -1), unless Slack is down (`down_since`); then older cards lack the newest verdict.
        """
        never_posted = sa.and_(incident.c.card_ts.is_(None), incident.c.shown < 0)
        if down_since is None:
            is_unseen = never_posted
        else:
            out_of_date = sa.and_(incident.c.revision > incident.c.shown, run.c.finished_at >= down_since)
            is_unseen = sa.or_(incident.c.card_ts.is_(None), out_of_date)
        told = sa.exists().where(
            outbox.c.key == sa.literal(f"{KIND}:") + incident.c.incident_id + ":" + sa.cast(run.c.number, sa.String)
        )
        query = (
            sa.select(incident.c.incident_id, run.c.number)
            .join(run, sa.and_(run.c.incident_id == incident.c.incident_id, run.c.number == incident.c.run))
            .where(
                incident.c.state != IncidentState.RESOLVED.value,
                run.c.state == "done",
                run.c.created_at <= since,
                is_unseen,
                sa.not_(told),
            )
            .order_by(incident.c.created_at)
        )
        async with self._database.read() as connection:
            return [(row.incident_id, row.number) for row in await connection.execute(query)]

    async def tell_pagerduty(self, incident_id: str, number: int, *, now: datetime) -> None:
        """Leave the note in the outbox, once however often this is called."""
        async with self._database.write() as connection:
            await post(
                connection,
                key=key_of(incident_id, number),
                incident_id=incident_id,
                lane=LANE,
                kind=KIND,
                now=now,
                run=number,
            )
