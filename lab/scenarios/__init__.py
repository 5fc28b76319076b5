"""What the lab can play, by the id of the cause that it is about: the demo's six stories, and every other fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.scenarios.fault_drill import FaultDrill
from lab.scenarios.faults import FAULTS
from lab.scenarios.kv_pool_shrunk import KvPoolShrunk
from lab.scenarios.output_format import OutputFormat
from lab.scenarios.prefix_cache_collapse import PrefixCacheCollapse
from lab.scenarios.provider_rate_limit import ProviderRateLimit
from lab.scenarios.runaway_key import RunawayKey
from lab.scenarios.scenario import Scenario
from lab.scenarios.thermal_throttling import ThermalThrottling


class UnknownScenarioError(Exception):
    """No scenario has this id; the message names those that exist."""


SCENARIOS: Mapping[str, Callable[[], Scenario]] = {
    "S04": PrefixCacheCollapse,
    "S03": KvPoolShrunk,
    "G04": ThermalThrottling,
    "Q01": OutputFormat,
    "I01": ProviderRateLimit,
    "X04": RunawayKey,
}


def scenario(id_: str) -> Scenario:
    """The demo's story with this id, else the fault with it. Raises UnknownScenarioError."""
    if id_ in SCENARIOS:
        return SCENARIOS[id_]()
    if id_ in FAULTS:
        fault = FAULTS[id_]
        return FaultDrill(fault(fault.drill_strength))
    raise UnknownScenarioError(f"there is no scenario {id_!r}; there is {', '.join(sorted(FAULTS))}")
