"""What is forgotten, and when. The record is never: it has no delete."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from bot.incidents import IncidentState
from bot.store.database import Database
from bot.store.tables import change, delivery, errand, incident, operator_token, outbox

KEPT = timedelta(days=30)
"""PagerDuty repeats an event for two days at most; the rest of the month is for people who look back."""

_BATCH = 1000


async def forget(database: Database, *, now: datetime) -> dict[str, int]:
    """
    Delete what nobody needs any more; returns how many rows of what.

    Folded deliveries, told parcels of resolved incidents, done errands, tokens and sessions that ended, and changes,
    each a month later. Dead letters and undeliverable messages wait for a person. Raises StoreUnavailableError.
    """
    before = now - KEPT
    resolved = sa.select(incident.c.incident_id).where(
        incident.c.state == IncidentState.RESOLVED.value, incident.c.state_at < before
    )
    doomed: dict[str, tuple[sa.Column[object], sa.ColumnElement[bool]]] = {
        "deliveries": (
            delivery.c.event_id,
            sa.and_(delivery.c.state == "done", delivery.c.received_at < before),
        ),
        "parcels": (
            outbox.c.outbox_id,
            sa.and_(outbox.c.state == "done", outbox.c.due_at < before, outbox.c.incident_id.in_(resolved)),
        ),
        "errands": (errand.c.errand_id, sa.and_(errand.c.state != "new", errand.c.created_at < before)),
        "tokens": (
            operator_token.c.token_hash,
            sa.or_(operator_token.c.expires_at < before, operator_token.c.revoked_at < before),
        ),
        "changes": (change.c.change_id, change.c.recorded_at < before),
    }
    return {what: await _delete(database, key, condition) for what, (key, condition) in doomed.items()}


async def _delete(database: Database, key: sa.Column[object], condition: sa.ColumnElement[bool]) -> int:
    """A thousand at a time, so that a webhook never waits for a month of them."""
    deleted = 0
    while True:
        batch = sa.select(key).where(condition).limit(_BATCH)
        async with database.write() as connection:
            gone = (await connection.execute(sa.delete(key.table).where(key.in_(batch), condition))).rowcount
        deleted += gone
        if gone < _BATCH:
            return deleted
