"""GPUs as dcgm-exporter names them, in its old and its new spelling (renamed in DCGM 4.6), and whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from diagnostics.look import Compared, Look
from diagnostics.places import Places, places, where_found
from diagnostics.telemetry.model import Aggregation, Function, Query, Vector

GPU = ("Hostname", "gpu", "UUID")

CLOCK = ("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK_MHZ")
TEMPERATURE = ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS")
POWER = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS")
UTILISATION = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO")
LAST_XID = ("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR")
XID_COUNT = ("DCGM_EXP_XID_ERRORS_COUNT",)
KERNEL_XID = ("watchkeeper_probe_kernel_xid_total",)
SMI_OK = ("watchkeeper_probe_nvidia_smi_ok",)
CLOCK_EVENTS = ("DCGM_EXP_CLOCK_EVENTS_COUNT",)
EVENT_REASONS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
THERMAL_VIOLATION = ("DCGM_FI_DEV_THERMAL_VIOLATION",)
DOUBLE_BIT = ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",)
SINGLE_BIT = ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",)
REMAP_PENDING = ("DCGM_FI_DEV_ROW_REMAP_PENDING",)
REMAP_FAILED = ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED")
RETIRE_PENDING = ("DCGM_FI_DEV_RETIRED_PENDING", "DCGM_FI_DEV_PAGE_RETIRED_PENDING")
REMAPPED_CORRECTABLE = ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL")
REMAPPED_UNCORRECTABLE = ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL")
NVLINK_ERRORS = tuple(
    (f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL", f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_TOTAL")
    for kind in ("REPLAY", "RECOVERY", "CRC_FLIT", "CRC_DATA")
)
NVSWITCH_FATAL = ("DCGM_FI_DEV_NVSWITCH_FATAL_ERRORS",)
FABRIC_MANAGER = ("DCGM_FI_DEV_FABRIC_MANAGER_STATUS",)
FABRIC_HEALTH = ("DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY",)
HEALTH = ("DCGM_EXP_GPU_HEALTH_STATUS",)
RECOVERY_ACTION = ("DCGM_FI_DEV_GPU_RECOVERY_ACTION", "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION")
PCIE_REPLAYS = ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_PCIE_REPLAY_TOTAL")
PCIE_GENERATION = ("DCGM_FI_DEV_PCIE_LINK_GEN",)
PCIE_WIDTH = ("DCGM_FI_DEV_PCIE_LINK_WIDTH",)
PCIE_MOST_GENERATION = ("DCGM_FI_DEV_PCIE_MAX_LINK_GEN",)
PCIE_MOST_WIDTH = ("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",)

RECOVERY_WORDS: Mapping[int, str] = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain peer-to-peer traffic",
    4: "drain the node and reset the GPU",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the system",
}
"""What the driver itself recommends (NVML field 230); 0 is "nothing" and is not in the table."""

Key = tuple[str, ...]
Cells = dict[Key, Compared]
Scope = tuple[tuple[str, str], ...]
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Whose pod a GPU works for, and where it stands."""

    places: Places
    pods: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by UUID

    def pods_of(self, key: Key) -> frozenset[str]:
        """The pods that had this GPU; without DCGM's pod labels, the pod of a node that has only one of ours."""
        node, _, uuid = key
        return self.pods.get(uuid) or self.places.only_pod_on(node)

    def is_strangers(self, key: Key) -> bool:
        """
        Whether DCGM says that a GPU works for somebody else's pods only.

        Believed where it gives some GPU to a pod of ours: otherwise its pod label is dcgm-exporter's own.
        """
        _, _, uuid = key
        pods = self.pods.get(uuid, frozenset())
        if not pods or any(self.places.is_ours(pod) for pod in pods):
            return False
        return any(self.places.is_ours(pod) for others in self.pods.values() for pod in others)

    def where(self, key: Key) -> Scope:
        """A GPU as a measure's scope: node, UUID, and the pod and rack where they are known."""
        node, _, uuid = key
        parts = [("node", node), ("gpu", uuid), *(("pod", pod) for pod in sorted(self.pods_of(key)))]
        rack = self.places.racks.get(node, "")
        return tuple((label, value) for label, value in [*parts, ("rack", rack)] if value)

    def revisions_of(self, key: Key) -> frozenset[str]:
        return frozenset(self.places.revision_of(pod) for pod in self.pods_of(key)) - {""}


