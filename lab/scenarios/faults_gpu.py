"""The faults of the GPUs and of what is around them: G01 to G11."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.scenarios.bad_image import BadImage
from lab.scenarios.gpu_firmware_hang import GpuFirmwareHang
from lab.scenarios.gpu_lost import GpuLost
from lab.scenarios.gpu_memory_errors import ContainedMemoryError, CorrectedMemoryError, UncontainedMemoryError
from lab.scenarios.nvlink_errors import NvlinkErrors
from lab.scenarios.rack_power import RackPower
from lab.scenarios.silent_corruption import SilentCorruption
from lab.scenarios.thermal_throttling import Overheating

if TYPE_CHECKING:
    from lab.scenarios.fault import Fault

FAULTS: Mapping[str, type[Fault]] = {
    fault.id: fault
    for fault in (
        GpuLost,
        UncontainedMemoryError,
        ContainedMemoryError,
        Overheating,
        RackPower,
        NvlinkErrors,
        BadImage,
        GpuFirmwareHang,
        SilentCorruption,
        CorrectedMemoryError,
    )
}
