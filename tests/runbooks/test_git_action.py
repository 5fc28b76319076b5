"""Reverting a commit with the real git, on a bare repository beside the team's work tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import GitAccess, build_actions
from runbooks.engine.actions.git import Revert, RevertParams
from runbooks.engine.actions.git_repository import cloned
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.needs import need_program
from tests.runbooks.http_server import basic

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # dozens of processes

OLD, NEW = "You answer briefly.\nBe kind.\nCite.\nStop.\n", "Today is {{now}}.\nBe kind.\nCite.\nStop.\n"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{role}_{what}": "alice@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass(frozen=True, kw_only=True)
class Team:
    """A work tree with `prompts/` in it, and the bare repository that it pushes to."""

    tree: Path
    remote: Path

    def git(self, *arguments: str, at: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=at or self.tree, env=ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, subject: str, **files: str) -> str:
        """Files by their path, with `__` for the slash; pushed. Returns the commit."""
        for name, text in files.items():
            path = self.tree / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", ".")
        self.git("commit", "--quiet", "-m", subject)
        self.git("push", "--quiet", str(self.remote), "HEAD:refs/heads/main")
        return self.git("rev-parse", "HEAD")

    def text(self, path: str = "prompts/chat") -> str:
        return self.git("show", f"main:{path}", at=self.remote) + "\n"

    def head(self) -> str:
        return self.git("rev-parse", "main", at=self.remote)


@pytest.fixture
def team(tmp_path: Path) -> Team:
    need_program("git", "apt-get install git")
    made = Team(tree=tmp_path / "tree", remote=tmp_path / "remote.git")
    made.tree.mkdir()
    made.git("init", "--quiet", "--bare", "--initial-branch=main", str(made.remote))
    made.git("init", "--quiet", "--initial-branch=main", ".")
    made.commit("Begin", prompts__chat=OLD, README="read me\n")
    return made


@pytest.fixture
def bad(team: Team) -> str:
    """The commit that is to blame."""
    return team.commit("Say what day it is", prompts__chat=NEW)


def access(team: Team) -> GitAccess:
    return GitAccess(folder=team.tree / "prompts", remote=str(team.remote), branch="main")


def revert(team: Team, redact: Callable[[str], str] = str) -> Revert:
    return Revert({"folder": access(team)}, redact)


async def test_a_revert_is_pushed_found_and_taken_back(team: Team, bad: str) -> None:
    """The text is back, the trailer tells, the undo brings the commit back; the team's work tree is never touched."""
    action, params = revert(team), RevertParams(commit=bad)
    team.commit("Elsewhere, meanwhile", README="read me twice\n")
    tree = team.git("rev-parse", "HEAD"), (team.tree / "prompts/chat").read_text()
    before = await action.read(params)
    assert action.refusal(params, before) is None
    done = await action.act(params, before, "t-1")

    assert (before["commit"], before["subject"], before["files"]) == (bad, "Say what day it is", ["prompts/chat"])
    assert team.text() == OLD
    assert team.head() == done["commit"]
    message = team.git("log", "-1", "--format=%an%n%B", "main", at=team.remote)
    assert message.splitlines()[:2] == ["Watchkeeper", 'Revert "Say what day it is"']
    assert message.splitlines()[-2:] == [f"Watchkeeper-Reverts: {bad}", "Watchkeeper-Intent: t-1"]
    assert [await action.happened(params, before, token) for token in ("t-1", "", "t-2")] == [
        Happened.YES,
        Happened.YES,
        Happened.NO,
    ]
    assert "would change nothing" in (action.refusal(params, await action.read(params)) or "")

    undo = RevertParams.model_validate(action.undo(params, before))
    found = await action.read(undo)
    assert found["commit"] == done["commit"]
    await action.act(undo, found, "t-3")
    assert team.text() == NEW
    assert await action.happened(undo, found, "t-3") is Happened.YES
    assert (team.git("rev-parse", "HEAD"), (team.tree / "prompts/chat").read_text()) == tree
    assert team.git("status", "--porcelain") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
