"""A drill that is up: the lab and the product as two processes, watched while somebody plays, stopped afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.configuration import ADDRESSES_FILE, ENVIRONMENT_FILE, read_environment
from lab.demo_processes import Child, DemoError, free_port, keep_running, must_not_end, run_once
from lab.listening import until_ready
from lab.progress import Progress

STARTUP_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DrillOptions:
    """
    What is played, and by which product: `product` is how Python starts it (`-m bot`), given a command behind it.

    `folder` None makes a new one under var/, `pace` None plays at the scenario's own. `variables` go before those that
    the lab gives to the product.
    """

    folder: Path | None
    scenario: str = "S04"
    pace: float | None = None
    seed: int = 1
    product: tuple[str, ...] = ("-m", "bot")
    socket_mode: bool = False
    rate_limited: bool = False
    hides_answer: bool = False  # the page does not say which scenario it is
    vectors: Path | None = None  # where embeddings of runbooks are kept from one drill to the next
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A lab and a product that are up; `page` is where people look, `pagerduty` the REST API's address."""

    scenario: str
    folder: Path
    lab: Child
    product: Child
    page: str
    pagerduty: str


@asynccontextmanager
async def running_drill(options: DrillOptions, progress: Progress) -> AsyncIterator[Drill]:
    """
    Start both processes and watch them while the block runs.

    A product that is killed is started again. Raises DemoError when the start fails or the lab ends; both processes
    are stopped on the way out, whatever happened.
    """
    folder = _clean_folder(options)
    progress.say(f"the drill's files are in {folder}")
    start = _Start(options=options, folder=folder, address=f"http://127.0.0.1:{free_port()}", progress=progress)
    try:
        drill = await start.everything()
        async with _failing_with(start.watches):
            yield drill
    finally:
        for watch in start.watches:
            watch.cancel()
        await asyncio.gather(*start.watches, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in start.children))


class _Start:
    """The start, step by step; what it has begun is in `children` and `watches`, finished or not."""

    def __init__(self, *, options: DrillOptions, folder: Path, address: str, progress: Progress) -> None:
        self._options = options
        self._folder = folder
        self._address = address
        self._progress = progress
        self.children: list[Child] = []
        self.watches: list[asyncio.Task[None]] = []

    async def everything(self) -> Drill:
        self._progress.begin("simulating the two hours before the page")
        lab = await self._lab()
        await self._or_failure(_exists(self._folder / ENVIRONMENT_FILE))
        variables = read_environment(self._folder)
        # The tables can be made while the lab is still at work on the past.
        migration = self._product("migrate", variables)
        await self._or_failure(_both(run_once(migration), _exists(self._folder / ADDRESSES_FILE)))

        self._progress.begin("starting Watchkeeper")
        product = self._product("serve", variables)
        is_up = asyncio.Event()
        await product.start()
        self.watches.append(asyncio.create_task(keep_running(product, is_up)))
        await self._or_failure(until_ready(self._address))
        is_up.set()

        addresses = json.loads((self._folder / ADDRESSES_FILE).read_text(encoding="utf-8"))
        self._progress.say(f"Watchkeeper is ready at {self._address}; the local Slack's page is {addresses['page']}")
        return Drill(
            scenario=self._options.scenario,
            folder=self._folder,
            lab=lab,
            product=product,
            page=addresses["page"],
            pagerduty=addresses["pagerduty"],
        )

    async def _lab(self) -> Child:
        options = self._options
        pace = ("--pace", f"{options.pace:g}") if options.pace else ()
        mode = [
            *(["--socket-mode"] * options.socket_mode),
            *(["--rate-limited"] * options.rate_limited),
            *(["--hide-answer"] * options.hides_answer),
        ]
        what = ("--scenario", options.scenario, *pace, "--seed", str(options.seed), *mode)
        where = ("--folder", str(self._folder), "--product", self._address)
        lab = Child("the lab", "-m", "lab", "serve", *where, *what, log=self._folder / "lab.log")
        self.children.append(lab)
        await lab.start()
        self.watches.append(asyncio.create_task(must_not_end(lab)))
        return lab

    def _product(self, command: str, variables: dict[str, str]) -> Child:
        child = Child(
            f"watchkeeper {command}",
            *self._options.product,
            command,
            log=self._folder / f"watchkeeper-{command}.log",
            variables={**variables, **self._options.variables},
        )
        self.children.append(child)
        return child

    async def _or_failure(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for this, as long as a start may take; a process that ends meanwhile is the answer instead."""
        task = asyncio.create_task(waiting)
        try:
            done, _ = await asyncio.wait(
                {task, *self.watches}, timeout=STARTUP_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise DemoError(f"nothing was ready within {STARTUP_PATIENCE_S:.0f} s; the logs are in {self._folder}")
            for finished in done:
                await finished
        finally:
            task.cancel()


def _clean_folder(options: DrillOptions) -> Path:
    """The drill's folder, without the files by which an earlier drill said that it is up."""
    folder = options.folder or Path("var") / f"demo-{options.scenario}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ADDRESSES_FILE, ENVIRONMENT_FILE):
        (folder / name).unlink(missing_ok=True)
    if options.vectors is not None:
        _share_vectors(options.vectors, folder / options.vectors.name)
    return folder.resolve()


def _share_vectors(shared: Path, own: Path) -> None:
    """The product keeps its embeddings beside its database; to make them anew takes twenty seconds of a processor."""
    shared.parent.mkdir(parents=True, exist_ok=True)
    if not (own.is_symlink() or own.exists()):
        own.symlink_to(shared.resolve())


async def _exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it; a look takes microseconds
        await asyncio.sleep(0.05)


async def _both(*waiting: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*waiting)


@asynccontextmanager
async def _failing_with(watches: list[asyncio.Task[None]]) -> AsyncIterator[None]:
    """Cancel the block when a watch fails, and raise the watch's error instead."""
    me = asyncio.current_task()

    def interrupt(watch: asyncio.Task[None]) -> None:
        if not watch.cancelled() and me is not None:
            me.cancel()

    for watch in watches:
        watch.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        for watch in watches:
            if watch.done() and not watch.cancelled() and (error := watch.exception()):
                raise error from None
        raise
    finally:
        for watch in watches:
            watch.remove_done_callback(interrupt)
