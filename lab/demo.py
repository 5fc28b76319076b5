"""
`watchkeeper demo`: an incident on this machine, or several in a row, from the page to the verified fix.

The lab and the product are two processes that know each other by addresses alone; this one only starts them, tells
what happens, and judges at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lab.actors import messages_in, play_story
from lab.configuration import read_environment
from lab.demo_processes import DemoError
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOT_USER, MALLORY, WATCHKEEPER_PAGERDUTY
from lab.progress import Progress
from lab.scenarios import scenario
from lab.slack_text import as_text, lines_of

LOOK_EVERY_S = 0.3
STOPPED_BY_A_PERSON = 130

_SAYS_VERIFIED = re.compile(r"telemetry confirms|(?<!not )(?<!not_)\bverified\b")
_APPROVED_BY_STRANGER = re.compile(rf"Approved by .*{MALLORY.name}")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How to play; `deadline_s` bounds each headless story, its start included."""

    drills: tuple[DrillOptions, ...]
    is_headless: bool = False
    holds: bool = False
    deadline_s: float = 90.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a headless story ended: after how long, and what its good end lacks."""

    scenario: str
    took_s: float
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.missing:
            return f"not finished after {self.took_s:.0f} s: " + "; ".join(self.missing)
        return f"resolved by the approved and verified fix after {self.took_s:.0f} s"


async def play(options: DemoOptions) -> int:
    """The exit status: 0 when every story ended well, or when a person stopped an interactive demo."""
    stopped = asyncio.Event()
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stopped.set)
    progress = Progress()
    story = asyncio.create_task(
        _headless(options, progress) if options.is_headless else _interactive(options.drills[0], progress)
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
        return STOPPED_BY_A_PERSON if options.is_headless else 0
    except DemoError as error:
        progress.say(f"the demo cannot go on: {error}")
        return 1
    finally:
        progress.close()


async def _interactive(options: DrillOptions, progress: Progress) -> int:
    played = scenario(options.scenario)
    async with running_drill(options, progress) as drill:
        progress.say(
            _INVITATION.format(
                title=played.title, page=drill.page, folder=drill.folder, approver=played.approver.first_name
            )
        )
        await asyncio.Event().wait()
    return 0


async def _headless(options: DemoOptions, progress: Progress) -> int:
    """One story after the other, each with a lab and a product of its own; one that cannot go on ends only itself."""
    endings = []
    for drill in options.drills:
        started_s = time.monotonic()
        try:
            endings.append(await _one_headless(drill, options, progress))
        except DemoError as error:
            progress.say(f"the demo cannot go on: {error}")
            took_s = time.monotonic() - started_s
            endings.append(Ending(scenario=drill.scenario, took_s=took_s, missing=("it could not go on",)))
    if len(endings) > 1:
        for ending in endings:
            progress.say(f"{ending.scenario}: {ending}")
    return int(any(ending.missing for ending in endings))


async def _one_headless(played: DrillOptions, options: DemoOptions, progress: Progress) -> Ending:
    started_s = time.monotonic()
    progress.say(f"{played.scenario}: {scenario(played.scenario).title}")
    async with running_drill(played, progress) as drill, local_client(base_url=drill.page) as client:
        left_s = options.deadline_s - (time.monotonic() - started_s)
        missing = await _missing_after(left_s, drill, client, progress)
        await _print_thread(client)
        ending = Ending(scenario=played.scenario, took_s=time.monotonic() - started_s, missing=tuple(missing))
        progress.say(str(ending))
        if missing:
            for child in (drill.product, drill.lab):
                print(f"\n--- end of {child.log} ---\n{child.tail()}", flush=True)
        if options.holds:
            progress.say(f"still running: {drill.page} (Ctrl-C stops everything)")
            await asyncio.Event().wait()
    return ending


async def _missing_after(left_s: float, drill: Drill, client: httpx.AsyncClient, progress: Progress) -> list[str]:
    """Let the actors play and wait for the good end; what it still lacks when the time is over, or nothing."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(left_s):
            await play_story(client, progress.say, approver=scenario(drill.scenario).approver)
            while await still_missing(drill, client):  # noqa: ASYNC110 - other processes change it
                await asyncio.sleep(LOOK_EVERY_S)
    return await still_missing(drill, client)


async def still_missing(drill: Drill, client: httpx.AsyncClient) -> list[str]:
    """What a good end lacks, in words: the world, the card and PagerDuty are each asked."""
    truth = (await client.get("/lab/truth")).json()
    channel = (await client.get("/channel")).json()
    said = "\n".join(line for m in messages_in(channel) if m["user"] == BOT_USER for line in lines_of(m))
    cards = "\n".join(line for m in channel["messages"] if m["user"] == BOT_USER for line in lines_of(m))
    checks = {
        "the card does not name the true cause": f"({truth['cause']})," in cards,
        "the card does not suspect the guilty change": names_culprit(cards, truth["culprit"]),
        "a stranger's approval counted": not _APPROVED_BY_STRANGER.search(said),
        "the world is not healed by the right change": bool(truth["healed"]),
        "a far end was asked for what it does not know": not truth["violations"],
        "the card does not say that the fix is verified": bool(_SAYS_VERIFIED.search(said)),
        "PagerDuty's incident is not resolved by Watchkeeper": await _resolved_by_product(drill),
    }
    return [what for what, is_so in checks.items() if not is_so]


def names_culprit(cards: str, culprit: Mapping[str, Any] | None) -> bool:
    """Whether the guilty change is on the card itself, if there is one; the thread also tells of innocent ones."""
    if culprit is None:
        return True
    if "prompt" in culprit:
        return f"prompt {culprit['prompt']} is on version {culprit['version']}" in cards
    return f"{culprit['deployment']} revision {culprit['revision']}:" in cards


async def _resolved_by_product(drill: Drill) -> bool:
    incidents = await statuses_in_pagerduty(drill)
    return bool(incidents) and all(
        incident["status"] == "resolved" and incident["last_status_change_by"]["id"] == WATCHKEEPER_PAGERDUTY
        for incident in incidents
    )


async def statuses_in_pagerduty(drill: Drill) -> list[dict[str, Any]]:
    """The drill's incidents, as PagerDuty's REST API shows them."""
    variables = read_environment(drill.folder)
    trust = ssl.create_default_context(cafile=variables["SSL_CERT_FILE"])
    headers = {"Authorization": f"Token token={variables['PAGERDUTY_API_KEY']}"}
    async with httpx.AsyncClient(base_url=drill.pagerduty, verify=trust, trust_env=False) as client:
        incidents: list[dict[str, Any]] = (await client.get("/incidents", headers=headers)).json()["incidents"]
    return incidents


async def _print_thread(client: httpx.AsyncClient) -> None:
    """The channel as Mallory sees it: everything public, and the refusal that only she was told."""
    channel = (await client.get("/channel", params={"person": MALLORY.slack})).json()
    print(f"\n#{channel['channel']['name']}")
    for message in channel["messages"]:
        print(as_text(message), end="\n\n", flush=True)


_INVITATION = """

    {title}.

    Open   {page}

    Within a few minutes of lab time (some seconds of yours) the alert of the service `chat` fires, and the card
    appears. Then:
      1. Act as Mallory (at the top), and try to approve the fix: it is refused, and only Mallory is told.
      2. Act as Alice, and acknowledge.
      3. Act as {approver}, read what the fix will change, and approve it.
    Watch the service recover, the fix being verified, and the incident resolved. Try `/oncall help`, too.

    Logs and configuration: {folder}
    Ctrl-C stops everything.
"""
