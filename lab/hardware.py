"""What dcgm-exporter says about the GPUs: one H100 per node, healthy unless a scenario says otherwise."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import exp

import numpy as np

from lab.exposition import STEP, Family, Registry

_EVERY_30_S = 2

_IDLE_C, _BUSY_C = 34.0, 62.0
_UNCOOLED_IDLE_C, _UNCOOLED_BUSY_C = 47.0, 89.0
_NEIGHBOUR_C = 4.0
"""What a GPU gains from air that an uncooled, busy node of its rack has warmed."""
_WARMING_S, _UNCOOLED_WARMING_S = 45.0, 150.0
"""Time constants: with its fans a GPU settles in two minutes; without them it creeps, six minutes for nine tenths."""

_IDLE_MHZ, _BUSY_MHZ, _LOWEST_MHZ = 1980, 1900, 1100
_SLOWDOWN_FROM_C, _SLOWEST_AT_C = 78.0, 87.0
_IDLE_W, _BUSY_W, _SLOWEST_W = 72, 480, 350
_SLOWNESS_EXPONENT = 0.65
"""A decode waits for memory as well as for the clock: 1100 of 1900 MHz make it slower by 1.43, not by 1.73."""

# The counters for ECC, XIDs and clock events are off in the exporter's default list; this cluster has them on.
_GAUGES = {
    "DCGM_FI_DEV_SM_CLOCK": "SM clock (MHz).",
    "DCGM_FI_DEV_GPU_TEMP": "GPU temperature (C).",
    "DCGM_FI_DEV_POWER_USAGE": "Power draw (W).",
    "DCGM_FI_DEV_GPU_UTIL": "Share of time with a kernel resident (%).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer used (MiB).",
    "DCGM_FI_DEV_XID_ERRORS": "The last XID, sticky.",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": "Whether remapping of rows failed.",
    "DCGM_FI_DEV_ROW_REMAP_PENDING": "Whether a row remap waits for a reset.",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "Share of cycles with the tensor pipe active.",
    "DCGM_FI_PROF_DRAM_ACTIVE": "Share of cycles with memory active.",
    "DCGM_EXP_XID_ERRORS_COUNT": "XIDs in the last five minutes.",
    "DCGM_EXP_CLOCK_EVENTS_COUNT": "Clock events in the last five minutes.",
}
_COUNTERS = {
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "PCIe replays.",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "Rows remapped for uncorrectable errors.",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": "Rows remapped for correctable errors.",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": "Single-bit errors since the driver was loaded.",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": "Double-bit errors since the driver was loaded.",
}
_FAMILIES = {
    **{name: Family(name=name, kind="gauge", help=text, steps=_EVERY_30_S) for name, text in _GAUGES.items()},
    **{name: Family(name=name, kind="counter", help=text, steps=_EVERY_30_S) for name, text in _COUNTERS.items()},
}
_CLOCK_EVENTS = ("hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU and the pod that has it; `pod` is empty for one that waits for work."""

    node: str
    pod: str = ""
    namespace: str = ""

    def labels(self) -> Mapping[str, str]:
        chip = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"gpu.{self.node}.lab"))
        return {
            "gpu": "0",
            "UUID": f"GPU-{chip}",
            "device": "nvidia0",
            "modelName": "NVIDIA H100 80GB HBM3",
            "Hostname": self.node,
            "namespace": self.namespace,
            "pod": self.pod,
        }


