"""The probe for GPU nodes: the kernel's log, nvidia-smi, NVML, and what a scrape gets of them."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from diagnostics import nvml
from diagnostics.kernel_log import KernelLog, KernelLogError, XidLine, bus_address, read_line
from diagnostics.nvml import DriverError, GpuReading, read_gpus
from diagnostics.probe import Probe
from tests.needs import lack

XID_79 = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
ECHO = "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus."


class FakeError(Exception):
    """As pynvml's: the code is in `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


NOT_SUPPORTED, LOST, RESET = 3, 15, 16


def driver(**changed: Callable[..., Any]) -> Any:
    """A stand-in for pynvml with one sound GPU; each keyword replaces a function. What it lacks is an error."""
    functions: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"handle-{index}",
        "nvmlDeviceGetUUID": lambda _: "GPU-1",
        "nvmlDeviceGetPciInfo": lambda _: SimpleNamespace(busId="00000000:3B:00.0"),
        "nvmlDeviceGetName": lambda _: "NVIDIA H100",
        "nvmlDeviceGetClockInfo": lambda _, __: 1900,
        "nvmlDeviceGetTemperature": lambda _, __: 62,
        "nvmlDeviceGetPowerUsage": lambda _: 480_000,
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=92, memory=40),
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x4,
        "nvmlDeviceGetTotalEccErrors": lambda _, kind, __: 2 if kind == 1 else 7,
        "nvmlDeviceGetRemappedRows": lambda _: (1, 0, 1, 0),
        "nvmlDeviceGetPcieReplayCounter": lambda _: 3,
        "nvmlDeviceGetCurrPcieLinkGeneration": lambda _: 5,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda _: 16,
        "nvmlDeviceGetMaxPcieLinkGeneration": lambda _: 5,
        "nvmlDeviceGetMaxPcieLinkWidth": lambda _: 16,
        "nvmlDeviceGetFieldValues": lambda _, __: [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=1))],
        **changed,
    }
    constants = {
        "NVML_CLOCK_SM": 1,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_MEMORY_ERROR_TYPE_CORRECTED": 0,
        "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
        "NVML_VOLATILE_ECC": 0,
        "NVML_SUCCESS": 0,
    }
    return SimpleNamespace(NVMLError=FakeError, **constants, **functions)


def refuses(code: int) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise FakeError(code)

    return refuse


def test_the_stand_in_has_the_real_modules_names() -> None:
    """Every function and constant that is used exists in nvidia-ml-py under that name, with that value."""
    if importlib.util.find_spec("pynvml") is None:
        lack("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    pynvml = importlib.import_module("pynvml")
    for name, ours in vars(driver()).items():
        theirs = getattr(pynvml, name)
        assert callable(theirs) if callable(ours) else theirs == ours, name
    assert pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION == nvml.RECOVERY_ACTION
    assert (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED) == (nvml.GPU_IS_LOST, nvml.RESET_REQUIRED)


def test_a_sound_gpu_is_read_in_full() -> None:
    """Milliwatts become watts, the two ECC counters are not mixed up, and the recovery action is its number."""
    [gpu] = read_gpus(driver())
    assert (gpu.power_w, gpu.ecc_double_bit, gpu.ecc_single_bit) == (480.0, 2, 7)
    assert (gpu.remapped_correctable, gpu.remap_pending, gpu.recovery_action) == (1, 1, 1)
    assert not gpu.is_lost


def test_what_a_gpu_does_not_support_is_none() -> None:
    """A card without ECC has no count of errors; that is not zero errors."""
    [gpu] = read_gpus(driver(nvmlDeviceGetTotalEccErrors=refuses(NOT_SUPPORTED)))
    assert gpu.ecc_double_bit is None
    assert gpu.temperature_c == 62


def test_an_unknown_field_is_none() -> None:
    """An older driver answers the call and refuses the field in it."""
    refused = [SimpleNamespace(nvmlReturn=NOT_SUPPORTED, value=SimpleNamespace(uiVal=0))]
    [gpu] = read_gpus(driver(nvmlDeviceGetFieldValues=lambda _, __: refused))
    assert gpu.recovery_action is None


@pytest.mark.parametrize("function", ["nvmlDeviceGetUUID", "nvmlDeviceGetTemperature"])
def test_a_lost_gpu_is_told_and_not_hidden(function: str) -> None:
    """The driver says that it lost the GPU at the first question or at a later one."""
    [gpu] = read_gpus(driver(**{function: refuses(LOST)}))
    assert gpu.is_lost


def test_a_gpu_that_wants_a_reset_says_so() -> None:
    """NVML's error 16 is a state of the GPU, not of our question."""
    mute = {"nvmlDeviceGetFieldValues": refuses(NOT_SUPPORTED)}
    [gpu] = read_gpus(driver(nvmlDeviceGetClockInfo=refuses(RESET), **mute))
    assert gpu.recovery_action == nvml.RESET
    [without] = read_gpus(driver(**mute))
    assert without.recovery_action is None
    nothing = [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=0))]
    [sound] = read_gpus(driver(nvmlDeviceGetFieldValues=lambda _, __: nothing))
    assert sound.recovery_action == 0


