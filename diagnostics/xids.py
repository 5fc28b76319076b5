"""
What each XID means and what to do about it: NVIDIA's catalogue as a table.

`action` is NVIDIA's immediate action (docs.nvidia.com/deploy/xid-errors, analyzing the XID catalogue); `kind` is ours,
taken from it and from what gpud does in practice. Where the two disagree (63, 64, 94, 109) NVIDIA's word counts, and a
GPU's own recovery action (DCGM field 1523, NVML field 230) counts more than any table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Who has to move when an XID appears; the value is said to people."""

    APPLICATION = "the workload is at fault unless one GPU shows it under several workloads"
    IGNORE = "nothing to do now"
    WATCH = "watch whether it comes back"
    RESET = "drain the node and reset the GPU"
    REBOOT = "drain the node and reboot it"
    REPLACE = "a hardware visit"
    LINK = "check the NVLink fabric, then reset the GPUs"


@dataclass(frozen=True, kw_only=True)
class Xid:
    """One code: what it means, what NVIDIA says to do, and what that comes to."""

    code: int
    meaning: str
    action: str
    kind: Kind


_RESTART_APP = "restart the application"
_RESET = "reset the GPU"
_IGNORE = "ignore"
_MEMORY_FLOW = "with 63 or 64 drain and reset, otherwise reset"
_NVLINK_FLOW = "follow the NVLink workflow"
_SUPPORT = "contact support"
_NONE = "none given"

# codes, meaning, NVIDIA's immediate action, our kind
_TABLE: tuple[tuple[tuple[int, ...], str, str, Kind], ...] = (
    ((8,), "the GPU stopped processing", _RESTART_APP, Kind.APPLICATION),
    ((11, 25), "corrupted or illegal push buffer", _RESTART_APP, Kind.APPLICATION),
    ((13,), "graphics engine exception", _RESTART_APP, Kind.APPLICATION),
    ((31,), "memory page fault", _RESTART_APP, Kind.APPLICATION),
    ((32,), "push-buffer DMA error", _RESTART_APP, Kind.APPLICATION),
    ((37,), "unimplemented method", _IGNORE, Kind.IGNORE),
    ((38,), "context-switch firmware watchdog", _IGNORE, Kind.REBOOT),
    ((39, 40, 41, 70, 71, 72, 75, 76, 77, 85), "copy engine exception", _RESTART_APP, Kind.APPLICATION),
    (tuple(range(126, 136)), "copy engine exception", _RESTART_APP, Kind.APPLICATION),
    ((43,), "reset channel, the application died", _IGNORE, Kind.APPLICATION),
    ((44,), "fault during a context switch", _IGNORE, Kind.REBOOT),
    ((45,), "clean-up after another fault", "follow the other XID; alone, restart the application", Kind.IGNORE),
    ((46,), "GPU timeout", _RESET, Kind.RESET),
    ((48,), "double-bit memory error", _MEMORY_FLOW, Kind.RESET),
    ((54,), "auxiliary power not connected", "check the mechanical parts", Kind.REPLACE),
    ((61,), "power unit breakpoint", _RESET, Kind.RESET),
    ((62,), "power unit halted", _RESET, Kind.RESET),
    ((63,), "memory row remapped", _IGNORE, Kind.IGNORE),
    ((64,), "row remap failed", _RESET, Kind.RESET),
    ((66, 67), "illegal access by the driver", _IGNORE, Kind.IGNORE),
    ((68, 83, 84, 88, 89, 96, 97, 98), "video decoder error", _RESTART_APP, Kind.APPLICATION),
    ((69,), "graphics class error", _RESTART_APP, Kind.APPLICATION),
    ((74,), "NVLink error", _NVLINK_FLOW, Kind.LINK),
    ((78,), "vGPU start error", "update software and firmware", Kind.WATCH),
    ((79,), "GPU fell off the bus", "restart the bare metal", Kind.REBOOT),
    ((80,), "push-buffer checksum mismatch", _RESTART_APP, Kind.APPLICATION),
    ((82, 86, *range(99, 106), 139, 142), "media engine error", _RESTART_APP, Kind.APPLICATION),
    ((92,), "many corrected memory errors", _IGNORE, Kind.WATCH),
    ((93,), "InfoROM wear", _IGNORE, Kind.IGNORE),
    ((94,), "contained memory error", _RESTART_APP, Kind.APPLICATION),
    ((95,), "uncontained memory error", _RESET, Kind.RESET),
    ((106, 107, 152, 153, 160, 161), "test message or accelerator notice", _IGNORE, Kind.IGNORE),
    ((109,), "context switch timeout", _RESET, Kind.RESET),
    ((110,), "security fault", _RESET, Kind.RESET),
    ((119,), "firmware (GSP) does not answer", _RESET, Kind.RESET),
    ((120,), "firmware (GSP) error", _RESET, Kind.RESET),
    ((121,), "chip-to-chip link error, corrected", _IGNORE, Kind.WATCH),
    ((136,), "link training failed", _RESET, Kind.LINK),
    ((137,), "NVLink privilege error", _IGNORE, Kind.APPLICATION),
    ((140,), "unrecovered memory error", _RESET, Kind.RESET),
    ((141,), "CUDA fast path notice", _IGNORE, Kind.IGNORE),
    ((143,), "GPU initialisation error", _RESET, Kind.RESET),
    (tuple(range(144, 151)), "NVLink 5 error", _NVLINK_FLOW, Kind.LINK),
    ((151,), "key rotation failed", "restart the virtual machine", Kind.REBOOT),
    ((154,), "the recovery action changed", "read the GPU's recovery action", Kind.WATCH),
    ((155, 156, 158), "NVLink software error, resource retirement or fatal timeout", _RESET, Kind.RESET),
    ((157,), "resource retirement failed", _IGNORE, Kind.IGNORE),
    ((159,), "interconnect data error", "check unified memory", Kind.WATCH),
    ((162, 164, 165, 168, 170, 173), "power smoothing or reduced capacity notice", _NONE, Kind.WATCH),
    ((163, 166, 167, 169), "PCIe fatal timeout, security processor halt or secure link error", _NONE, Kind.REBOOT),
    ((171,), "uncorrectable memory error, DRAM", _MEMORY_FLOW, Kind.RESET),
    ((172,), "uncorrectable memory error, SRAM", _MEMORY_FLOW, Kind.RESET),
    (
        (9, 12, 16, 18, 19, *range(26, 31), *range(33, 37), 42, 47, 59, 60, 65, 81, 123),
        "unused code",
        _SUPPORT,
        Kind.REBOOT,
    ),
)

