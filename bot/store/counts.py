"""What waits, in numbers: for operators, and for nobody's decisions."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from bot.incidents import IncidentState, PlanState
from bot.store.database import Database
from bot.store.tables import delivery, incident, outbox, plan

COUNTS: Mapping[str, tuple[str, sa.ColumnElement[bool]]] = {
    "open_incidents": ("Incidents that are not resolved", incident.c.state != IncidentState.RESOLVED.value),
    "dead_letters": ("Authentic events that nobody could read; see `watchkeeper replay`", delivery.c.state == "dead"),
    "undelivered": ("Messages that Slack or PagerDuty have not taken yet", outbox.c.state.in_(("new", "sending"))),
    "undeliverable": ("Messages that Slack or PagerDuty refused for good", outbox.c.state == "dead"),
    "plans_in_doubt": ("Fixes that wait for a person's answer", plan.c.state == PlanState.IN_DOUBT.value),
}
"""What is counted: a name, what it is in words, and which rows."""


async def count(database: Database) -> dict[str, int]:
    """Raises StoreUnavailableError."""
    async with database.read() as connection:
        return {
            name: (await connection.execute(sa.select(sa.func.count()).where(condition))).scalar_one()
            for name, (_, condition) in COUNTS.items()
        }
