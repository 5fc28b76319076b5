"""
`watchkeeper probe`: a small exporter for a GPU node, for what no standard exporter says.

It exports whether nvidia-smi answers, the XIDs of the kernel's log, and on request the GPUs' own readings under
dcgm-exporter's names, for nodes without one. Every reading has a time limit: a driver that hangs is what it looks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diagnostics import gpus
from diagnostics.kernel_log import KernelLog, KernelLogError, bus_address
from diagnostics.nvml import DriverError, GpuReading, load, read_gpus

PATIENCE_S = 8.0
"""A healthy nvidia-smi answers in one to three seconds; a scrape waits ten."""

SMI = ("nvidia-smi", "-L")

_READINGS = {
    gpus.CLOCK[0]: "sm_clock_mhz",
    gpus.TEMPERATURE[0]: "temperature_c",
    gpus.POWER[0]: "power_w",
    gpus.UTILISATION[0]: "utilisation",
    gpus.EVENT_REASONS[0]: "event_reasons",
    gpus.DOUBLE_BIT[0]: "ecc_double_bit",
    gpus.SINGLE_BIT[0]: "ecc_single_bit",
    gpus.REMAPPED_CORRECTABLE[0]: "remapped_correctable",
    gpus.REMAPPED_UNCORRECTABLE[0]: "remapped_uncorrectable",
    gpus.REMAP_PENDING[0]: "remap_pending",
    gpus.REMAP_FAILED[0]: "remap_failed",
    gpus.PCIE_REPLAYS[0]: "pcie_replays",
    gpus.PCIE_GENERATION[0]: "pcie_generation",
    gpus.PCIE_WIDTH[0]: "pcie_width",
    gpus.PCIE_MOST_GENERATION[0]: "pcie_most_generation",
    gpus.PCIE_MOST_WIDTH[0]: "pcie_most_width",
    gpus.RECOVERY_ACTION[0]: "recovery_action",
}

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the last round found; None for what could not be read, which is then not exported."""

    smi_answers: bool | None = None
    xids: dict[tuple[str, int], int] | None = None
    gpus: Sequence[GpuReading] = field(default_factory=tuple)


class Probe(Collector):
    """
    Reads in rounds, and gives each scrape what the last round found, so that no scrape waits for a driver.

    `read_gpus` is asked in a thread of its own; while one call hangs no second one is made.
    """

    def __init__(
        self,
        *,
        node: str,
        kernel_log: KernelLog | None,
        read_gpus: Callable[[], list[GpuReading]] | None,
        smi: Sequence[str] = SMI,
        export_gpus: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._node = node
        self._kernel_log = kernel_log
        self._read_gpus = read_gpus
        self._smi = tuple(smi)
        self._export_gpus = export_gpus
        self._patience_s = patience_s
        self._reading: asyncio.Task[list[GpuReading]] | None = None
        self._known: dict[str, GpuReading] = {}  # by PCI address: a GPU that fell off the bus keeps its name
        self._seen = Seen()

    async def look(self) -> Seen:
        """Read once, each source within its patience."""
        answers, xids, found = await asyncio.gather(self._smi_answers(), self._xids(), self._gpus())
        for gpu in found:
            if gpu.is_lost:
                log.warning("the driver has lost a GPU", node=self._node, gpu=gpu.index)
        self._known |= {bus_address(gpu.pci): gpu for gpu in found if gpu.pci}
        self._seen = Seen(smi_answers=answers, xids=xids, gpus=found)
        return self._seen

    def collect(self) -> Iterator[Metric]:
        """The families of the last round, for prometheus_client."""
        seen = self._seen
        if seen.smi_answers is not None:
            family = GaugeMetricFamily(gpus.SMI_OK[0], "Whether nvidia-smi answers in time.", labels=["node"])
            family.add_metric([self._node], float(seen.smi_answers))
            yield family
        if seen.xids is not None:
            labels = ["node", "gpu", "UUID", "xid"]
            counts = CounterMetricFamily(gpus.KERNEL_XID[0], "XIDs in the kernel's log.", labels=labels)
            for (pci, code), count in sorted(seen.xids.items()):
                gpu = self._known.get(pci)
                index, uuid = (str(gpu.index), gpu.uuid) if gpu else (pci, "")
                counts.add_metric([self._node, index, uuid, str(code)], float(count))
            yield counts
        if self._export_gpus:
            yield from self._gpu_families(seen.gpus)

    def _gpu_families(self, found: Sequence[GpuReading]) -> Iterator[Metric]:
        for name, attribute in _READINGS.items():
            values = [(gpu, getattr(gpu, attribute)) for gpu in found]
            labels = [*gpus.GPU, "modelName"]
            family = GaugeMetricFamily(name, "As dcgm-exporter names it; read from NVML.", labels=labels)
            for gpu, value in values:
                if value is not None:
                    family.add_metric([self._node, str(gpu.index), gpu.uuid, gpu.name], float(value))
            if family.samples:
                yield family

    async def _smi_answers(self) -> bool | None:
        """Whether nvidia-smi lists the GPUs in time; None where there is no such program."""
        program = shutil.which(self._smi[0])
        if program is None:
            return None
        quiet = asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(program, *self._smi[1:], stdout=quiet, stderr=quiet)
        try:
            return await asyncio.wait_for(child.wait(), self._patience_s) == 0
        except TimeoutError:
            child.kill()
            with contextlib.suppress(TimeoutError):  # one that waits for a dead driver does not even die
                await asyncio.wait_for(child.wait(), 1.0)
            return False

    async def _xids(self) -> dict[tuple[str, int], int] | None:
        if self._kernel_log is None:
            return None
        try:
            return await asyncio.to_thread(self._kernel_log.counts)
        except KernelLogError as error:
            log.warning("kernel log unreadable", why=str(error))
            return None

    async def _gpus(self) -> list[GpuReading]:
        if self._read_gpus is None:
            return []
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read_gpus))
        try:
            return await asyncio.wait_for(asyncio.shield(self._reading), self._patience_s)
        except TimeoutError:
            log.warning("NVML does not answer", seconds=self._patience_s)
        except DriverError as error:
            log.warning("driver cannot be asked", why=str(error))
        return []


async def run_probe(*, host: str, port: int, node: str, kernel_log: Path, export_gpus: bool, every_s: float) -> None:
    """Serve /metrics until cancelled. Raises OSError when it cannot listen there."""
    probe = Probe(node=node, kernel_log=KernelLog(kernel_log), read_gpus=_nvml_or_none(), export_gpus=export_gpus)
    await probe.look()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(probe)
    start_http_server(port, addr=host, registry=registry)
    log.info("probe listens", host=host, port=port, node=node)
    while True:
        await asyncio.sleep(every_s)
        await probe.look()


def _nvml_or_none() -> Callable[[], list[GpuReading]] | None:
    """How to read the GPUs here; None where the package is missing, and then only the log and nvidia-smi are read."""
    try:
        nvml = load()
    except DriverError as error:
        log.warning("GPUs are not read", why=str(error))
        return None
    return lambda: read_gpus(nvml)