NOBODY = Owners(places=Places())
"""For a check that found no GPU to speak of, and so needs not ask whose they are."""


async def owners(look: Look) -> Owners:
    """Join GPUs with pods. `exported_pod` goes before `pod`, which is then dcgm-exporter's own."""
    known, name = await asyncio.gather(places(look), look.exported("gpu", *CLOCK, *LAST_XID))
    if name is None:
        return Owners(places=known)
    query = Query(
        metric=name,
        where=look.where("gpu"),
        function=Function.MAX_OVER_TIME,
        window=look.since_start,
        by=("UUID", "pod", "exported_pod"),
        aggregation=Aggregation.COUNT,
    )
    pods: dict[str, set[str]] = {}
    for uuid, pod, exported in await look.telemetry.vector(query, look.frame.at):
        if uuid and (exported or pod):
            pods.setdefault(uuid, set()).add(exported or pod)
    return Owners(places=known, pods={uuid: frozenset(names) for uuid, names in pods.items()})


def name(key: Key) -> str:
    """A GPU as people find it: node and index."""
    node, index, uuid = key
    return f"GPU {index} of {node}" if index else f"{uuid or 'a GPU'} of {node}"


async def cells(look: Look, names: tuple[str, ...]) -> Cells | None:
    """A gauge per GPU, now and in the baseline, strangers' GPUs left out; None when nobody exports it."""
    spelling = await look.exported("gpu", *names)
    return None if spelling is None else await ours(look, await look.levels(spelling, "gpu", by=GPU))


async def growth(look: Look, names: tuple[str, ...]) -> Vector | None:
    """By how much a count grew per GPU since the baseline, strangers' left out; None when nobody exports it."""
    spelling = await look.exported("gpu", *names)
    return None if spelling is None else await ours(look, await look.increase(spelling, "gpu", by=GPU))


async def peaks(look: Look, names: tuple[str, ...], by: tuple[str, ...] = GPU) -> Vector | None:
    """The highest recent value of a gauge per GPU, strangers' left out; None when nobody exports it."""
    spelling = await look.exported("gpu", *names)
    return None if spelling is None else await ours(look, await look.peak(spelling, "gpu", by=by))


async def ours(look: Look, found: Mapping[Key, _Value]) -> dict[Key, _Value]:
    """What was found on GPUs, without those that DCGM gives to other services; keys begin with GPU's labels."""
    known = await owners(look)
    return {key: value for key, value in found.items() if not known.is_strangers(key[: len(GPU)])}


async def node_where(look: Look, family: str, metric: str) -> dict[str, str] | None:
    """Matchers of a metric that the service's nodes have, or None when nobody exports it."""
    return await where_found(look, family, metric, "node", await _nodes(look))


async def _nodes(look: Look) -> set[str]:
    """The nodes that the service's pods run on or whose GPUs its selector finds."""
    nodes = {place.node for place in (await places(look)).pods.values()}
    if "gpu" in look.target.selectors and (spelling := await look.exported("gpu", *CLOCK, *LAST_XID)):
        query = Query(
            metric=spelling,
            where=look.where("gpu"),
            function=Function.MAX_OVER_TIME,
            window=look.since_start,
            by=("Hostname",),
            aggregation=Aggregation.COUNT,
        )
        nodes |= {node for (node,) in await look.telemetry.vector(query, look.frame.at)}
    return nodes - {""}
