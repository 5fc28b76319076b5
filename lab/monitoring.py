"""What the monitoring sees: a scrape may break while everything else is well."""

from __future__ import annotations

from dataclasses import dataclass, field

SERVING_FAMILIES = ("vllm:", "process_start_time_seconds")


@dataclass(kw_only=True)
class Monitoring:
    """
    The scrape jobs that are broken, by the deployment whose pods they scrape: their series vanish.

    A job in `lost_jobs` is tried in vain, so that its `up` is 0; one in `removed_jobs` is not tried, so that it has
    no `up` either. The exporters count on, whoever reads them.
    """

    lost_jobs: set[str] = field(default_factory=set)
    removed_jobs: set[str] = field(default_factory=set)

    @property
    def unread(self) -> set[str]:
        return self.lost_jobs | self.removed_jobs
