"""The demo's two child processes, the lab and the product: started with their own logs, watched, and always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

STOP_PATIENCE_S = 2.5
MAX_RESTARTS = 60
ROOT = Path(__file__).resolve().parent.parent

_OURS = ("SLACK_", "PAGERDUTY_", "WATCHKEEPER_", "DATABASE_URL", "PROMETHEUS_URL", "SOCKET_MODE", "INCIDENT_CHANNEL")


class DemoError(Exception):
    """The demo cannot go on; the message says what happened and where to look."""


class Child:
    """One child process in a session of its own, so that Ctrl-C reaches the demo alone; output goes to `log`."""

    def __init__(self, name: str, *arguments: str, log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._variables = {**without_product_settings(os.environ), "PYTHONUNBUFFERED": "1", **(variables or {})}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._variables,
                cwd=ROOT,
                start_new_session=True,
            )
        self.log.with_suffix(".pid").write_text(f"{self._process.pid}\n", encoding="utf-8")

    async def wait(self) -> int:
        """The exit status, negative for the signal that ended it."""
        if self._process is None:
            raise DemoError(f"{self.name} was not started")
        return await self._process.wait()

    async def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        """Ask it to end, and end it when it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def tail(self, lines: int = 25) -> str:
        """The end of its log, for a person who must find out why."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


async def run_once(child: Child) -> None:
    """Run it to its end, again when something kills it on the way. Raises DemoError when it fails."""
    status = -1
    for _ in range(MAX_RESTARTS):
        await child.start()
        status = await child.wait()
        if status >= 0:
            break
    if status:
        raise DemoError(f"{child.name} ended with status {status}:\n{child.tail()}")


async def must_not_end(child: Child) -> None:
    """Raises DemoError as soon as the process ends."""
    status = await child.wait()
    raise DemoError(f"{child.name} ended with status {status}:\n{child.tail()}")


async def keep_running(child: Child, is_up: asyncio.Event) -> None:
    """
    Start the process again whenever it is killed, as a supervisor would (systemd, Kubernetes).

    One that gives up before it was ever ready is told of at once: trying again would not help.
    """
    status = 0
    for _ in range(MAX_RESTARTS):
        status = await child.wait()
        if status >= 0 and not is_up.is_set():
            break
        await child.start()
    raise DemoError(f"{child.name} ended with status {status}:\n{child.tail()}")


def without_product_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without anybody's real tokens: a drill must never reach a real Slack or PagerDuty."""
    return {name: value for name, value in environ.items() if not name.startswith(_OURS)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
