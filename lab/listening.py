"""Several HTTP servers in one process and one event loop, on ports that were bound before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

HOST = "127.0.0.1"


class Server(uvicorn.Server):
    """One of several servers; signals are the process' own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def server(app: Any, *, certificate: Path | None = None, owns_app: bool = True) -> Server:
    """A server for an ASGI app; with `owns_app` false another server starts and ends the app."""
    return Server(
        uvicorn.Config(
            app,
            lifespan="auto" if owns_app else "off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
            ssl_certfile=certificate,
        )
    )


def new_socket() -> socket.socket:
    """A listening socket on a free port of this machine alone."""
    return socket.create_server((HOST, 0))


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://{HOST}:{listening.getsockname()[1]}"


async def until_started(servers: list[Server]) -> None:
    while not all(each.started for each in servers):  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def listening(app: Any, at: socket.socket, *, certificate: Path | None = None) -> AsyncIterator[str]:
    """Serve one app while the block runs; gives its URL."""
    served = server(app, certificate=certificate)
    task = asyncio.create_task(served.serve(sockets=[at]))
    await until_started([served])
    try:
        yield url_of(at, "https" if certificate else "http")
    finally:
        served.should_exit = True
        await task


def local_client(*, base_url: str = "", timeout_s: float = 5.0) -> httpx.AsyncClient:
    """A client for plain HTTP on this machine: no proxy, and no bundle of authorities, whose loading takes 50 ms."""
    nobody_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=base_url, timeout=timeout_s, trust_env=False, verify=nobody_trusted)


async def until_ready(product: str, every_s: float = 0.2) -> None:
    """Return when the product's `/readyz` says 200; never gives up."""
    async with local_client(timeout_s=2.0) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(product + "/readyz")).status_code == 200:
                    return
            await asyncio.sleep(every_s)
