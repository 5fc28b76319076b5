"""A fault of the GPU family in a small world, and the readings that tell what it did there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from lab.cluster import ENGINE
from lab.scenarios.fault import Fault
from lab.scenarios.faults_gpu import FAULTS
from lab.scenarios.node_fault import NodeFault
from tests.lab.played_worlds import LIVE_START, SmallWorld

WINDOW = timedelta(minutes=4)
MEANS = {
    "itl": "vllm:inter_token_latency_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "ttft": "vllm:time_to_first_token_seconds",
    "output": "vllm:request_generation_tokens",
}


@dataclass(kw_only=True)
class Played:
    """A world and the fault that is about to happen in it."""

    world: SmallWorld
    fault: Fault
    at: datetime = LIVE_START

    def breaks(self, wait: timedelta = timedelta(0)) -> None:
        self.at = self.world.fleet.now
        self.fault.begin(self.world.stage, self.at)
        self.fault.apply(self.world.stage, 1.0, self.at)
        self.world.pass_time(wait)

    def heals(self, wait: timedelta) -> None:
        self.fault.apply(self.world.stage, 0.0, self.world.fleet.now)
        self.world.pass_time(wait)

    @property
    def node(self) -> str:
        assert isinstance(self.fault, NodeFault)
        return self.fault.node

    def pods(self) -> dict[str, str]:
        """Node -> pod, of those that serve."""
        return {replica.labels["node"]: pod for pod, replica in self.world.fleet._replicas.items()}

    def means(self, over: timedelta = WINDOW) -> dict[str, dict[str, float]]:
        """Signal -> node -> its mean over the time that passes now; `rps` and `5xx` ("" is the fleet) among them."""
        before, pods = self._counts(), self.pods()
        self.world.pass_time(over)
        grown = {key: value - before[key] for key, value in self._counts(pods).items()}
        found = {
            name: {node: grown[family, node, "sum"] / (grown[family, node, "count"] or np.nan) for node in pods}
            for name, family in MEANS.items()
        }
        found["rps"] = {node: grown[MEANS["ttft"], node, "count"] / over.total_seconds() for node in pods}
        found["steps"] = {node: grown["steps", node, ""] / over.total_seconds() for node in pods}
        found["5xx"] = {"": grown["5xx", "", ""] / grown["http", "", ""]}
        return found

    def _counts(self, pods: dict[str, str] | None = None) -> dict[tuple[str, str, str], float]:
        total = self.world.total
        parts = {
            (family, node, part): total(f"{family}_{part}", pod=pod)
            for family in MEANS.values()
            for node, pod in (pods or self.pods()).items()
            for part in ("sum", "count")
        }
        for node, pod in (pods or self.pods()).items():
            parts["steps", node, ""] = total("vllm:iteration_tokens_total_count", pod=pod)
        parts["5xx", "", ""] = total("http_requests_total", status="5xx")
        parts["http", "", ""] = total("http_requests_total")
        return parts

    def gpu(self, name: str, node: str = "", **where: str) -> float:
        """A DCGM reading of the node's first GPU; NaN when it is not exported now."""
        where |= {"Hostname": node or self.node, "gpu": "0"}
        series = self.world.fleet.registry.series
        places = [s.index for s in series if s.family.name == name and where.items() <= s.labels.items()]
        values = self.world.fleet.registry.values[places]
        living = values[~np.isnan(values)]
        return float(living.sum()) if living.size else float("nan")

    def xids(self) -> dict[str, set[str]]:
        """XID -> the nodes whose kernel has logged it."""
        seen: dict[str, set[str]] = {}
        for series in self.world.fleet.registry.series:
            is_xid = series.family.name == "watchkeeper_probe_kernel_xid_total"
            if is_xid and self.world.fleet.registry.values[series.index] > 0:
                seen.setdefault(series.labels["xid"], set()).add(series.labels["node"])
        return seen

    def forms(self) -> dict[str, tuple[float, float]]:
        """Pod -> answers in a valid form, and all that were checked, up to now."""
        name, total = "llm_app_format_checks_total", self.world.total
        return {pod: (total(name, pod=pod, result="valid"), total(name, pod=pod)) for pod in self.pods().values()}

    def available(self) -> int:
        return int(self.world.cluster.get("deployments", ENGINE)["status"]["availableReplicas"])

    def others(self, signal: dict[str, float]) -> list[float]:
        return [value for node, value in signal.items() if node not in self.victims()]

    def victims(self) -> set[str]:
        return {self.node}


def play(id_: str, *, seed: int = 5, strength: float = 1.0) -> Played:
    """A minute of peace, with the fault drawn."""
    fault = FAULTS[id_](strength)
    world = SmallWorld(seed=seed, fault=fault)
    fault.draw(world.stage)
    world.pass_time(timedelta(minutes=1))
    return Played(world=world, fault=fault)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)
