"""What operators see of the product itself: numbers for /metrics and /healthz, counted every few seconds."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from bot.store.counts import COUNTS, count
from bot.store.database import Database

EVERY_S = 10.0


class Vitals:
    """Counts rows; the gauges keep the last count while the database does not answer."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._gauges = {
            name: Gauge(f"watchkeeper_{name}", what, registry=registry) for name, (what, _) in COUNTS.items()
        }
        self.counts: dict[str, int] = {}

    async def sweep(self) -> None:
        """Count once. Raises StoreUnavailableError."""
        self.counts = await count(self._database)
        for name, number in self.counts.items():
            self._gauges[name].set(number)
