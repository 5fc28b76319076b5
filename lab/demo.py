"""
`watchkeeper demo`: one incident on this machine, from the page to the verified fix.

Two processes are started, the lab and the product, which know each other by addresses alone; this one only starts
them, tells what happens, and judges at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from lab.actors import messages_in, play_story
from lab.configuration import ADDRESSES_FILE, read_environment
from lab.demo_processes import Child, DemoError, free_port, keep_running, must_not_end, run_once
from lab.listening import local_client, until_ready
from lab.people import BOT_USER, MALLORY, WATCHKEEPER_PAGERDUTY
from lab.progress import Progress
from lab.slack_text import as_text, lines_of

LOOK_EVERY_S = 0.3
STARTUP_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How to play; `folder` None makes a new one under var/. `deadline_s` bounds a headless story, start included."""

    folder: Path | None
    scenario: str = "S04"
    pace: float = 20.0
    seed: int = 1
    is_headless: bool = False
    holds: bool = False
    deadline_s: float = 90.0


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A lab and a product that are up; `page` is where people look."""

    folder: Path
    lab: Child
    product: Child
    page: str
    pagerduty: str


async def play(options: DemoOptions) -> int:
    """The exit status: 0 when the story ended well, or a person stopped an interactive demo."""
    stopped = asyncio.Event()
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stopped.set)
    progress = Progress()
    story = asyncio.create_task(
        _headless(options, progress) if options.is_headless else _interactive(options, progress)
    )
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({story, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not story.done():
        progress.say("stopping")
        story.cancel()
    stop.cancel()
    try:
        return await story
    except asyncio.CancelledError:
        return 130 if options.is_headless else 0
    except DemoError as error:
        progress.say(f"the demo cannot go on: {error}")
        return 1
    finally:
        progress.close()


async def _interactive(options: DemoOptions, progress: Progress) -> int:
    async with _drill(options, progress) as drill:
        progress.say(_INVITATION.format(page=drill.page, folder=drill.folder))
        await asyncio.Event().wait()
    return 0


async def _headless(options: DemoOptions, progress: Progress) -> int:
    started_s = time.monotonic()
    missing = ["the lab and the product did not start in time"]
    async with _drill(options, progress) as drill, _page_client(drill) as client:
        left_s = options.deadline_s - (time.monotonic() - started_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await play_story(client, progress.say)
                while missing := await _still_missing(drill, client):  # noqa: ASYNC110 - other processes change it
                    await asyncio.sleep(LOOK_EVERY_S)
        missing = missing and await _still_missing(drill, client)
        await _print_thread(client)
        took_s = time.monotonic() - started_s
        if missing:
            progress.say(f"not finished after {took_s:.0f} s: " + "; ".join(missing))
            print(f"\n--- end of {drill.product.log} ---\n{drill.product.tail()}")
            print(f"\n--- end of {drill.lab.log} ---\n{drill.lab.tail()}")
        else:
            progress.say(f"resolved by the approved and verified fix after {took_s:.0f} s")
        if options.holds:
            progress.say(f"still running: {drill.page} (Ctrl-C stops everything)")
            await asyncio.Event().wait()
    return 1 if missing else 0


@asynccontextmanager
async def _drill(options: DemoOptions, progress: Progress) -> AsyncIterator[Drill]:
    """Both processes, up and watched; stopped on the way out, whatever happened. Raises DemoError."""
    folder = (options.folder or _new_folder()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADDRESSES_FILE).unlink(missing_ok=True)
    progress.say(f"the drill's files are in {folder}")
    address = f"http://127.0.0.1:{free_port()}"
    lab = Child("the lab", *_lab_arguments(options, folder, address), log=folder / "lab.log")
    watches: list[asyncio.Task[None]] = []
    product: Child | None = None
    try:
        progress.begin("simulating the two hours before the page")
        await lab.start()
        watches.append(asyncio.create_task(must_not_end(lab)))
        await _or_failure(_exists(folder / ADDRESSES_FILE), watches)
        addresses = json.loads((folder / ADDRESSES_FILE).read_text(encoding="utf-8"))

        progress.begin("starting Watchkeeper")
        variables = read_environment(folder)
        await run_once(Child("migrate", "-m", "bot", "migrate", log=folder / "migrate.log", variables=variables))
        product = Child("Watchkeeper", "-m", "bot", "serve", log=folder / "watchkeeper.log", variables=variables)
        is_up = asyncio.Event()
        await product.start()
        watches.append(asyncio.create_task(keep_running(product, is_up)))
        await _or_failure(until_ready(address), watches)
        is_up.set()
        progress.say(f"Watchkeeper is ready at {address}; the page of the local Slack is {addresses['page']}")
        async with _failing_with(watches):
            yield Drill(
                folder=folder, lab=lab, product=product, page=addresses["page"], pagerduty=addresses["pagerduty"]
            )
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in (product, lab) if child is not None))


def _lab_arguments(options: DemoOptions, folder: Path, product: str) -> list[str]:
    return [
        *("-m", "lab", "serve", "--folder", str(folder), "--product", product),
        *("--scenario", options.scenario, "--pace", f"{options.pace:g}", "--seed", str(options.seed)),
    ]


def _new_folder() -> Path:
    return Path("var") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"


async def _exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it; a look takes microseconds
        await asyncio.sleep(0.05)


async def _or_failure(waiting: Any, watches: list[asyncio.Task[None]]) -> None:
    """Wait for this, at most as long as a start may take; a process that ends meanwhile is the answer instead."""
    task = asyncio.ensure_future(waiting)
    try:
        done, _ = await asyncio.wait({task, *watches}, timeout=STARTUP_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise DemoError(f"nothing was ready within {STARTUP_PATIENCE_S:.0f} s")
        for finished in done:
            await finished
    finally:
        task.cancel()


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


def _page_client(drill: Drill) -> httpx.AsyncClient:
    return local_client(base_url=drill.page)


async def _still_missing(drill: Drill, client: httpx.AsyncClient) -> list[str]:
    """What a good end still lacks, in words: PagerDuty, the world and the card are each asked."""
    truth = (await client.get("/lab/truth")).json()
    channel = (await client.get("/channel")).json()
    said = [" ".join(lines_of(m)).lower() for m in messages_in(channel) if m["user"] == BOT_USER]
    checks = {
        "the world is not healed by the right change": bool(truth["healed"]),
        "the card does not say that the fix is verified": any("verified" in text for text in said),
        "PagerDuty's incident is not resolved by Watchkeeper": await _resolved_by_product(drill),
    }
    return [what for what, is_so in checks.items() if not is_so]


async def _resolved_by_product(drill: Drill) -> bool:
    variables = read_environment(drill.folder)
    trust = ssl.create_default_context(cafile=variables["SSL_CERT_FILE"])
    headers = {"Authorization": f"Token token={variables['PAGERDUTY_API_KEY']}"}
    async with httpx.AsyncClient(base_url=drill.pagerduty, verify=trust, trust_env=False) as client:
        incidents = (await client.get("/incidents", headers=headers)).json()["incidents"]
    return bool(incidents) and all(
        incident["status"] == "resolved" and incident["last_status_change_by"]["id"] == WATCHKEEPER_PAGERDUTY
        for incident in incidents
    )


async def _print_thread(client: httpx.AsyncClient) -> None:
    """The channel as Mallory sees it: everything public, and the refusal that only she was told."""
    channel = (await client.get("/channel", params={"person": MALLORY.slack})).json()
    print(f"\n#{channel['channel']['name']}")
    for message in channel["messages"]:
        print(as_text(message), end="\n\n")


_INVITATION = """
Open {page}

About a minute of lab time from now a prompt change slows the service `chat` down, and the page comes in.
  1. As Mallory (top right), try to approve the fix: it is refused, and only you see why.
  2. As Alice, acknowledge.
  3. As Bob, read what the fix will do, and approve it.
Then watch time to first token recover, the fix being verified and the incident resolved.
Try `/oncall help`, too. Logs and the configuration: {folder}

Ctrl-C stops everything.
"""
