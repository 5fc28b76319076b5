"""
The composition root: settings and configuration -> parts -> what this process does. It wires and decides nothing.

`serve` is everything in one process, for a small team. `serve --no-work` has the doors and Slack only and holds no
credential that changes production; `worker` does the work, in as many processes as one likes.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import Any

import uvicorn

from bot.config import Config
from bot.doors import Readiness
from bot.front import Front
from bot.incidents import DeclaredDeadError, WatchkeeperError
from bot.parts import Parts
from bot.policy import accounts
from bot.settings import Settings
from bot.store import schema
from bot.web.app import build_probes
from bot.workshop import Workshop
from retrieval.ranking import RunbookSearch

SWITCH_S = 0.0005
"""After so long a thread that computes lets others run; Python's own 5 ms made a commit ten times as slow."""


async def serve(settings: Settings, config: Config, *, work: bool = True) -> None:
    """The doors and Slack until SIGTERM or SIGINT, and the work unless others do it. Raises WatchkeeperError."""
    await _run(settings, config, doors=True, work=work)


async def work(settings: Settings, config: Config) -> None:
    """The work alone until SIGTERM or SIGINT. Raises WatchkeeperError."""
    await _run(settings, config, doors=False, work=True)


class Process:
    """What this process is made of; at least one of workshop and front."""

    def __init__(self, parts: Parts, *, doors: bool, work: bool) -> None:
        self.parts = parts
        self.workshop = Workshop(parts) if work else None
        # Without work here runbooks are searched by words: no model is loaded.
        self.search = self.workshop.search if self.workshop else RunbookSearch()
        self.front = self._front() if doors else None
        sweepers = self.workshop.engine.sweepers if self.workshop else ()
        self._asking: asyncio.Task[None] | None = None
        self.readiness = Readiness(parts.database, sweepers, parts.vitals, parts.troubles)

    def _front(self) -> Front:
        """Without work here nobody is there to be rung for."""
        ring = self.workshop.engine.ring if self.workshop else lambda: None
        return Front(self.parts, search=self.search, ring=ring)

    async def start(self) -> None:
        """Live, before anything is begun that others would take over; and people first: the doors ask who they are."""
        await self.parts.pulse.begin()
        await self.parts.people.replace(accounts(self.parts.config))
        await self.parts.shelf.begin(self.search)
        if self.workshop is not None:
            await self.workshop.start()
        if self.front is not None:
            await self.front.start()
        self._asking = asyncio.create_task(self.parts.slack.keep_asking(), name="is Slack there")

    async def stop(self) -> None:
        """What is under way is interrupted, and taken over at once by whoever lives."""
        self.parts.shelf.end()
        if self._asking is not None:
            self._asking.cancel()
        if self.front is not None:
            await self.front.stop()
        if self.workshop is not None:
            await self.workshop.stop()
        await self.parts.pulse.end()
        await self.parts.lifeline.close()
        await self.parts.database.close()

    async def died(self) -> None:
        """Wait until somebody declares this process dead, then let go of all stories: they are others' now."""
        await self.parts.pulse.died.wait()
        if self.workshop is not None:
            await self.workshop.engine.interrupt()

    def web(self) -> Any:
        """What is served: the doors, or probes alone."""
        if self.front is not None:
            return self.front.web(self.readiness)
        return build_probes(self.readiness, self.parts.registry)


async def _run(settings: Settings, config: Config, *, doors: bool, work: bool) -> None:
    # A commit hops between threads a dozen times, and each hop waits while another thread computes.
    sys.setswitchinterval(SWITCH_S)
    await _require_schema(settings)
    role = "serve" if doors and work else "web" if doors else "worker"
    process = Process(Parts(settings, config, role), doors=doors, work=work)
    await process.start()
    gc.freeze()  # what stays need not be looked through again and again; warming does the same with what it loads
    warming = asyncio.create_task(process.workshop.warm()) if process.workshop else None
    try:
        await _serve_until_told(process, settings, port=doors or "watchkeeper_port" in settings.model_fields_set)
    finally:
        process.readiness.stopping = True
        if warming is not None:
            warming.cancel()
        await process.stop()
    if process.parts.pulse.died.is_set():
        raise DeclaredDeadError(
            "this process did not reach its database for too long; others declared it dead and took over. "
            "It ends, so that its supervisor starts a fresh one"
        )


async def _require_schema(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    if (revision := await asyncio.to_thread(schema.current, url)) != schema.head():
        raise WatchkeeperError(
            f"the database is at schema {revision or 'none'}, this program needs {schema.head()}: "
            "run `watchkeeper migrate`"
        )


async def _serve_until_told(process: Process, settings: Settings, *, port: bool) -> None:
    """Until SIGTERM, SIGINT or the declaration of our death; a worker without a port just waits."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = uvicorn.Server(
        uvicorn.Config(
            process.web(),
            host=settings.watchkeeper_host,
            port=settings.watchkeeper_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=20,
        )
    )

    def stop(_: object = None) -> None:
        process.readiness.stopping = server.should_exit = True
        told.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    dying = asyncio.create_task(process.died())
    dying.add_done_callback(stop)
    await (server.serve() if port else told.wait())
    dying.cancel()
