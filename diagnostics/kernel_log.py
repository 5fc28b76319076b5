"""XIDs in the kernel's log: lines of the NVIDIA driver, from /dev/kmsg or a file that a logger writes."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FALLEN_OFF_THE_BUS = 79

_XID = re.compile(r"NVRM: Xid \((?P<pci>(?:PCI:)?[0-9a-fA-F:.]+)\).*?: (?P<code>\d{1,4})\b")
_FALLEN = re.compile(r"NVRM: GPU (?P<pci>[0-9a-fA-F:.]+): GPU has fallen off the bus")
_PCI = re.compile(r"(?:[0-9a-fA-F]*:)?(?P<bus>[0-9a-fA-F]{2}):(?P<device>[0-9a-fA-F]{2})(?:\.[0-7])?")
_MOST_AT_ONCE = 8 * 1024 * 1024


class KernelLogError(Exception):
    """The kernel's log cannot be read; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class XidLine:
    """One XID: the GPU's PCI address as bus and device (3b:00), and the code."""

    pci: str
    code: int


def read_line(line: str) -> XidLine | None:
    """The XID in one line of the log, or None. "Fallen off the bus" counts as XID 79, which some kernels omit."""
    match = _XID.search(line)
    if match is not None:
        return XidLine(pci=bus_address(match["pci"]), code=int(match["code"]))
    match = _FALLEN.search(line)
    return None if match is None else XidLine(pci=bus_address(match["pci"]), code=FALLEN_OFF_THE_BUS)


def bus_address(text: str) -> str:
    """ "PCI:0000:3B:00", "0000:3b:00.0" and NVML's "00000000:3B:00.0" are all 3b:00 in their domain."""
    match = _PCI.fullmatch(text.removeprefix("PCI:"))
    return f"{match['bus']}:{match['device']}".lower() if match else text.lower()


class KernelLog:
    """
    Counts XIDs per GPU address and code, from the log's beginning (the boot, as far back as it reaches).

    Counting from the beginning gives the same counts to a probe that was restarted, so no count looks new.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._rest = b""
        self._told = Counter[tuple[str, int]]()

    def counts(self) -> dict[tuple[str, int], int]:
        """XIDs by address and code up to now. Raises KernelLogError."""
        for line in self._new_lines():
            found = read_line(line)
            if found is None:
                continue
            is_echo = "Xid (" not in line  # the plain sentence that follows the XID it repeats
            if is_echo and self._told[found.pci, found.code]:
                continue
            self._told[found.pci, found.code] += 1
        return dict(self._told)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _new_lines(self) -> list[str]:
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            state = os.fstat(self._descriptor)
            # A file that was cut: a logger rotated it. /dev/kmsg has neither size nor position.
            if stat.S_ISREG(state.st_mode) and state.st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
                os.lseek(self._descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise KernelLogError(f"{self._path} cannot be read: {error.strerror}; run as root or mount it") from error
        return self._split(self._read())

    def _read(self) -> bytes:
        """Everything that is there now. /dev/kmsg gives one record a time, and EPIPE for records it overwrote."""
        found = bytearray(self._rest)
        while len(found) < _MOST_AT_ONCE:
            try:
                part = os.read(self._descriptor or 0, 65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue
                raise KernelLogError(f"{self._path} cannot be read: {error.strerror}") from error
            if not part:
                break
            found += part
        return bytes(found)

    def _split(self, text: bytes) -> list[str]:
        *lines, self._rest = text.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]