def test_a_machine_without_a_driver_is_an_error_of_ours() -> None:
    """NVML's own exception does not travel further."""
    with pytest.raises(DriverError, match="cannot be initialised"):
        read_gpus(driver(nvmlInit=refuses(9)))


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts the probe without NVML is told what to install."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DriverError, match="pip install"):
        nvml.load()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (XID_79, XidLine(pci="3b:00", code=79)),
        (f"3,1180,92340,-;{XID_79}", XidLine(pci="3b:00", code=79)),
        ("NVRM: Xid (PCI:0000:AF:00.0): 13, pid=7, Graphics Exception: ESR 0x505648", XidLine(pci="af:00", code=13)),
        ("NVRM: Xid (0000:03:00): 119, Timeout after 6s of waiting for RPC response", XidLine(pci="03:00", code=119)),
        (ECHO, XidLine(pci="3b:00", code=79)),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15", None),
        ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 48", None),
        ("", None),
    ],
)
def test_xids_are_read_from_the_drivers_lines(line: str, found: XidLine | None) -> None:
    """Every spelling of the address is the same GPU; a switch's SXid is no XID."""
    assert read_line(line) == found


def test_addresses_of_the_log_and_of_nvml_are_the_same() -> None:
    """NVML writes eight digits of domain and capitals, the kernel four and none."""
    assert bus_address("PCI:0000:3b:00") == bus_address("00000000:3B:00.0") == bus_address("0000:3b:00.0")


def test_the_sentence_after_an_xid_is_not_counted_again(tmp_path: Path) -> None:
    """The driver tells XID 79 twice: as an XID, and in words."""
    path = tmp_path / "kern.log"
    path.write_text(f"{XID_79}\n{ECHO}\n", encoding="utf-8")
    assert KernelLog(path).counts() == {("3b:00", 79): 1}


def test_a_log_is_read_on_and_after_its_rotation(tmp_path: Path) -> None:
    """Half a line waits for its rest; a log that was cut begins again, and its counts go on."""
    path = tmp_path / "kern.log"
    path.write_text(f"{XID_79}\n{XID_79[:30]}", encoding="utf-8")
    log = KernelLog(path)
    assert log.counts() == {("3b:00", 79): 1}
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{XID_79[30:]}\n")
    assert log.counts() == {("3b:00", 79): 2}
    path.write_text(f"{XID_79}\n", encoding="utf-8")
    assert log.counts() == {("3b:00", 79): 3}
    log.close()


def test_a_log_that_may_not_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    """The reason says what to do."""
    with pytest.raises(KernelLogError, match="cannot be read"):
        KernelLog(tmp_path / "nothing").counts()


