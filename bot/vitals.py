"""What operators see of the product itself: numbers for /metrics and /healthz, counted every few seconds."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge

from bot.incidents import IncidentState, PlanState
from bot.store.database import Database
from bot.store.tables import delivery, incident, outbox, plan

EVERY_S = 10.0

_COUNTS: Mapping[str, tuple[str, sa.ColumnElement[bool]]] = {
    "open_incidents": ("Incidents that are not resolved", incident.c.state != IncidentState.RESOLVED.value),
    "dead_letters": ("Authentic events that nobody could read; see `watchkeeper replay`", delivery.c.state == "dead"),
    "undelivered": ("Messages that Slack or PagerDuty have not taken yet", outbox.c.state.in_(("new", "sending"))),
    "undeliverable": ("Messages that Slack or PagerDuty refused for good", outbox.c.state == "dead"),
    "plans_in_doubt": ("Fixes that wait for a person's answer", plan.c.state == PlanState.IN_DOUBT.value),
}


class Vitals:
    """Counts rows; the gauges keep the last count while the database does not answer."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._gauges = {
            name: Gauge(f"watchkeeper_{name}", what, registry=registry) for name, (what, _) in _COUNTS.items()
        }
        self.counts: dict[str, int] = {}

    async def sweep(self) -> None:
        """Count once. Raises StoreUnavailableError."""
        async with self._database.read() as connection:
            for name, (_, condition) in _COUNTS.items():
                counted = await connection.execute(sa.select(sa.func.count()).where(condition))
                self.counts[name] = counted.scalar_one()
        for name, count in self.counts.items():
            self._gauges[name].set(count)