async def test_a_folder_of_another_user_is_asked_where_it_stands(team: Team, bad: str) -> None:
    """A sidecar that pulls the repository runs as somebody else; git would refuse such a folder."""
    for path in (team.tree, *team.tree.rglob("*")):
        os.chown(path, 65_534, 65_534, follow_symlinks=False)

    before = await revert(team).read(RevertParams(commit=bad))

    assert before["files"] == ["prompts/chat"]


async def test_the_effect_names_branch_commit_and_files(team: Team, bad: str) -> None:
    """And that others' merged work goes along; a subject is text on one line, without credentials."""
    action = revert(team, lambda text: text.replace("what day", "[redacted]"))
    params = RevertParams(commit=bad[:10])
    assert action.effect(params, await action.read(params)) == (
        f"On the branch main of {team.remote}, the commit {bad[:12]} (Say [redacted] it is) is reverted by a new "
        "commit to prompts/chat. Whatever follows the branch deploys it, with all else that was merged and not yet "
        "deployed."
    )
    assert action.tier is Tier.R2
    assert action.target(params) == f"git/branch/{team.remote}#main"


async def test_what_cannot_be_reverted_is_left_to_people(team: Team, bad: str) -> None:
    """A later change of the same lines, another folder, the first commit, one of another branch, none at all."""
    action = revert(team)
    outside = team.commit("Both at once", prompts__other="x\n", README="read me more\n")
    team.git("checkout", "--quiet", "-b", "side", bad)
    (team.tree / "prompts/side").write_text("s\n")
    team.git("add", ".")
    team.git("commit", "--quiet", "-m", "Aside")
    aside = team.git("rev-parse", "HEAD")
    team.git("push", "--quiet", str(team.remote), "side")
    team.git("checkout", "--quiet", "main")
    first = team.git("rev-list", "--max-parents=0", "HEAD")
    team.commit("Reword", prompts__chat=NEW.replace("Today is", "It is now"))

    for commit, words in (
        (bad, "later commits build upon"),
        (outside, "'README', which is outside of prompts/"),
        (first, "the first commit of all"),
        (aside, "the branch has no commit"),
        ("0123456789", "the branch has no commit 0123456789"),
    ):
        with pytest.raises(ActionError, match=words):
            await action.read(RevertParams(commit=commit))
    with pytest.raises(ActionError, match=r"no revert of .* by Watchkeeper"):
        await action.read(RevertParams(commit=bad, again=True))


async def test_a_merge_is_left_to_people(team: Team, bad: str) -> None:
    """Nobody but a person knows which side counts."""
    team.git("checkout", "--quiet", "-b", "side", f"{bad}~1")
    (team.tree / "prompts/side").write_text("s\n")
    team.git("add", ".")
    team.git("commit", "--quiet", "-m", "Aside")
    team.git("checkout", "--quiet", "main")
    team.git("merge", "--quiet", "--no-ff", "-m", "Merge", "side")
    team.git("push", "--quiet", str(team.remote), "main")
    with pytest.raises(ActionError, match="is a merge"):
        await revert(team).read(RevertParams(commit=team.head()))


async def test_files_that_moved_are_a_reason_to_look_again(team: Team, bad: str) -> None:
    """Another line of the same file changed since: the plan no longer fits, and nothing is pushed."""
    action, params = revert(team), RevertParams(commit=bad)
    before = await action.read(params)
    head = team.commit("Halt instead", prompts__chat=NEW.replace("Stop.", "Halt."))
    with pytest.raises(ActionError, match="not as they were"):
        await action.act(params, before, "t")

    assert team.head() == head


async def test_a_refused_push_changed_nothing(team: Team, bad: str) -> None:
    """A protected branch refuses, as a hook there does; the probe says no."""
    action, params = revert(team), RevertParams(commit=bad)
    before = await action.read(params)
    hook = team.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ActionError, match="refused the push: nothing was changed"):
        await action.act(params, before, "t")

    assert team.head() == bad
    assert await action.happened(params, before, "t") is Happened.NO


