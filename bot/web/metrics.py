"""What the doors count about themselves, for `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class DoorMetrics:
    """Answers by door and status, and how long they took (seconds)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "watchkeeper_door_answers", "Answers to webhooks and clicks", ["door", "status"], registry=registry
        )
        self._seconds = Histogram(
            "watchkeeper_door_seconds",
            "Time to the answer; PagerDuty allows 5 s, Slack 3 s",
            ["door"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5),
            registry=registry,
        )

    def answered(self, door: str, status: int, seconds: float) -> None:
        self._answers.labels(door, str(status)).inc()
        self._seconds.labels(door).observe(seconds)
