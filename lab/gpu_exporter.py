"""What dcgm-exporter and Watchkeeper's own probe say about the GPU nodes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from lab.cluster import Cluster
from lab.cluster_objects import GPU, NAMESPACE
from lab.exposition import Family, Registry, counter
from lab.hardware import NVLINK_ERRORS, Chip, Hardware

EVERY = 2
"""The exporter is scraped every 30 s: at every second step."""

_GOLDEN_EVERY, _GOLDEN_PROMPTS = 16, 20
"""Every four minutes each pod answers twenty fixed prompts at temperature 0, which are compared with its peers'."""
_SCHEDULING = 0.002
"""Even sound engines differ now and then: batches of other sizes round in another order."""

_IDLE_MHZ, _IDLE_W, _HUNG_W, _SPINNING_W = 1980, 72, 120, 160
_LINK_SHARES = dict(zip(NVLINK_ERRORS, (0.45, 0.05, 0.35, 0.15), strict=True))
_LINK_ERRORS = 15.0  # per 30 s

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
    "DCGM_FI_DEV_GPU_RECOVERY_ACTION": "What the driver recommends: 0 nothing, 1 reset the GPU, 2 reboot the node.",
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
    "DCGM_FI_DEV_POWER_VIOLATION": "Time with clocks held back for power (ns).",
    "DCGM_FI_DEV_THERMAL_VIOLATION": "Time with clocks held back for heat (ns).",
    **{f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL": f"NVLink errors ({kind}), all links." for kind in NVLINK_ERRORS},
}
_FAMILIES = {
    **{name: Family(name=name, kind="gauge", help=text, steps=EVERY) for name, text in _GAUGES.items()},
    **{name: Family(name=name, kind="counter", help=text, steps=EVERY) for name, text in _COUNTERS.items()},
}
_CLOCK_EVENTS = ("hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal", "power_cap")
_NS = 1e9 * 30

SMI_OK = Family(name="watchkeeper_probe_nvidia_smi_ok", kind="gauge", help="Whether nvidia-smi answers in time.")
KERNEL_XID = counter("watchkeeper_probe_kernel_xid_total", "XIDs in the kernel's log.")
GOLDEN = Family(
    name="watchkeeper_probe_golden_prompt_mismatch_ratio",
    kind="gauge",
    help="Share of fixed prompts whose answer differs from most of the pod's peers.",
)


