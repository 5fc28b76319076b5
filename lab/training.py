"""
`watchkeeper drill` for a person: an incident in the local Slack, without a word about its cause.

Afterwards it tells the cause, and shows what was done, when, beside what the runbook asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx

from lab.actors import UNDER_WAY, Channel, card_lines, carry_out, fix_on, messages_in, step_waiting, steps_on
from lab.demo import statuses_in_pagerduty
from lab.demo_processes import DemoError
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOT_USER
from lab.progress import Progress
from lab.scenarios.faults import FAULTS

LOOK_EVERY_S = 0.5
_LAST_LOOKS = 20
_DEEDS = re.compile(r"\d\d:\d\d UTC ([A-Z].+?)(?: · (?=\d\d:\d\d UTC)|$)")
"""The card's line of what people did: who did what at which minute, with dots between."""


@dataclass(kw_only=True)
class Diary:
    """What was seen first when, in seconds since the page, and the fixes that were on the card, with their steps."""

    clock: Callable[[], float] = time.monotonic
    entries: list[tuple[float, str]] = field(default_factory=list)
    offered: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    _began_s: float | None = None

    def note(self, what: str) -> None:
        """Once each."""
        if any(said == what for _, said in self.entries):
            return
        now = self.clock()
        self._began_s = now if self._began_s is None else self._began_s
        self.entries.append((now - self._began_s, what))

    def look(self, channel: Channel, *, is_resolved: bool) -> None:
        """Write down what the channel shows that it did not show before."""
        if any(message["user"] == BOT_USER for message in channel["messages"]):
            self.note("the card stands in the channel")
        for line in card_lines(channel):
            for deed in _DEEDS.findall(line) if _DEEDS.match(line) else ():
                self.note(deed)
        fix, state = fix_on(channel)
        if fix:
            self.offered[fix] = steps_on(channel) or self.offered.get(fix, [])
            self.states[fix] = state
            self.note(f"{fix}: {state}")
        for message in messages_in(channel):
            if message["user"] != BOT_USER:
                self.note(f"{message.get('author', message['user'])} wrote: {message.get('text', '')}")
        if is_resolved:
            self.note("the incident is resolved in PagerDuty")

    def told(self, scenario: str) -> list[str]:
        """The debriefing, line by line."""
        fault = FAULTS[scenario]
        ran = [fix for fix, state in self.states.items() if state.startswith(("done", "failed", "interrupted"))]
        lines = ["", f"It was {scenario}: {fault.title}.", "", "What happened, by minutes since the page:"]
        waits = [0.0, *(at for at, _ in self.entries)]
        lines += [
            f"  {_minutes(at)}  (+{at - before:.0f} s)  {what}"
            for (at, what), before in zip(self.entries, waits, strict=False)
        ]
        lines += ["", "What the runbooks on the card asked for:"]
        for fix, steps in self.offered.items():
            done = "was carried out" if fix in ran else "was not carried out"
            lines += [f"  {fix} ({done}: {self.states[fix]})", *(f"    {n}. {step}" for n, step in enumerate(steps, 1))]
        if not self.offered:
            lines.append("  No fix was offered before it was over.")
        return [*lines, ""]


async def train(options: DrillOptions) -> int:
    """Play one fault for whoever has the page open, until it is resolved or Ctrl-C; then the debriefing."""
    stopped = asyncio.Event()
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stopped.set)
    progress, diary = Progress(), Diary()
    playing = asyncio.create_task(_play(options, progress, diary))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({playing, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    playing.cancel()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await playing
    except DemoError as error:
        progress.say(f"the drill cannot go on: {error}")
        return 1
    finally:
        progress.close()
    print("\n".join(diary.told(options.scenario)), flush=True)
    return 0


async def _play(options: DrillOptions, progress: Progress, diary: Diary) -> None:
    folder = options.folder or Path("var") / f"drill-{datetime.now(UTC):%Y%m%d-%H%M%S}"  # its name tells nothing
    hidden = replace(options, folder=folder, hides_answer=True)
    async with running_drill(hidden, progress) as drill, local_client(base_url=drill.page) as client:
        progress.say(_INVITATION.format(page=drill.page))
        await _watch(drill, client, progress, diary)
        progress.say("the incident is resolved; what follows is the debriefing")


async def _watch(drill: Drill, client: httpx.AsyncClient, progress: Progress, diary: Diary) -> None:
    """Until PagerDuty says that it is over, and the card too. What a step asks a person to do is done as it asks."""
    worked: set[str] = set()
    looks = 0
    while True:
        channel: Channel = (await client.get("/channel")).json()
        incidents = await statuses_in_pagerduty(drill)
        is_resolved = bool(incidents) and all(incident["status"] == "resolved" for incident in incidents)
        if incidents:
            diary.note("paged")
        diary.look(channel, is_resolved=is_resolved)
        if is_resolved and (fix_on(channel)[1] not in UNDER_WAY or looks > _LAST_LOOKS):
            return
        looks += is_resolved
        place = step_waiting(channel)
        if place is not None and (instruction := await carry_out(client, channel, place, but=worked)):
            worked.add(instruction)
            diary.note(f"the platform team did by hand: {instruction}")
            progress.say("the platform team does by hand what the step asks for; it is done, you may report it")
        await asyncio.sleep(LOOK_EVERY_S)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60:2d}:{int(seconds) % 60:02d}"


_INVITATION = """

    You are on call for the service `chat`.

    Open   {page}

    Within a few minutes of lab time (some seconds of yours) a page comes in. Act as Alice (on call), Bob (prompt
    owner) or Dana (service owner), at the top of the page: find out what is wrong, choose the fix, have it approved,
    and see to it that it helped. What a step asks a person to do by hand, the platform team does for you.

    When the incident is resolved, or with Ctrl-C, you learn what it was and how you did.
"""
