"""
A branch of a Git repository, in a clone of our own that is gone afterwards: nobody's work tree is ever touched.

Runs `git` itself with argument lists (no shell), without anybody's configuration, hooks, prompts or redirects. The
credential travels in the environment, as a header for this one address, so it is in no command line and in no file.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runbooks.engine.actions.subtree import GRACE_S, KEEPER_PATIENCE_S, Ended, Order, SubtreeLostError, run_subtree
from runbooks.engine.values import ActionError, OutcomeUnknownError

REVERTS, INTENT = "Watchkeeper-Reverts", "Watchkeeper-Intent"
"""The trailers of our commits: what was reverted, and the token of the intent."""

_WHO = "Watchkeeper"
_MAIL = "watchkeeper@localhost"
_MOST_SAID = 300  # characters of git's own words
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.symlinks": "false",  # a link in the repository would lead our writing elsewhere
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "safe.directory": "*",  # git-sync's folder belongs to another user; it is only asked where it stands
    "submodule.recurse": "false",
}


@dataclass(frozen=True, kw_only=True)
class GitAccess:
    """
    A branch that may be pushed to, and the folder of a work tree to which its reverts are confined.

    `remote` is an https address or a path on this machine; `credential` is `user:password` or a token.
    """

    folder: Path
    remote: str
    branch: str
    credential: str = field(default="", repr=False)
    ca_file: str | None = None
    timeout_s: float = 60.0  # for each command

    @property
    def patience_s(self) -> float:
        """For everything that a step runs, one after the other."""
        return 9 * (self.timeout_s + GRACE_S + KEEPER_PATIENCE_S)

    def environment(self) -> dict[str, str]:
        settings = dict(_SETTINGS)
        if self.credential:
            login = self.credential if ":" in self.credential else f"x-access-token:{self.credential}"
            header = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"
            settings[f"http.{self.remote}.extraHeader"] = header
        if self.ca_file:
            settings["http.sslCAInfo"] = self.ca_file
        pairs = {
            name: text
            for index, (key, value) in enumerate(settings.items())
            for name, text in ((f"GIT_CONFIG_KEY_{index}", key), (f"GIT_CONFIG_VALUE_{index}", value))
        }
        people = {
            f"GIT_{role}_{what}": text
            for role in ("AUTHOR", "COMMITTER")
            for what, text in (("NAME", _WHO), ("EMAIL", _MAIL))
        }
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "https:http:file",  # http only to this machine: the configuration sees to that
            "GIT_CONFIG_COUNT": str(len(settings)),
            **people,
            **pairs,
        }


class Clone:
    """What is asked of a clone, and done in it."""

    def __init__(self, access: GitAccess, place: Path, redact: Callable[[str], str]) -> None:
        self._access, self._place, self._redact = access, place, redact

    async def ask(self, *arguments: str) -> str:
        """What git writes. Raises ActionError."""
        ended = await self.run(*arguments)
        if ended.status != 0:
            raise ActionError(f"git {arguments[0]} failed: {self.said(ended)}")
        return ended.head.decode(errors="replace")

    async def run(self, *arguments: str) -> Ended:
        """Raises ActionError: nothing but a push leaves this machine."""
        try:
            return await _git(self._access, "-C", str(self._place), *arguments)
        except SubtreeLostError as error:
            raise ActionError(f"git {arguments[0]}: {error}") from error

    async def commit_and_push(self, message: str) -> str:
        """The new commit. Raises ActionError when the branch certainly stays as it is, OutcomeUnknownError."""
        await self.ask("commit", "--quiet", "--no-verify", "-m", message)
        made = (await self.ask("rev-parse", "HEAD")).strip()
        branch = f"HEAD:refs/heads/{self._access.branch}"
        push = ("-C", str(self._place), "push", "--porcelain", "--no-verify", "--", self._access.remote, branch)
        try:
            ended = await _git(self._access, *push)
        except SubtreeLostError as error:
            raise OutcomeUnknownError(f"git push: {error}") from error
        if ended.status == 0:
            return made
        lines = ended.head.decode(errors="replace").splitlines()
        if any(line.startswith("!") and "rejected]" in line for line in lines):
            raise ActionError(f"the branch {self._access.branch} refused the push: nothing was changed")
        raise OutcomeUnknownError(f"git push did not end well: {self.said(ended)}")

    def said(self, ended: Ended) -> str:
        """Git's own words for people, on one line, shortened and without credentials."""
        if ended.status is None:
            return ended.refusal or f"it took longer than {self._access.timeout_s:g} s"
        words = " ".join((ended.head + ended.tail).decode(errors="replace").split())
        return self._redact(words)[:_MOST_SAID] or f"exit status {ended.status}"


@asynccontextmanager
async def cloned(access: GitAccess, redact: Callable[[str], str], *, with_files: bool) -> AsyncIterator[Clone]:
    """The branch as it is now; `with_files` to change something. Raises ActionError."""
    place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="watchkeeper-git-"))
    try:
        clone = Clone(access, place, redact)
        files = () if with_files else ("--no-checkout",)
        arguments = ("--quiet", "--no-tags", "--single-branch", "--branch", access.branch, *files)
        ended = await clone.run("clone", *arguments, "--", access.remote, str(place / "clone"))
        if ended.status != 0:
            raise ActionError(f"{access.remote} has no branch {access.branch} that can be read: {clone.said(ended)}")
        yield Clone(access, place / "clone", redact)
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


async def folder_in_repository(access: GitAccess, redact: Callable[[str], str]) -> str:
    """The configured folder as the repository calls it, `prompts/`; "" for its root. Raises ActionError."""
    return (await Clone(access, access.folder, redact).ask("rev-parse", "--show-prefix")).strip()


async def _git(access: GitAccess, *arguments: str) -> Ended:
    return await run_subtree(
        Order(argv=("git", *arguments), environment=access.environment(), timeout_s=access.timeout_s)
    )
