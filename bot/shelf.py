"""
The runbooks that this process works with now: read again by the clock, replaced as a whole for search and for fixes.

Every process looks for itself, so that none has to be told or restarted. A change counts when two looks in a row find
the same: a file that is still being written, or a work tree between `fetch` and `merge`, is not taken for a new state.
What people were shown stays: a plan is frozen when it is made, with the hash of the runbook that it came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.config import RunbookFolder
from bot.library import Librarian, Shelf
from retrieval.embedder import EmbeddingError
from retrieval.ranking import RunbookSearch
from runbooks.engine.problems import Problem
from runbooks.engine.values import Runbook

log = structlog.get_logger()

EVERY_S = 5.0


class LiveShelf:
    """`now` is one unchanging shelf: whoever asks twice may get two of them, so ask once for what belongs together."""

    def __init__(self, folders: Sequence[RunbookFolder]) -> None:
        self._librarian = Librarian(folders)
        self._search: RunbookSearch | None = None
        self._ticker = AsyncIOScheduler(timezone=UTC)
        self._seen = self.now = self._librarian.shelf()
        self.since = datetime.now(UTC)

    def runbooks(self) -> Mapping[str, Runbook]:
        """By id, as they are now."""
        return self.now.runbooks

    async def begin(self, search: RunbookSearch) -> None:
        """Search these runbooks, and look for changes from now on."""
        self._search = search
        _tell(self.now.problems)
        await search.refresh(self.now.documents())
        self._ticker.add_job(self.look, "interval", seconds=EVERY_S, coalesce=True, max_instances=1)
        self._ticker.start()

    def end(self) -> None:
        """Look no more."""
        if self._ticker.running:
            self._ticker.shutdown(wait=False)

    async def look(self) -> None:
        """Read the folders; what changed and has settled is embedded beside the old, then both are replaced at once."""
        found = await asyncio.to_thread(self._librarian.shelf)
        has_settled, self._seen = found == self._seen, found
        if not has_settled:
            return
        if found == self.now:
            await self._mend()
            return
        if self._search is not None:
            await self._search.refresh(found.documents())
        before, self.now, self.since = self.now, found, datetime.now(UTC)  # nothing else runs between refresh and this
        _tell([problem for problem in found.problems if problem not in before.problems])
        log.info("the runbooks changed", runbooks=len(found.runbooks), sha256=found.sha256, **_changes(before, found))

    async def _mend(self) -> None:
        """Vectors that could not be had when the shelf changed are tried for again."""
        if self._search is None or not self._search.lacks_vectors:
            return
        try:
            await self._search.warm()
        except EmbeddingError as error:
            log.warning("runbooks are still searched by words only", reason=str(error))

    def __str__(self) -> str:
        """For people: how many, which exactly, and since when."""
        how = "by words and meaning" if self._search is not None and self._search.by_meaning else "by words only"
        at = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{len(self.now.runbooks)} runbooks (SHA-256 {self.now.sha256[:12]}) since {at}, found {how}"


def _tell(problems: Sequence[Problem]) -> None:
    for problem in problems:
        log.error("runbook is not as written", problem=str(problem))


def _changes(before: Shelf, after: Shelf) -> dict[str, list[str]]:
    """The names of runbooks and pages that came, went and changed."""
    old, new = ({**shelf.pages, **shelf.runbooks} for shelf in (before, after))
    changed = [name for name, book in new.items() if name in old and book != old[name]]
    return {"added": sorted(new.keys() - old.keys()), "removed": sorted(old.keys() - new.keys()), "changed": changed}
