"""Prompt files in a real Git work tree, with names and texts that mean harm."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diagnostics.changes.change import ChangeSourceError
from diagnostics.changes.git import GitPrompts, parse_log
from diagnostics.target import PromptRef, Target
from tests.needs import need_program

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(service="chat", prompts=(PromptRef(name="chat-system"), PromptRef(name="chat-summary")))


class WorkTree:
    """A repository in which Bob commits prompt files at given times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git = need_program("git", "apt-get install git")
        self.run("init", "--quiet", "--initial-branch=main")

    def run(self, *arguments: str, at: datetime = NOON) -> None:
        stamp = at.isoformat()
        environment = {
            "PATH": "/usr/bin:/bin:/usr/local/bin",
            "HOME": str(self.folder),
            "GIT_COMMITTER_DATE": stamp,
            "GIT_AUTHOR_DATE": stamp,
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        identity = ("-c", "user.name=Bob", "-c", "user.email=bob@example.com")
        subprocess.run([self.git, *identity, *arguments], cwd=self.folder, env=environment, check=True, timeout=20)

    def commit(self, path: str, text: str, minutes_ago: float, subject: str = "a change") -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.run("add", "--", path)
        self.run("commit", "--quiet", "-m", subject, at=NOON - timedelta(minutes=minutes_ago))


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    return WorkTree(tmp_path)


def source(folder: Path) -> GitPrompts:
    return GitPrompts(name="repo", folder=folder, patience_s=20.0)


async def test_a_changed_prompt_file_is_a_change(tree: WorkTree) -> None:
    """Time, author, subject, and the file before and after."""
    tree.commit("prompts/chat-system.txt", "old", 600)
    tree.commit("prompts/chat-system.txt", "new", 9, "Tell the time")
    [change] = await source(tree.folder).changes(CHAT, SINCE, UNTIL)
    assert (change.kind, change.author, change.at) == ("prompt", "Bob", NOON - timedelta(minutes=9))
    assert (change.before, change.after) == ("old", "new")
    assert change.summary == "changed prompts/chat-system.txt: Tell the time"
    assert change.scope == {"prompt": ("chat-system",)}


async def test_added_and_removed_files_have_one_side(tree: WorkTree) -> None:
    """What did not exist is not empty text."""
    tree.commit("chat-system.txt", "first", 20)
    tree.run("rm", "--quiet", "--", "chat-system.txt")
    tree.run("commit", "--quiet", "-m", "gone", at=NOON - timedelta(minutes=5))
    added, removed = await source(tree.folder).changes(CHAT, SINCE, UNTIL)
    assert (added.before, added.after) == (None, "first")
    assert (removed.before, removed.after) == ("first", None)


async def test_files_that_are_no_prompts_are_not_reported(tree: WorkTree) -> None:
    """Only the target's prompts count, and only within the time."""
    tree.commit("chat-summary.txt", "too old", 900)
    tree.commit("README.md", "words", 9)
    assert await source(tree.folder).changes(CHAT, SINCE, UNTIL) == []


async def test_only_the_folder_is_read(tree: WorkTree) -> None:
    """A source on one folder of a repository does not see the others."""
    (tree.folder / "mine").mkdir()
    tree.commit("theirs/chat-system.txt", "x", 9)
    tree.commit("mine/chat-summary.txt", "y", 8)
    [change] = await source(tree.folder / "mine").changes(CHAT, SINCE, UNTIL)
    assert change.scope == {"prompt": ("chat-summary",)}
    assert change.after == "y"


@pytest.mark.parametrize(
    "folder", ["--upload-pack=touch owned", "$(touch owned)", "a;touch owned", "new\nline", "tab\there", "übung '\""]
)
async def test_hostile_names_are_only_names(tree: WorkTree, folder: str) -> None:
    """A path is an argument, never an option and never a command; odd bytes survive."""
    tree.commit(f"{folder}/chat-system.txt", "text", 9, "$(touch owned) `touch owned`")
    [change] = await source(tree.folder).changes(CHAT, SINCE, UNTIL)
    assert change.after == "text"
    assert change.undo["path"] == f"{folder}/chat-system.txt"
    assert not list(tree.folder.rglob("owned"))


async def test_the_repositorys_own_configuration_runs_nothing(tree: WorkTree) -> None:
    """Hooks, fsmonitor and external diff programs of the work tree stay unused."""
    tree.commit("chat-system.txt", "text", 9)
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.x.textconv"):
        tree.run("config", key, "touch owned; false")
    (tree.folder / ".gitattributes").write_text("*.txt diff=x\n")
    assert len(await source(tree.folder).changes(CHAT, SINCE, UNTIL)) == 1
    assert not (tree.folder / "owned").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
async def test_a_folder_of_another_user_is_read(tree: WorkTree) -> None:
    """A sidecar that pulls the repository runs as somebody else; git would refuse such a folder."""
    tree.commit("prompts/chat-system.md", "Be kind.", 30)
    for path in (tree.folder, *tree.folder.rglob("*")):
        os.chown(path, 65_534, 65_534, follow_symlinks=False)

    assert await GitPrompts(name="git", folder=tree.folder).changes(CHAT, SINCE, UNTIL)


async def test_no_repository_is_a_blind_spot(tmp_path: Path) -> None:
    """Git's own first line is the reason; a missing folder is one too."""
    with pytest.raises(ChangeSourceError, match="git failed"):
        await source(tmp_path).changes(CHAT, SINCE, UNTIL)
    with pytest.raises(ChangeSourceError, match="git cannot run in"):
        await source(tmp_path / "nowhere").changes(CHAT, SINCE, UNTIL)


def test_a_log_that_cannot_be_read_is_refused() -> None:
    """A header with too few fields is an error, not a guess."""
    with pytest.raises(ChangeSourceError, match="header cannot be read"):
        parse_log("\x1eonly\x1ftwo\x1e\n\0M\0file\0")
