"""The tools that agents call: which exist, how often they fail, and how often they write."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Tools:
    """`error_ratio` by tool (0.007 for one that is not named); `writes` is the share of calls that change something."""

    names: tuple[str, ...] = ("search_orders", "create_ticket", "calendar")
    error_ratio: dict[str, float] = field(default_factory=dict)
    writes: dict[str, float] = field(default_factory=dict)
