"""What the NVIDIA driver on this machine says about its GPUs, read through NVML (the package nvidia-ml-py)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RESET = 1  # of the recovery actions
RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
GPU_IS_LOST = 15
RESET_REQUIRED = 16


class DriverError(Exception):
    """The driver cannot be asked: no NVML library, no driver, or an error for the whole machine."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """
    One GPU at one moment; None for what it does not support.

    `is_lost` says that the driver has lost it (it then answers nothing else). `event_reasons` is NVML's mask of why the
    clock is lowered, `recovery_action` NVML's number (0: nothing; 1, a reset, also where an error asks for it).
    """

    index: int
    uuid: str = ""
    name: str = ""
    pci: str = ""
    is_lost: bool = False
    sm_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    utilisation: int | None = None
    event_reasons: int | None = None
    ecc_double_bit: int | None = None
    ecc_single_bit: int | None = None
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    remap_pending: int | None = None
    remap_failed: int | None = None
    pcie_replays: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_most_generation: int | None = None
    pcie_most_width: int | None = None
    recovery_action: int | None = None


def load() -> Any:
    """The module pynvml. Raises DriverError with the install command where it is not there."""
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise DriverError("nvidia-ml-py is not installed: pip install 'watchkeeper[nvml]'") from error


def read_gpus(nvml: Any) -> list[GpuReading]:
    """
    Ask the driver about every GPU. Blocks, and hangs where the driver hangs: call it in a thread with a limit.

    A GPU that is lost is among them; one that does not support a field has None there. Raises DriverError.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise DriverError(f"NVML cannot be initialised: {error}") from error
    try:
        return [_read(nvml, index) for index in range(int(nvml.nvmlDeviceGetCount()))]
    except nvml.NVMLError as error:
        raise DriverError(f"NVML does not count the GPUs: {error}") from error
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> GpuReading:
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, pci = _text(nvml.nvmlDeviceGetUUID(device)), _text(nvml.nvmlDeviceGetPciInfo(device).busId)
    except nvml.NVMLError as error:
        wants = RESET if error.value == RESET_REQUIRED else None
        return GpuReading(index=index, is_lost=error.value == GPU_IS_LOST, recovery_action=wants)
    asked = _Asked(nvml, device)
    remapped = asked.get("nvmlDeviceGetRemappedRows") or (None, None, None, None)
    rates = asked.get("nvmlDeviceGetUtilizationRates")
    milliwatts = asked.get("nvmlDeviceGetPowerUsage")
    return GpuReading(
        index=index,
        uuid=uuid,
        name=_text(asked.get("nvmlDeviceGetName") or ""),
        pci=pci,
        sm_clock_mhz=asked.get("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        temperature_c=asked.get("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_w=None if milliwatts is None else milliwatts / 1000,
        utilisation=None if rates is None else int(rates.gpu),
        event_reasons=asked.get("nvmlDeviceGetCurrentClocksEventReasons"),
        ecc_double_bit=asked.errors(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        ecc_single_bit=asked.errors(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        remapped_correctable=remapped[0],
        remapped_uncorrectable=remapped[1],
        remap_pending=remapped[2],
        remap_failed=remapped[3],
        pcie_replays=asked.get("nvmlDeviceGetPcieReplayCounter"),
        pcie_generation=asked.get("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_width=asked.get("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_most_generation=asked.get("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_most_width=asked.get("nvmlDeviceGetMaxPcieLinkWidth"),
        recovery_action=asked.recovery(),  # the last question: errors of those before may tell
        is_lost=asked.is_lost,
    )


class _Asked:
    """Questions to one device; what it does not support is None, and what it says about itself is remembered."""

    def __init__(self, nvml: Any, device: Any) -> None:
        self._nvml = nvml
        self._device = device
        self.is_lost = False
        self.wanted: int | None = None  # a recovery action that an error asks for

    def get(self, function: str, *arguments: Any) -> Any:
        return self._ask(lambda: getattr(self._nvml, function)(self._device, *arguments))

    def errors(self, kind: int) -> Any:
        """ECC errors since the driver was loaded."""
        return self.get("nvmlDeviceGetTotalEccErrors", kind, self._nvml.NVML_VOLATILE_ECC)

    def field(self, number: int) -> int | None:
        """A field value by its number; older drivers do not know the newer ones."""
        values = self._ask(lambda: self._nvml.nvmlDeviceGetFieldValues(self._device, [number]))
        if not values or values[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return int(values[0].value.uiVal)

    def recovery(self) -> int | None:
        """The driver's own recommendation, or the reset that some answer asked for."""
        told = self.field(RECOVERY_ACTION)
        return self.wanted if not told and self.wanted else told

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._nvml.NVMLError as error:
            self.is_lost = self.is_lost or error.value == GPU_IS_LOST
            self.wanted = RESET if error.value == RESET_REQUIRED else self.wanted
            return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
