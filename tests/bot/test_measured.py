"""A step verified by a query: the number must be back in its range, in every group, on telemetry after the change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.measured import longest_window, measured
from diagnostics.findings import Status
from diagnostics.target import Target
from diagnostics.telemetry.recorded import load_openmetrics
from runbooks.engine.declared import RANGE, Range

START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=5)
CHAT = Target(service="chat", selectors={"serving": {"model_name": "chat"}})
WAITING = {"chat-1": ("chat", 3.0), "chat-2": ("chat", 12.0), "other-1": ("other", 99.0)}
LINES = [
    f'vllm:num_requests_waiting{{model_name="{model}",pod="{pod}"}} {value} {START.timestamp() + 60 * minute}'
    for pod, (model, value) in WAITING.items()
    for minute in range(6)
]
TELEMETRY = load_openmetrics("\n".join(["# TYPE vllm:num_requests_waiting gauge", *LINES, "# EOF", ""]))


def asked(**more: Any) -> Range:
    bounds = {name: more.pop(name) for name in ("below", "above") if name in more}
    return RANGE.validate_python({"query": {"metric": "vllm:num_requests_waiting", **more}, **bounds})


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        (asked(below=16), Status.OK, "is 15 and must be below 16"),
        (asked(below=15), Status.BAD, "is 15 and must be below 15"),
        (asked(above=20), Status.BAD, "is 15 and must be above 20"),
        (asked(above=2, below=13, by=["pod"]), Status.OK, "must be above 2 and below 13"),
        (asked(below=8, by=["pod"]), Status.BAD, "is 12 (chat-2) and must be below 8"),
        (asked(below=8, by=["pod"], where={"pod": "!chat-2"}), Status.OK, "is 3 (chat-1)"),
        (asked(below=8, by=["pod"], where={"pod": "~.*-1"}), Status.OK, "is 3 (chat-1)"),
        (asked(below=8, aggregation="avg"), Status.OK, "is 7.5"),
        (asked(below=8, function="max_over_time", window="2m", aggregation="max"), Status.BAD, "is 12"),
        (asked(below=8, where={"pod": "gone"}), Status.UNKNOWN, "has no data"),
        (asked(below=8, family="gpu"), Status.UNKNOWN, "no gpu selector"),
    ],
)
async def test_a_range(question: Range, status: Status, words: str) -> None:
    """Only the service's own series count; one group outside is enough; no data is not well."""
    [finding] = await measured([question], CHAT, TELEMETRY, NOW)

    assert (finding.status, words in finding.summary) == (status, True), finding.summary


def test_the_time_before_the_change_is_not_looked_at() -> None:
    """A query over ten minutes is asked ten minutes after the change has settled, at the earliest."""
    ranges = [asked(below=1), asked(below=1, function="avg_over_time", window="10m")]

    assert longest_window(ranges) == timedelta(minutes=10)
    assert longest_window(ranges[:1]) == timedelta(0)


async def test_a_service_that_is_not_observed_is_unknown() -> None:
    """Without a selector the query would ask about everybody's pods."""
    [finding] = await measured([asked(below=8)], replace(CHAT, selectors={}), TELEMETRY, NOW)

    assert finding.status is Status.UNKNOWN