async def test_a_branch_that_moved_on_refuses_the_push(team: Team, bad: str) -> None:
    """Nothing is forced: who pushed between our look and our push is not overwritten."""
    async with cloned(access(team), str, with_files=True) as clone:
        await clone.ask("revert", "--no-commit", bad)
        head = team.commit("Meanwhile", README="quick\n")
        with pytest.raises(ActionError, match="refused the push"):
            await clone.commit_and_push("Revert")

    assert team.head() == head


async def test_a_lost_push_is_in_doubt(team: Team, bad: str) -> None:
    """It may have arrived when the time was up; here the branch took it, and the trailer tells."""
    action, params = revert(team), RevertParams(commit=bad)
    before = await action.read(params)
    hook = team.remote / "hooks" / "post-receive"  # after the branch moved
    hook.write_text("#!/bin/sh\nsleep 300\n")
    hook.chmod(0o755)
    hasty = Revert({"folder": replace(access(team), timeout_s=8.0)})
    with pytest.raises(OutcomeUnknownError, match="longer than 8 s"):
        await hasty.act(params, before, "t")

    assert await action.happened(params, before, "t") is Happened.YES


async def test_no_hook_of_ours_and_no_shell_runs(team: Team, tmp_path: Path) -> None:
    """A repository's content cannot start programs: not by attributes, not by names, not by subjects."""
    marker = tmp_path / "ran"
    (team.tree / ".gitattributes").write_text("* filter=evil\n")
    team.git("config", "filter.evil.smudge", f"touch {marker}")
    team.git("config", "core.hooksPath", str(tmp_path))
    team.commit("Attributes")
    subject = f"$(touch {marker}); `touch {marker}` \x1b[31m --exec=touch"
    commit = team.commit(subject, prompts__chat=NEW)
    action, params = revert(team), RevertParams(commit=commit)
    before = await action.read(params)
    await action.act(params, before, "t")

    assert not marker.exists()
    assert "\x1b" not in before["subject"]
    assert team.text() == OLD


async def test_a_repository_that_is_not_there_changed_nothing(team: Team, bad: str) -> None:
    """Not in doubt, and named; the probe cannot tell."""
    nowhere = Revert({"folder": replace(access(team), remote=str(team.remote) + "-gone")})
    with pytest.raises(ActionError, match="has no branch main that can be read"):
        await nowhere.read(RevertParams(commit=bad))
    assert await nowhere.happened(RevertParams(commit=bad), {"commit": bad}, "t") is Happened.CANNOT_TELL
    with pytest.raises(ActionError, match="no datasource of kind git has a `remote`"):
        await build_actions()["git.revert"].read(RevertParams(commit=bad))


@pytest.mark.parametrize(
    "wrong",
    [
        {"commit": "HEAD"},
        {"commit": "main"},
        {"commit": "--upload-pack=x"},
        {"commit": "abcdef"},
        {"commit": "ABCDEF0123"},
        {"commit": "abcdef0123^"},
        {"commit": "abcdef0123\n"},
        {"commit": "abcdef0123..main"},
        {"commit": ""},
        {"again": "perhaps"},
        {"source": "x\n"},
        {"branch": "main"},
    ],
)
def test_parameters_match_whole_or_not_at_all(wrong: dict[str, object]) -> None:
    """Hexadecimal digits and nothing else; no runbook names a branch or a repository."""
    with pytest.raises(ValidationError):
        RevertParams.model_validate({"commit": "abcdef0123", **wrong})


def test_the_credential_is_in_one_variable_for_one_address() -> None:
    """As a header, in no command line; and not in what a log line would print."""
    remote = "https://git.example.com/prompts.git"
    shown = GitAccess(folder=Path(), remote=remote, branch="main", credential="push-token")
    environment = shown.environment()
    keys = {environment[name]: name.replace("KEY", "VALUE") for name in environment if "CONFIG_KEY" in name}

    assert "push-token" not in repr(shown)
    header = environment[keys[f"http.{remote}.extraHeader"]]
    assert header == f"Authorization: {basic('x-access-token', 'push-token')}"
    assert environment["GIT_CONFIG_COUNT"] == str(len(keys))