class Activity(StrEnum):
    """What a GPU does: compute, wait for work, wait for its own firmware, or run a kernel that never ends."""

    BUSY = "busy"
    IDLE = "idle"
    HUNG = "hung"
    SPINNING = "spinning"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU and the pod that has it; `pod` is empty for one that waits for work."""

    node: str
    index: int = 0
    pod: str = ""

    @property
    def uuid(self) -> str:
        place = f"gpu.{self.index or ''}{self.node}.lab"
        return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, place)}"

    def labels(self) -> Mapping[str, str]:
        return {
            "gpu": str(self.index),
            "UUID": self.uuid,
            "device": f"nvidia{self.index}",
            "modelName": "NVIDIA H100 80GB HBM3",
            "Hostname": self.node,
            "namespace": NAMESPACE if self.pod else "",
            "pod": self.pod,
        }


@dataclass(kw_only=True)
class GpuExporter:
    """Renews the series of every GPU in the cluster, and of the probe that runs on each node."""

    registry: Registry
    cluster: Cluster
    hardware: Hardware
    rng: np.random.Generator
    _gpus: dict[tuple[str, int], Gpu] = field(default_factory=dict)

    def step(self, step: int, users: Mapping[str, str], activities: Mapping[str, Activity]) -> None:
        """`users` are the pods by node, `activities` what their GPUs do; GPUs of other nodes are idle."""
        for name, node in self.cluster.kinds["nodes"].items():
            gpus = int(node["status"]["capacity"].get(GPU, "0"))
            if gpus:
                self._probe_node(name, gpus)
            for index in range(gpus if step % EVERY == 0 else 0):
                self._follow(Gpu(node=name, index=index, pod=users.get(name, "")), activities.get(name, Activity.IDLE))
        if step % _GOLDEN_EVERY == 0:
            for name, pod in users.items():
                wrong = min(1.0, _SCHEDULING + 1.5 * self.hardware.corrupts(name))
                ratio = int(self.rng.binomial(_GOLDEN_PROMPTS, wrong)) / _GOLDEN_PROMPTS
                self.registry.set(GOLDEN, {"namespace": NAMESPACE, "pod": pod}, ratio)

    def _probe_node(self, name: str, gpus: int) -> None:
        self.registry.set(SMI_OK, {"node": name}, int(not self.hardware.is_stalled(name)))
        for index in range(gpus):
            gpu = {"node": name, "gpu": str(index), "UUID": Gpu(node=name, index=index).uuid}
            for xid, seen in {0: 0, **self.hardware.chip(name, index).xids}.items():
                self.registry.set(KERNEL_XID, {**gpu, "xid": str(xid)}, seen)

    def _follow(self, gpu: Gpu, activity: Activity) -> None:
        """The exporter labels a GPU by the pod that has it, and does not name one that does not answer."""
        before = self._gpus.pop((gpu.node, gpu.index), None)
        silent_from = self.hardware.chip(gpu.node, gpu.index).silent_from
        is_silent = silent_from is not None and self.hardware.now >= silent_from
        if before is not None and (before != gpu or is_silent):
            self._forget(before)
        if not is_silent:
            self._gpus[gpu.node, gpu.index] = gpu
            self._export(gpu, activity)

    def _forget(self, gpu: Gpu) -> None:
        for series in self.registry.series:
            if series.family.name in _FAMILIES and series.labels.get("UUID") == gpu.uuid:
                self.registry.values[series.index] = np.nan

    def _export(self, gpu: Gpu, activity: Activity) -> None:
        labels, chip = gpu.labels(), self.hardware.chip(gpu.node, gpu.index)
        for name, value in {**self._readings(gpu, activity), **_memory(chip)}.items():
            self.registry.set(_FAMILIES[name], labels, value)
        for name, amount in self._growth(gpu.node, chip).items():
            self.registry.add(_FAMILIES[name], labels, amount)
        counts = _FAMILIES["DCGM_EXP_XID_ERRORS_COUNT"]
        self.registry.set(counts, {**labels, "xid": "0"}, 0)
        for xid in chip.xids:
            self.registry.set(counts, {**labels, "xid": str(xid)}, chip.recent(xid, self.hardware.now))
        for event in _CLOCK_EVENTS:
            held_back = self.hardware.clock_events(gpu.node, event)
            self.registry.set(_FAMILIES["DCGM_EXP_CLOCK_EVENTS_COUNT"], {**labels, "clock_event": event}, held_back)

    def _readings(self, gpu: Gpu, activity: Activity) -> dict[str, float]:
        """The sensors. A cool GPU that decodes all day is 92 % busy, at 480 W, 62 C and 1900 MHz."""
        noise = self.rng.lognormal(0, 0.015, 6)
        is_busy = activity is Activity.BUSY
        watts = {
            Activity.BUSY: self.hardware.power_w(gpu.node),
            Activity.IDLE: _IDLE_W,
            Activity.HUNG: _HUNG_W,
            Activity.SPINNING: _SPINNING_W,
        }
        busy_util = min(100, round(92 * self.hardware.drive(gpu.node).util * noise[3]))
        util = {Activity.BUSY: busy_util, Activity.SPINNING: 100}
        is_idle = activity is Activity.IDLE
        return {
            "DCGM_FI_DEV_SM_CLOCK": _IDLE_MHZ if is_idle else round(self.hardware.clock_mhz(gpu.node) * noise[0]),
            "DCGM_FI_DEV_GPU_TEMP": round(self.hardware.temperature_c(gpu.node) * noise[1]),
            "DCGM_FI_DEV_POWER_USAGE": round(watts[activity] * noise[2], 1),
            "DCGM_FI_DEV_GPU_UTIL": util.get(activity, 0),
            "DCGM_FI_DEV_FB_USED": 73_420 if gpu.pod else 4,
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": round(0.31 * noise[4], 3) if is_busy else 0,
            "DCGM_FI_PROF_DRAM_ACTIVE": round(0.58 * noise[5], 3) if is_busy else 0,
        }

    def _growth(self, node: str, chip: Chip) -> dict[str, float]:
        """What the counters gain in one of the exporter's intervals."""
        hot = self.hardware.is_held_back_by(node, "sw_thermal", "hw_thermal")
        weak = self.hardware.is_held_back_by(node, "hw_power_brake", "power_cap")
        errors = chip.link_faults * _LINK_ERRORS
        return {
            "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 0,
            "DCGM_FI_DEV_THERMAL_VIOLATION": _NS if hot else 0,
            "DCGM_FI_DEV_POWER_VIOLATION": _NS if weak else 0,
            **{
                f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL": int(self.rng.poisson(errors * share)) if errors else 0
                for kind, share in _LINK_SHARES.items()
            },
        }


def _memory(chip: Chip) -> dict[str, float]:
    """What the driver remembers of a chip's faults, until the driver is loaded again."""
    return {
        "DCGM_FI_DEV_XID_ERRORS": chip.last_xid,
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": int(chip.is_remap_failed),
        "DCGM_FI_DEV_ROW_REMAP_PENDING": int(chip.is_remap_pending),
        "DCGM_FI_DEV_GPU_RECOVERY_ACTION": chip.recovery_action,
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": chip.remapped_uncorrectable,
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": chip.remapped_correctable,
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": chip.single_bit_errors,
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": chip.double_bit_errors,
    }


def advertise(cluster: Cluster, hardware: Hardware) -> None:
    """As the device plugin does: a GPU that is gone from the bus is not offered to pods any more."""
    for name, node in cluster.kinds["nodes"].items():
        if GPU in node["status"]["capacity"]:
            left = str(max(0, int(node["status"]["capacity"][GPU]) - hardware.lost(name)))
            if node["status"]["allocatable"][GPU] != left:
                node["status"]["allocatable"][GPU] = left
                cluster.put("nodes", node)