def scraped(probe: Probe) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(probe)
    return generate_latest(registry).decode()


def program(folder: Path, text: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


async def test_a_scrape_names_node_gpu_and_code(tmp_path: Path) -> None:
    """The log knows an address and NVML the UUID behind it; the counter has both, and the contract's labels."""
    path = tmp_path / "kern.log"
    path.write_text(f"{XID_79}\n", encoding="utf-8")
    probe = Probe(
        node="node-7",
        kernel_log=KernelLog(path),
        read_gpus=lambda: read_gpus(driver()),
        smi=(program(tmp_path, "exit 0"), "-L"),
    )
    await probe.look()
    text = scraped(probe)
    assert 'watchkeeper_probe_kernel_xid_total{UUID="GPU-1",gpu="0",node="node-7",xid="79"} 1.0' in text
    assert 'watchkeeper_probe_nvidia_smi_ok{node="node-7"} 1.0' in text
    assert "DCGM_" not in text


async def test_a_gpu_that_fell_off_keeps_its_name(tmp_path: Path) -> None:
    """The XID comes after the GPU has gone; what it was called is remembered."""
    path = tmp_path / "kern.log"
    path.write_text("", encoding="utf-8")
    answers = [read_gpus(driver()), [GpuReading(index=0, is_lost=True)]]
    probe = Probe(node="n", kernel_log=KernelLog(path), read_gpus=lambda: answers.pop(0), smi=("no-such-program",))
    await probe.look()
    path.write_text(f"{XID_79}\n", encoding="utf-8")
    await probe.look()
    assert 'UUID="GPU-1",gpu="0"' in scraped(probe)


async def test_readings_have_dcgms_names_when_asked_for(tmp_path: Path) -> None:
    """So that the checks find them where no dcgm-exporter runs; an unsupported field is not exported."""
    quiet = driver(nvmlDeviceGetTotalEccErrors=refuses(NOT_SUPPORTED))
    probe = Probe(
        node="n", kernel_log=None, read_gpus=lambda: read_gpus(quiet), smi=("no-such-program",), export_gpus=True
    )
    await probe.look()
    text = scraped(probe)
    assert 'DCGM_FI_DEV_SM_CLOCK{Hostname="n",UUID="GPU-1",gpu="0",modelName="NVIDIA H100"} 1900.0' in text
    assert "DCGM_FI_DEV_ECC" not in text
    assert "nvidia_smi_ok" not in text


@pytest.mark.parametrize("text", ["exec sleep 30", "exit 9"])
async def test_a_driver_that_hangs_or_fails_does_not_answer(tmp_path: Path, text: str) -> None:
    """An nvidia-smi that never returns is the sign of a dead GPU firmware; the round ends all the same."""
    began = time.monotonic()
    probe = Probe(node="n", kernel_log=None, read_gpus=None, smi=(program(tmp_path, text), "-L"), patience_s=0.3)
    seen = await probe.look()
    assert seen.smi_answers is False
    assert time.monotonic() - began < 5


async def test_an_unreadable_log_is_not_exported(tmp_path: Path) -> None:
    """No counter is better than a zero that nobody counted."""
    probe = Probe(node="n", kernel_log=KernelLog(tmp_path / "none"), read_gpus=None, smi=("no-such-program",))
    await probe.look()
    assert scraped(probe) == ""


@pytest.mark.gpu
def test_a_real_gpu_is_read() -> None:
    """The driver of this machine answers with a UUID, a clock and a temperature."""
    if importlib.util.find_spec("pynvml") is None:
        lack("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    try:
        found = read_gpus(nvml.load())
    except DriverError as error:
        pytest.skip(f"no NVIDIA driver here: {error}")
    assert found
    assert all(gpu.uuid.startswith("GPU-") and gpu.sm_clock_mhz is not None for gpu in found)
