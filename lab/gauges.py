"""What the page's status bar shows of the fleet: mean time to first token and prefix hit ratio of the last minute."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from lab.fleet import Fleet

WINDOW = timedelta(minutes=1)

_TTFT = "vllm:time_to_first_token_seconds"
_HITS = "vllm:prefix_cache_hits_total"
_QUERIES = "vllm:prefix_cache_queries_total"
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)")

Totals = Mapping[str, float]


class FleetGauges:
    """Reads the fleet's own exposition whenever it has moved on; nothing here is known to the product."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._seen: deque[tuple[datetime, Totals]] = deque()

    def read(self) -> dict[str, Any]:
        """`ttft_s` and `prefix_hit` (0 to 1), each None until a minute's growth was seen."""
        now = self._fleet.now
        if not self._seen or self._seen[-1][0] != now:
            self._seen.append((now, totals(self._fleet.metrics(only={_TTFT, _HITS, _QUERIES}))))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        first, last = self._seen[0][1], self._seen[-1][1]
        return {
            "ttft_s": _ratio(first, last, f"{_TTFT}_sum", f"{_TTFT}_count"),
            "prefix_hit": _ratio(first, last, _HITS, _QUERIES),
        }


def totals(exposition: str) -> dict[str, float]:
    """The sum over all series of each name."""
    sums: dict[str, float] = {}
    for line in exposition.splitlines():
        match = _LINE.match(line)
        if match and not match[1].endswith("_bucket"):
            sums[match[1]] = sums.get(match[1], 0.0) + float(match[2])
    return sums


def _ratio(first: Totals, last: Totals, part: str, whole: str) -> float | None:
    """How much one counter grew for each unit of the other; None when nothing grew, or a counter was reset."""
    grown = last.get(whole, 0.0) - first.get(whole, 0.0)
    share = last.get(part, 0.0) - first.get(part, 0.0)
    return share / grown if grown > 0 and share >= 0 else None
