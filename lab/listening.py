"""Several HTTP servers in one process and one event loop, on ports that were bound before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

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
