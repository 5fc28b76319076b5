"""Only what was reviewed is found or run: five ways to slip a runbook in, against real Git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bot.config import RunbookFolder
from bot.doctor.search import folders_said
from bot.library import FOLDER, Shelf, open_shelf
from diagnostics.changes.change import ChangeSourceError
from diagnostics.changes.git import GitPrompts
from retrieval.documents import Question
from retrieval.ranking import RunbookSearch
from tests.bot.test_library import GOOD
from tests.retrieval.hashing_embedder import HashingEmbedder

STUFFED = "LLMHighTTFT prefix cache hit ratio collapse slow first token queue latency prompt change " * 40


def git(folder: Path, *arguments: str) -> str:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    people = {f"GIT_{who}_{what}": "ann@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.check_output(["git", *arguments], cwd=folder, env=quiet | people, text=True).strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "runbooks")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`books/` of a work tree, where good.md and changed.md were reviewed, merged and fetched."""
    books = tmp_path / "books"
    books.mkdir()
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name in ("good", "changed"):
        (books / f"{name}.md").write_text(GOOD, encoding="utf-8")
    git(tmp_path, "update-ref", "refs/remotes/origin/main", commit(tmp_path))
    return books


def shelf_of(folder: Path, branch: str | None = "origin/main") -> Shelf:
    return open_shelf([RunbookFolder(path=folder, reviewed=branch)])


def poison(folder: Path) -> set[str]:
    """Copies of ours, stuffed with the words people search for, that all say of themselves that they were reviewed."""
    ours = next(file for file in sorted(FOLDER.glob("*.md")) if "LLMHighTTFT" in file.read_text(encoding="utf-8"))
    text = ours.read_text(encoding="utf-8") + f"\n## Symptoms again\n{STUFFED}\n"
    names = {"committed", "staged", "lying-about", "changed", ours.stem}
    (folder / "committed.md").write_text(text, encoding="utf-8")
    commit(folder.parent)  # on main, and on a local branch that is called like the remote one; in no review
    git(folder, "branch", "origin/main")
    git(folder, "replace", "refs/remotes/origin/main", "HEAD")
    for name in names - {"committed"}:
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    git(folder, "add", "staged.md")
    return names


async def ids_found(shelf: Shelf) -> set[str]:
    """All that ever ranks, for what the copies were stuffed with."""
    search = RunbookSearch(HashingEmbedder(), floor=0.0)
    await search.refresh(shelf.documents())
    questions = (Question(text=STUFFED), Question(text="slow first token", alert="LLMHighTTFT"))
    found = [hit for each in questions for hit in await search.search(each, limit=10)]
    files = {hit.origin.file for hit in found}
    return {Path(file).stem for file in files if not file.startswith(str(FOLDER))}


async def test_five_poisoned_runbooks_never_rank(folder: Path) -> None:
    """Front matter, an index, a commit, a branch's name and a replaced object prove nothing; ours keeps its place."""
    poisoned = poison(folder)
    unasked = shelf_of(folder, branch=None)
    assert poisoned <= {each.doc_id for each in unasked.documents()}
    assert len(poisoned & await ids_found(unasked)) == 1, "the bait is taken where nobody asks, as one of a family"

    shelf = shelf_of(folder)

    assert not poisoned & await ids_found(shelf)
    assert set(shelf.runbooks) - set(open_shelf().runbooks) == {"good"}
    assert {problem.path.removesuffix(".md") for problem in shelf.problems} == poisoned
    assert all("not reviewed" in problem.message for problem in shelf.problems)


def test_what_was_reviewed_says_by_which_commit(folder: Path) -> None:
    """File, commit, content and owner go with every answer."""
    origin = next(each.origin for each in shelf_of(folder).documents() if each.doc_id == "good")

    assert origin.commit == git(folder, "rev-parse", "origin/main")
    assert (origin.file, origin.owner, len(origin.sha256)) == (str(folder / "good.md"), "the team", 64)


@pytest.mark.parametrize("broken", ["no such branch", "no Git"])
def test_when_git_cannot_say_nothing_counts(folder: Path, broken: str) -> None:
    """A lost ref or a copied folder must not turn into trust; it is told, and ours go on."""
    if broken == "no Git":
        (folder.parent / ".git").rename(folder.parent / "gone")
    shelf = shelf_of(folder, "origin/main" if broken == "no Git" else "origin/release")

    assert set(shelf.runbooks) == set(open_shelf().runbooks)
    [problem] = shelf.problems
    assert "none of its files counts" in problem.message


async def test_a_hostile_git_config_runs_nothing(folder: Path) -> None:
    """Whoever may write .git/config can name commands; reading the folder's runbooks or changes runs none of them."""
    mark, work = folder.parent / "was-run", folder.parent
    command = f"touch {mark}"
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{command}",
        "protocol.ext.allow": "always",
        "core.sshCommand": command,
        "core.fsmonitor": command,
        "core.pager": command,
        "core.hooksPath": str(work / "hooks"),
        "diff.external": command,
        "gpg.program": command,
    }.items():
        git(work, "config", key, value)
    blob = git(folder, "-c", "core.fsmonitor=false", "rev-parse", "HEAD:./good.md")
    mark.unlink(missing_ok=True)
    (work / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(subprocess.CalledProcessError):
        git(folder, "cat-file", "-p", blob)
    assert mark.exists(), "the bait is taken where nobody takes care"
    mark.unlink()

    shelf = shelf_of(folder)
    with pytest.raises(ChangeSourceError):
        await GitPrompts(name="prompts", folder=folder)._git("cat-file", "blob", blob)

    assert "good" not in shelf.runbooks
    assert not mark.exists()


def test_the_doctor_names_folders_that_nobody_reviews(folder: Path) -> None:
    """Whoever may write there decides what people read at night; that has to be a choice that is seen."""
    [advice] = folders_said([RunbookFolder(path=folder), RunbookFolder(path=folder, reviewed="origin/main")])

    assert (advice.about, advice.state) == ("runbook folder", "unknown")
    assert 'reviewed = "origin/main"' in advice.remedy


async def test_a_plain_page_is_held_to_the_same_proof(folder: Path) -> None:
    """People do at night what a page says; one in a subfolder counts once it was reviewed, merged and fetched."""
    (folder / "more").mkdir()
    (folder / "more/page.md").write_text(f"# A page\n\n{STUFFED}\n", encoding="utf-8")
    before = shelf_of(folder)
    assert ([problem.path for problem in before.problems], before.pages) == (["more/page.md"], {})
    assert "page" not in await ids_found(before)

    git(folder, "update-ref", "refs/remotes/origin/main", commit(folder))

    after = shelf_of(folder)
    assert (after.problems, after.pages["more/page"].origin.commit) == ((), git(folder, "rev-parse", "HEAD"))
    assert "page" in await ids_found(after)
