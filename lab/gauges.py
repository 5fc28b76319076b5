"""What the page's status bar shows of the fleet: two readings of the last minute that a scenario is about."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.fleet import Fleet

WINDOW = timedelta(minutes=1)

_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)")
_PARTS = re.compile(r"_(sum|count|bucket)$")

Samples = Mapping[tuple[str, str], float]
"""Each series' value by name and labels, as the exposition writes them; without buckets."""


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """
    One reading: `read` gets the samples of a minute ago, those of now, and the hours between them.

    `unit` is "s" (shown as ms), "share" (shown in percent), or what stands behind the number. None is "cannot tell".
    """

    label: str
    unit: str
    metrics: frozenset[str]
    read: Callable[[Samples, Samples, float], float | None]


def _families(*names: str) -> frozenset[str]:
    """The families that these samples belong to; a counter whose name ends like a histogram's part counts as both."""
    return frozenset({*names, *(_PARTS.sub("", name) for name in names)})


def growth_ratio(label: str, unit: str, part: str, whole: str, *, where: str = "") -> Gauge:
    """How much one counter grew for each unit of the other; `where` is text in the labels of the part."""

    def read(first: Samples, last: Samples, _hours: float) -> float | None:
        grown = total(last, whole) - total(first, whole)
        share = total(last, part, where) - total(first, part, where)
        return share / grown if grown > 0 and share >= 0 else None  # a counter that fell was reset

    return Gauge(label=label, unit=unit, metrics=_families(part, whole), read=read)


def growth_per_hour(label: str, unit: str, counter: str) -> Gauge:
    """A counter's growth by the hour."""

    def read(first: Samples, last: Samples, hours: float) -> float | None:
        grown = total(last, counter) - total(first, counter)
        return grown / hours if hours > 0 and grown >= 0 else None

    return Gauge(label=label, unit=unit, metrics=_families(counter), read=read)


def highest(label: str, unit: str, name: str) -> Gauge:
    """The highest value of a gauge now."""

    def read(_first: Samples, last: Samples, _hours: float) -> float | None:
        return max((value for (each, _), value in last.items() if each == name), default=None)

    return Gauge(label=label, unit=unit, metrics=_families(name), read=read)


MEAN_TTFT = growth_ratio(
    "Mean TTFT", "s", "vllm:time_to_first_token_seconds_sum", "vllm:time_to_first_token_seconds_count"
)
MEAN_ITL = growth_ratio(
    "Mean ITL", "s", "vllm:inter_token_latency_seconds_sum", "vllm:inter_token_latency_seconds_count"
)
PREFIX_HITS = growth_ratio("Prefix hits", "share", "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
VALID_FORMATS = growth_ratio(
    "Valid formats", "share", "llm_app_format_checks_total", "llm_app_format_checks_total", where='result="valid"'
)
HOTTEST_GPU = highest("Hottest GPU", "°C", "DCGM_FI_DEV_GPU_TEMP")
FULLEST_KV = highest("Fullest KV", "share", "vllm:kv_cache_usage_perc")
REFUSED_429 = growth_ratio(
    "Answered 429",
    "share",
    "litellm_deployment_failure_responses_total",
    "litellm_deployment_total_requests_total",
    where='exception_status="429"',
)
WAITING = highest("Longest queue", "requests", "vllm:num_requests_waiting")
REFUSALS = growth_ratio(
    "Refusals", "share", "llm_app_responses_total", "llm_app_responses_total", where='outcome="refusal"'
)
EMPTY_RETRIEVALS = growth_ratio(
    "Empty searches", "share", "llm_app_retrieval_total", "llm_app_retrieval_total", where='outcome="empty"'
)
FAILING_TOOLS = growth_ratio(
    "Failing tools", "share", "llm_app_tool_calls_total", "llm_app_tool_calls_total", where='outcome="error"'
)
ANSWERED_4XX = growth_ratio("Answered 4xx", "share", "http_requests_total", "http_requests_total", where='status="4xx"')
SPENDING = growth_per_hour("Spend", "$/h", "litellm_spend_metric_total")


class FleetGauges:
    """Reads the fleet's own exposition whenever it has moved on; nothing here is known to the product."""

    def __init__(self, fleet: Fleet, gauges: Sequence[Gauge]) -> None:
        self._fleet = fleet
        self._gauges = gauges
        self._metrics = frozenset[str]().union(*(gauge.metrics for gauge in gauges))
        self._seen: deque[tuple[datetime, Samples]] = deque()

    def read(self) -> list[dict[str, Any]]:
        """`label`, `unit` and `value` of each; a rate's value is None until a minute's growth was seen."""
        now = self._fleet.now
        if not self._seen or self._seen[-1][0] != now:
            self._seen.append((now, samples(self._fleet.metrics(only=self._metrics))))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        hours = (ended - began) / timedelta(hours=1)
        return [
            {"label": gauge.label, "unit": gauge.unit, "value": gauge.read(first, last, hours)}
            for gauge in self._gauges
        ]


def samples(exposition: str) -> Samples:
    matches = map(_LINE.match, exposition.splitlines())
    return {(m[1], m[2] or ""): float(m[3]) for m in matches if m and not m[1].endswith("_bucket")}


def total(of: Samples, name: str, where: str = "") -> float:
    """The sum over all series of a name whose labels hold this text."""
    return sum(value for (each, labels), value in of.items() if each == name and where in labels)
