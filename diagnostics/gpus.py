"""GPUs as dcgm-exporter names them, in its old and its new spelling (renamed in DCGM 4.6), and what XIDs mean."""

from __future__ import annotations

from collections.abc import Mapping

GPU = ("Hostname", "gpu", "UUID")

CLOCK = ("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK_MHZ")
TEMPERATURE = ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS")
POWER = ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS")
UTILISATION = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO")
LAST_XID = ("DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR")
XID_COUNT = ("DCGM_EXP_XID_ERRORS_COUNT",)
KERNEL_XID = ("watchkeeper_probe_kernel_xid_total",)
CLOCK_EVENTS = ("DCGM_EXP_CLOCK_EVENTS_COUNT",)
DOUBLE_BIT = ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",)
SINGLE_BIT = ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",)
REMAP_PENDING = ("DCGM_FI_DEV_ROW_REMAP_PENDING",)
REMAP_FAILED = ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED")
REMAPPED_CORRECTABLE = ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL")
REMAPPED_UNCORRECTABLE = ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL")
NVLINK_ERRORS = tuple(
    (f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL", f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_TOTAL")
    for kind in ("REPLAY", "RECOVERY", "CRC_FLIT", "CRC_DATA")
)

XID_SIGNALS: Mapping[int, str] = {
    79: "xid_fallen_off_bus",
    **dict.fromkeys((48, 95, 140, 171, 172), "xid_uncontained_ecc"),
    94: "xid_contained_ecc",
    63: "xid_row_remap",
    64: "xid_row_remap_failure",
    **dict.fromkeys((119, 120), "xid_gsp"),
    **dict.fromkeys((74, *range(144, 151)), "xid_nvlink"),
    **dict.fromkeys((8, 11, 13, 25, 31, 43, 69), "xid_application"),
}
"""XIDs by what they mean to on-call, after NVIDIA's XID catalogue; 45 only follows others and is left out."""

HARMLESS_XIDS = frozenset({37, 43, 45, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 154, 157, 160, 161})
"""XIDs that by themselves ask for nothing now (NVIDIA's immediate action: ignore)."""

XID_WORDS: Mapping[int, str] = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "reset channel, the application died",
    45: "clean-up after another fault",
    46: "GPU timeout",
    48: "double-bit memory error",
    62: "power unit halted",
    63: "memory row remapped",
    64: "row remap failed",
    74: "NVLink error",
    79: "GPU fell off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    119: "firmware (GSP) does not answer",
    120: "firmware (GSP) error",
    140: "unrecovered memory error",
}

Key = tuple[str, ...]


def where(key: Key) -> tuple[tuple[str, str], ...]:
    """A GPU as a measure's scope: its node and UUID."""
    node, _, uuid = key
    return (("node", node), ("gpu", uuid))


def name(key: Key) -> str:
    """A GPU as people find it: node and index."""
    node, index, uuid = key
    return f"GPU {index} of {node}" if index else f"{uuid or 'a GPU'} of {node}"
