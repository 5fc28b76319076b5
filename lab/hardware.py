"""What dcgm-exporter says about the GPUs: one H100 per node, healthy unless a scenario says otherwise."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lab.exposition import Family, Registry

_EVERY_30_S = 2

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


def step(registry: Registry, gpu: Gpu, rng: np.random.Generator, *, busy: bool) -> None:
    """Renew one GPU's series. A GPU that decodes all day is 92 % busy, at 480 W, 62 C and 1900 MHz."""
    labels = gpu.labels()
    noise = rng.lognormal(0, 0.015, 6)
    readings = {
        "DCGM_FI_DEV_SM_CLOCK": round(1900 * noise[0]) if busy else 1980,
        "DCGM_FI_DEV_GPU_TEMP": round((62 if busy else 34) * noise[1]),
        "DCGM_FI_DEV_POWER_USAGE": round((480 if busy else 72) * noise[2], 1),
        "DCGM_FI_DEV_GPU_UTIL": min(100, round(92 * noise[3])) if busy else 0,
        "DCGM_FI_DEV_FB_USED": 73_420 if busy else 4,
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
        registry.set(_FAMILIES["DCGM_EXP_CLOCK_EVENTS_COUNT"], {**labels, "clock_event": event}, 0)
