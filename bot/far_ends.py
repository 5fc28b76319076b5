"""Who else has to answer: Slack, PagerDuty, each telemetry source; when they last did, and what they last refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(kw_only=True)
class FarEnd:
    """One neighbour as this process met it; None where that has not happened since it started."""

    name: str
    answered_at: datetime | None = None
    failed_at: datetime | None = None
    why: str = ""

    @property
    def is_well(self) -> bool | None:
        """Did it answer last time? None while nobody has asked."""
        if self.answered_at is None:
            return None if self.failed_at is None else False
        return self.failed_at is None or self.answered_at >= self.failed_at


class FarEnds:
    """Counts calls by neighbour, method and result; results are few words: ok, limited, refused, unreachable."""

    def __init__(self, registry: CollectorRegistry, *expected: str) -> None:
        """`expected` are shown from the start, before anybody asked them."""
        self._ends: dict[str, FarEnd] = {name: FarEnd(name=name) for name in expected}
        self._calls = Counter(
            "watchkeeper_calls",
            "Calls to Slack, PagerDuty and telemetry",
            ["to", "method", "result"],
            registry=registry,
        )
        self._answered = Gauge(
            "watchkeeper_last_answer_timestamp_seconds", "When they last answered well", ["to"], registry=registry
        )

    def expect(self, name: str) -> None:
        """Show this neighbour from the start, before anybody asked it."""
        self._ends.setdefault(name, FarEnd(name=name))

    def answered(self, name: str, method: str) -> None:
        now = datetime.now(UTC)
        self._end(name).answered_at = now
        self._calls.labels(name, method, "ok").inc()
        self._answered.labels(name).set(now.timestamp())

    def failed(self, name: str, method: str, result: str, why: str) -> None:
        end = self._end(name)
        end.failed_at, end.why = datetime.now(UTC), why[:200]
        self._calls.labels(name, method, result).inc()

    def all(self) -> list[FarEnd]:
        """Everybody whom this process knows, by name."""
        return [self._ends[name] for name in sorted(self._ends)]

    def _end(self, name: str) -> FarEnd:
        return self._ends.setdefault(name, FarEnd(name=name))