@dataclass(kw_only=True)
class Hardware:
    """
    How warm each node's GPU is, and which nodes have lost their cooling.

    A temperature moves to where load and cooling let it settle. From 78 C on a GPU lowers its clock, down to 1100 MHz
    at 87 C. A node that gets its load taken away cools, but stays warmer than one whose cooling works.
    """

    uncooled: set[str] = field(default_factory=set)
    _temperatures: dict[str, float] = field(default_factory=dict)
    _throttled: dict[str, deque[bool]] = field(default_factory=dict)

    def step(self, racks: Mapping[str, str], busy: AbstractSet[str]) -> None:
        """Let one scrape interval pass over these nodes, given by name with the rack of each."""
        warm_racks = {racks[node] for node in self.uncooled & busy & racks.keys()}
        for node, rack in racks.items():
            target = self._settles_at(node, is_busy=node in busy)
            if rack in warm_racks and node not in self.uncooled:
                target += _NEIGHBOUR_C
            constant_s = _UNCOOLED_WARMING_S if node in self.uncooled else _WARMING_S
            share = 1 - exp(-STEP.total_seconds() / constant_s)
            before = self._temperatures.get(node, target)
            self._temperatures[node] = before + share * (target - before)
            recent = self._throttled.setdefault(node, deque(maxlen=round(300 / STEP.total_seconds())))
            recent.append(node in busy and self._heat(node) > 0)

    def _settles_at(self, node: str, *, is_busy: bool) -> float:
        if node in self.uncooled:
            return _UNCOOLED_BUSY_C if is_busy else _UNCOOLED_IDLE_C
        return _BUSY_C if is_busy else _IDLE_C

    def temperature_c(self, node: str) -> float:
        return self._temperatures.get(node, _IDLE_C)

    def _heat(self, node: str) -> float:
        """0 while the GPU may run as fast as it can, 1 at its lowest clock."""
        over = self.temperature_c(node) - _SLOWDOWN_FROM_C
        return min(1.0, max(0.0, over / (_SLOWEST_AT_C - _SLOWDOWN_FROM_C)))

    def clock_mhz(self, node: str) -> float:
        """Of a busy GPU."""
        return _BUSY_MHZ - self._heat(node) * (_BUSY_MHZ - _LOWEST_MHZ)

    def power_w(self, node: str) -> float:
        """Of a busy GPU."""
        return _BUSY_W - self._heat(node) * (_BUSY_W - _SLOWEST_W)

    def slowness(self, node: str) -> float:
        """By how much this node's GPU decodes slower than one that is cool."""
        return float((_BUSY_MHZ / self.clock_mhz(node)) ** _SLOWNESS_EXPONENT)

    def thermal_events(self, node: str) -> int:
        """How many scrape intervals of the last five minutes the clock was held back in."""
        return sum(self._throttled.get(node, ()))


def export(registry: Registry, gpu: Gpu, hardware: Hardware, rng: np.random.Generator, *, busy: bool) -> None:
    """Renew one GPU's series. A cool GPU that decodes all day is 92 % busy, at 480 W, 62 C and 1900 MHz."""
    labels = gpu.labels()
    noise = rng.lognormal(0, 0.015, 6)
    readings = {
        "DCGM_FI_DEV_SM_CLOCK": round(hardware.clock_mhz(gpu.node) * noise[0]) if busy else _IDLE_MHZ,
        "DCGM_FI_DEV_GPU_TEMP": round(hardware.temperature_c(gpu.node) * noise[1]),
        "DCGM_FI_DEV_POWER_USAGE": round((hardware.power_w(gpu.node) if busy else _IDLE_W) * noise[2], 1),
        "DCGM_FI_DEV_GPU_UTIL": min(100, round(92 * noise[3])) if busy else 0,
        "DCGM_FI_DEV_FB_USED": 73_420 if gpu.pod else 4,
        "DCGM_FI_DEV_XID_ERRORS": 0,
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
        "DCGM_FI_DEV_ROW_REMAP_PENDING": 0,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": round(0.31 * noise[4], 3) if busy else 0,
        "DCGM_FI_PROF_DRAM_ACTIVE": round(0.58 * noise[5], 3) if busy else 0,
    }
    for name, value in readings.items():
        registry.set(_FAMILIES[name], labels, value)
    for name in _COUNTERS:
        registry.add(_FAMILIES[name], labels, 0)
    registry.set(_FAMILIES["DCGM_EXP_XID_ERRORS_COUNT"], {**labels, "xid": "0"}, 0)
    for event in _CLOCK_EVENTS:
        count = hardware.thermal_events(gpu.node) if event == "sw_thermal" else 0
        registry.set(_FAMILIES["DCGM_EXP_CLOCK_EVENTS_COUNT"], {**labels, "clock_event": event}, count)
