"""Whole incidents on the page, in a real browser: stranger, on-call and approver, with kill -9 in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lab.demo import still_missing
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.people import ALICE, MALLORY, Person
from lab.progress import Progress
from lab.scenarios import scenario
from tests.browser import Tab, browser_tab

DEADLINE_S = 150

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(DEADLINE_S + 30)]


class Seat:
    """One person in front of the browser."""

    def __init__(self, tab: Tab, drill: Drill) -> None:
        self._tab = tab
        self._drill = drill

    async def sit_down(self, person: Person) -> None:
        await self._tab.call("Page.navigate", url=f"{self._drill.page}/?as={person.id}&theme=light")
        await self.sees(f"document.querySelector('#role')?.textContent.includes({person.title!r})")
        await self.sees("document.querySelector('#log .message')")

    async def sees(self, condition: str) -> None:
        """Wait until the page shows it; the whole story has one deadline."""
        while not await self._tab.run(f"Boolean({condition})"):
            await asyncio.sleep(0.1)

    async def reads(self, words: str) -> None:
        await self.sees(f"document.body.innerText.includes({words!r})")

    async def presses(self, action: str) -> None:
        """The button, and yes when the page asks again."""
        await self.sees(f"document.querySelector('[data-action={action}]')")
        await self._tab.run(f"document.querySelector('[data-action={action}]').click()")
        await self._tab.run("document.querySelector('#confirm[open] #confirm-yes')?.click()")

    async def presses_until_gone(self, action: str) -> None:
        """Like a person who is told to try again in a moment."""
        button = f"document.querySelector('[data-action={action}]')"
        while await self._tab.run(f"Boolean({button})"):
            await self.presses(action)
            for _ in range(40):
                if not await self._tab.run(f"Boolean({button})"):
                    break
                await asyncio.sleep(0.1)

    async def picture(self, path: Path) -> None:
        await self._tab.picture(path)


def kill(drill: Drill) -> None:
    """kill -9 by the id that the supervisor wrote down for exactly this process; it starts the next one."""
    os.kill(int((drill.folder / "watchkeeper-serve.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("scenario_id", ["S04", "Q01"])
async def test_an_incident_is_played_on_the_page(scenario_id: str, tmp_path: Path) -> None:
    """A stranger is refused in private, a killed bot is missed and comes back, the fix heals and is verified."""
    approver = scenario(scenario_id).approver
    async with (
        asyncio.timeout(DEADLINE_S),
        running_drill(DrillOptions(folder=tmp_path / "drill", scenario=scenario_id), Progress()) as drill,
        local_client(base_url=drill.page) as client,
        browser_tab("about:blank", tmp_path, height=1560) as tab,
    ):
        seat = Seat(tab, drill)
        await seat.sit_down(MALLORY)
        await seat.presses("approve")
        await seat.sees("document.querySelector('.message.private')?.innerText.includes('does not know you')")

        await seat.sit_down(ALICE)
        assert not await tab.run("document.querySelector('.message.private')")
        await seat.presses_until_gone("acknowledge")

        await seat.sit_down(approver)
        await seat.sees("document.querySelector('[data-action=approve]')")
        await seat.picture(tmp_path / "offered.png")
        kill(drill)
        await seat.presses("approve")
        await seat.reads("Watchkeeper is not reachable just now")
        await seat.presses_until_gone("approve")
        kill(drill)

        await seat.reads("the telemetry confirms it")
        await seat.sit_down(MALLORY)
        await seat.reads(f"Approved by {approver.name}")
        while await still_missing(drill, client):
            await asyncio.sleep(0.3)
        await seat.sees("document.querySelector('#incident').textContent === 'resolved'")
        await seat.sees("document.querySelector('#log').innerText.includes('resolved')")
        await seat.picture(tmp_path / "resolved.png")
        mistakes = [entry for entry in tab.console if '"source": "network"' not in entry]  # the killed bot's answers
        assert mistakes == []
