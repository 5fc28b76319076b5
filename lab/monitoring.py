"""What the monitoring sees: a scrape may break while everything else is well."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Monitoring:
    """`lost_jobs` are the scrape jobs that stopped answering: their series vanish and their `up` is 0 or gone."""

    lost_jobs: set[str] = field(default_factory=set)
