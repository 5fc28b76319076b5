"""The faults of the engines and of what reaches them: S01 to S14."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.scenarios.decode_regression import DecodeRegression
from lab.scenarios.endless_answers import EndlessAnswers
from lab.scenarios.engine_deadlock import EngineDeadlock
from lab.scenarios.kv_pool_shrunk import KvPoolTooSmall
from lab.scenarios.longer_prompts import LongerPrompts
from lab.scenarios.lost_scrape import LostScrape
from lab.scenarios.memory_config import MemoryMisconfigured
from lab.scenarios.prefix_cache_collapse import PrefixCacheLost
from lab.scenarios.starved_frontend import StarvedFrontend
from lab.scenarios.sticky_sessions import StickySessions
from lab.scenarios.traffic_surge import ScaleOutBlocked, TrafficSurge

if TYPE_CHECKING:
    from lab.scenarios.fault import Fault

FAULTS: Mapping[str, type[Fault]] = {
    fault.id: fault
    for fault in (
        TrafficSurge,
        LongerPrompts,
        KvPoolTooSmall,
        PrefixCacheLost,
        MemoryMisconfigured,
        EngineDeadlock,
        StickySessions,
        ScaleOutBlocked,
        DecodeRegression,
        EndlessAnswers,
        StarvedFrontend,
        LostScrape,
    )
}