REPLACE_ON_REPEAT = frozenset({48, 62, 64, 79, 140, 143, 171, 172})
"""Codes of which a second one on the same GPU asks for a field diagnosis."""


def _rows() -> Iterator[Xid]:
    for codes, meaning, action, kind in _TABLE:
        for code in codes:
            yield Xid(code=code, meaning=meaning, action=action, kind=kind)


XIDS: Mapping[int, Xid] = {row.code: row for row in _rows()}

BLAMES_THE_WORKLOAD = frozenset({8, 11, 13, 25, 31, 43, 45, 69})
"""Codes that software brings on: seen on two nodes they are the software's, on one GPU under many workloads its own."""

SIGNALS: Mapping[int, str] = {
    79: "xid_fallen_off_bus",
    **dict.fromkeys((48, 95, 140, 171, 172), "xid_uncontained_ecc"),
    94: "xid_contained_ecc",
    63: "xid_row_remap",
    64: "xid_row_remap_failure",
    **dict.fromkeys((119, 120), "xid_gsp"),
    **dict.fromkeys((74, 136, *range(144, 151)), "xid_nvlink"),
    **dict.fromkeys(BLAMES_THE_WORKLOAD - {45}, "xid_application"),  # 45 only follows others
}
"""The codes that the causes reason with, as their signals."""


def signal_of(code: int) -> str | None:
    """The signal a code counts towards; other codes that need a person are `xid_other`, harmless ones none."""
    known = SIGNALS.get(code)
    if known is not None:
        return known
    return "xid_other" if needs_action(code) and kind_of(code) is not Kind.APPLICATION else None


def kind_of(code: int) -> Kind:
    """What a code asks for; a code that is not in the table is watched."""
    return XIDS[code].kind if code in XIDS else Kind.WATCH


def needs_action(code: int) -> bool:
    """Whether somebody must do something because of this code alone; some of an application's are to be ignored."""
    row = XIDS.get(code)
    if row is None or row.kind in {Kind.IGNORE, Kind.WATCH}:
        return False
    return row.kind is not Kind.APPLICATION or row.action != _IGNORE


def in_words(code: int) -> str:
    """ "XID 79 (GPU fell off the bus)"; the number alone for a code that is not in the table."""
    return f"XID {code} ({XIDS[code].meaning})" if code in XIDS else f"XID {code}"
