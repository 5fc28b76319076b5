"""The shelf in use: a changed folder counts without a restart, as a whole, and what breaks takes nothing along."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot.config import RunbookFolder
from bot.shelf import LiveShelf
from retrieval.documents import Question
from retrieval.embedder import Vectors
from retrieval.ranking import RunbookSearch
from tests.bot.test_library import GOOD
from tests.bot.test_reviewed_runbooks import commit, git
from tests.retrieval.hashing_embedder import HashingEmbedder

ZEBRA = GOOD.replace("Add one.", "The zebra crossing of requests is closed.")
BROKEN = "---\nformat: 1\n---\nNo title.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A team's folder with two runbooks."""
    books = tmp_path / "books"
    books.mkdir()
    (books / "queue.md").write_text(GOOD, encoding="utf-8")
    (books / "other.md").write_text(GOOD.replace("another replica", "a warm bath"), encoding="utf-8")
    return books


async def begun(folder: Path, search: RunbookSearch, branch: str | None = None) -> LiveShelf:
    """A shelf in use whose clock stands still: tests look themselves."""
    shelf = LiveShelf([RunbookFolder(path=folder, reviewed=branch)])
    await shelf.begin(search)
    shelf.end()
    return shelf


def moved(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


async def look_twice(shelf: LiveShelf) -> None:
    await shelf.look()
    await shelf.look()


async def found(search: RunbookSearch, text: str) -> list[str]:
    return [hit.doc_id for hit in await search.search(Question(text=text))]


async def test_a_changed_runbook_counts_without_a_restart(folder: Path) -> None:
    """Search and fixes get the new one, whose changed section alone is embedded; a second look says it has settled."""
    embedder = HashingEmbedder()
    search = RunbookSearch(embedder)
    shelf = await begun(folder, search)
    before, already = shelf.now, len(embedder.embedded)
    (folder / "queue.md").write_text(ZEBRA, encoding="utf-8")

    await shelf.look()
    assert shelf.now is before, "a file that may still be written counts as nothing new"
    with capture_logs() as logs:
        await shelf.look()

    assert "zebra" in shelf.runbooks()["queue"].text
    assert before.runbooks["queue"].revision != shelf.runbooks()["queue"].revision
    assert before.runbooks["other"] is shelf.runbooks()["other"], "what did not change is not parsed again"
    assert shelf.now.sha256 != before.sha256
    assert ["zebra" in text for text in embedder.embedded[already:]] == [True]
    assert (await found(search, "zebra crossing"))[0] == "queue"
    [told] = [line for line in logs if line["event"] == "the runbooks changed"]
    assert (told["changed"], told["added"], told["removed"]) == (["queue"], [], [])


async def test_a_broken_file_takes_nothing_along(folder: Path) -> None:
    """It is left out, told once and named; its neighbours stay, and it is back when it is mended."""
    search = RunbookSearch()
    shelf = await begun(folder, search)
    (folder / "queue.md").write_text(BROKEN, encoding="utf-8")

    with capture_logs() as logs:
        await look_twice(shelf)
        await look_twice(shelf)

    assert "queue" not in shelf.runbooks()
    assert "other" in shelf.runbooks()
    assert {problem.path for problem in shelf.now.problems} == {"queue.md"}
    assert [line["event"] for line in logs].count("the runbooks changed") == 1
    assert "queue" not in await found(search, "needs another replica")
    (folder / "queue.md").write_text(GOOD, encoding="utf-8")
    await look_twice(shelf)
    assert (shelf.now.problems, "queue" in shelf.runbooks()) == ((), True)


async def test_a_folder_that_is_away_stays_as_it_was(folder: Path) -> None:
    """A volume that went away at night must not take the runbooks along; whoever asks is told."""
    shelf = await begun(folder, RunbookSearch())
    before = shelf.now
    moved(folder, "away")

    await look_twice(shelf)

    assert shelf.now.sha256 == before.sha256
    [problem] = shelf.now.problems
    assert "its 2 runbooks stay as they were" in problem.message
    moved(folder.with_name("away"), folder.name)
    await look_twice(shelf)
    assert shelf.now == before


async def test_what_a_branch_holds_counts_when_it_moves(folder: Path) -> None:
    """An edit that nobody merged takes the runbook out; the merge brings it in; when Git is away all stays."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    first = commit(folder)
    git(folder, "update-ref", "refs/remotes/origin/main", first)
    shelf = await begun(folder, RunbookSearch(), "origin/main")
    (folder / "queue.md").write_text(ZEBRA, encoding="utf-8")

    await look_twice(shelf)
    assert ("queue" in shelf.runbooks(), "other" in shelf.runbooks()) == (False, True)

    second = commit(folder)
    git(folder, "update-ref", "refs/remotes/origin/main", second)
    await look_twice(shelf)
    assert "zebra" in shelf.runbooks()["queue"].text
    assert {shelf.now.places[name].commit for name in ("queue", "other")} == {second}

    before = shelf.now
    moved(folder / ".git", "gone")
    await look_twice(shelf)
    assert shelf.now.sha256 == before.sha256
    assert "origin/main holds cannot be told" in shelf.now.problems[0].message


class Slow(HashingEmbedder):
    """Embeds a shelf when it is let, and questions at once."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.asked = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if any("zebra" in text and "Fix" in text for text in texts):
            self.asked.set()
            await self.let.wait()
        return await super().embed(texts)


async def test_search_and_fixes_change_in_one_moment(folder: Path) -> None:
    """While the new sections are embedded, both go on with the old shelf; afterwards both have the new one."""
    embedder = Slow()
    search = RunbookSearch(embedder, floor=0.0)
    shelf = await begun(folder, search)
    before = shelf.now
    (folder / "queue.md").write_text(ZEBRA, encoding="utf-8")
    await shelf.look()
    looking = asyncio.create_task(shelf.look())
    await embedder.asked.wait()

    def pair(hits: Sequence[object]) -> tuple[set[str], set[str]]:
        searched = {hit.origin.sha256 for hit in hits if hit.doc_id == "queue"}  # type: ignore[attr-defined]
        return searched, {shelf.runbooks()["queue"].revision}

    question = Question(text="A deployment needs another replica: zebra")
    old = before.runbooks["queue"].revision
    assert pair(await search.search(question)) == ({old}, {old})
    embedder.let.set()
    await looking

    new = shelf.runbooks()["queue"].revision
    assert new != old
    assert pair(await search.search(question)) == ({new}, {new})


async def test_vectors_that_could_not_be_had_are_tried_for_again(folder: Path) -> None:
    """A GPU that was full for a moment must not leave a night without meaning."""
    embedder = HashingEmbedder()
    search = RunbookSearch(embedder)
    shelf = await begun(folder, search)
    (folder / "queue.md").write_text(ZEBRA, encoding="utf-8")
    embedder.broken = True
    await look_twice(shelf)
    assert ("zebra" in shelf.runbooks()["queue"].text, search.by_meaning) == (True, False)

    await shelf.look()
    assert not search.by_meaning
    embedder.broken = False
    await shelf.look()

    assert search.by_meaning
    assert "found by words and meaning" in str(shelf)
