"""A TCP proxy on 127.0.0.1 that breaks what passes through it, in the ways in which networks and servers break."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from lab.listening import new_socket, url_of


class Fault(StrEnum):
    """What becomes of every new connection; those that are open when a fault begins are cut off."""

    NONE = "none"
    REFUSE = "refuse"  # nobody listens
    HANG = "hang"  # taken, read, and never answered
    LOSE_ANSWERS = "lose_answers"  # the far end hears and does it; the answer is cut off
    DRIP = "drip"  # a byte every now and then
    GARBAGE = "garbage"  # bytes that are no HTTP
    BUSY = "busy"  # 503 with a page for people
    LIMITED = "limited"  # 429 for everything


_ANSWERS = {
    Fault.BUSY: b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\n"
    b"Content-Length: 15\r\nConnection: close\r\n\r\n<h1>Sorry.</h1>",
    Fault.LIMITED: b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b'Content-Length: 36\r\nConnection: close\r\n\r\n{"ok": false, "error":"ratelimited"}',
}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """Stands before `target_port`, which may be set later; its own address stays the same through every fault."""

    def __init__(self, target_port: int = 0) -> None:
        self.target_port = target_port
        reserved = new_socket()
        self.url, self._port = url_of(reserved), reserved.getsockname()[1]
        reserved.close()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.fault = Fault.NONE
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.set(Fault.NONE)
        try:
            yield
        finally:
            await self._close()

    async def set(self, fault: Fault) -> None:
        """From now on; the outside world changes at once."""
        await self._close()
        self.fault = fault
        if fault is not Fault.REFUSE:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, reuse_address=True)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            _reset(writer)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            await self._broken(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _broken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self.fault
        if fault in (Fault.NONE, Fault.LOSE_ANSWERS, Fault.DRIP):
            await self._through(reader, writer, fault)
            return
        await reader.read(65536)
        if fault is Fault.HANG:
            while await reader.read(65536):
                pass
        else:
            writer.write(_ANSWERS.get(fault) or random.Random(1).randbytes(400))
            await writer.drain()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._open.add(far_writer)
        forward = asyncio.create_task(_copy(reader, far_writer))
        try:
            while chunk := await far_reader.read(65536):
                if fault is Fault.LOSE_ANSWERS:
                    _reset(writer)
                    return
                for piece in [chunk] if fault is Fault.NONE else [chunk[at : at + 1] for at in range(len(chunk))]:
                    writer.write(piece)
                    await writer.drain()
                    if fault is Fault.DRIP:
                        await asyncio.sleep(0.1)
        finally:
            forward.cancel()
            self._open.discard(far_writer)
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End it with an RST, as a crashed machine or a firewall does."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    if writer.transport is not None:
        writer.transport.abort()
