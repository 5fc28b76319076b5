"""`python -m tests.pictures`: play the demo in a headless Chromium and write the screenshots of the documentation."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from lab.actors import Eyes, find
from lab.demo import still_missing
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.people import BOB, MALLORY
from lab.progress import Progress
from tests.browser import browser_tab

DOCS = Path(__file__).resolve().parents[1] / "docs"


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running_drill(DrillOptions(folder=Path(folder) / "drill"), Progress()) as drill:
            await _offered(drill, Path(folder))
            await _resolved(drill, Path(folder))


async def _offered(drill: Drill, folder: Path) -> None:
    """The card with a fix, as Bob sees it just before he says yes."""
    async with local_client(base_url=drill.page) as client:
        await Eyes(client, BOB).until(lambda seen: find(seen, "approve") is not None)
        async with browser_tab(f"{drill.page}/?as=bob&theme=light", folder / "one", height=1560) as tab:
            await tab.until("document.body?.innerText.includes('Approve')")
            await asyncio.sleep(1)
            await tab.picture(DOCS / "demo.png")
        await Eyes(client, BOB).press("approve", until=lambda seen: find(seen, "approve") is None)


async def _resolved(drill: Drill, folder: Path) -> None:
    """The end of the story, in the dark, as somebody sees it who had nothing to say in it."""
    async with local_client(base_url=drill.page) as client:
        while await still_missing(drill, client):
            await asyncio.sleep(0.3)
        url = f"{drill.page}/?as={MALLORY.name.partition(' ')[0].lower()}&theme=dark"
        async with browser_tab(url, folder / "two", height=1360) as tab:
            await tab.until("document.body?.innerText.includes('resolved')")
            await asyncio.sleep(1)
            await tab.picture(DOCS / "demo-resolved.png")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
