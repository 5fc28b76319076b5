# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Take back one commit with a commit that says so, on the branch that production follows.

R2, although the next revert takes it back: whatever follows the branch deploys it, along with what else was merged and
not yet deployed, and nobody here knows what that restarts. A commit that touches anything outside the configured folder
is refused, and so is one that later commits built upon. The push is never forced, so a branch that moved refuses it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from runbooks.engine.actions.git_repository import INTENT, REVERTS, Clone, GitAccess, cloned, folder_in_repository
from runbooks.engine.actions.parameters import ConfigName, chosen_source
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, Tier

_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)
_MOST_SUBJECT = 100  # characters
_MOST_FILES = 20
"""A commit that touches more is no change of a prompt, and nobody could read the plan."""


def _commit_name(value: str) -> str:
    if not _COMMIT.fullmatch(value):
        raise ValueError("not the name of a commit: 7 or more of its hexadecimal digits")
    return value


class RevertParams(BaseModel):
    """`again` takes back our own revert of this commit, so that the commit counts again; that is the undo."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: Annotated[str, AfterValidator(_commit_name)]
    again: bool = False
    source: ConfigName | None = None


@dataclass(frozen=True, kw_only=True)
class _Commit:
    name: str
    parents: tuple[str, ...]
    subject: str


class Revert:
    """`git.revert`."""

    name = "git.revert"
    tier = Tier.R2
    dry_run = DryRun.READS
    params: type[BaseModel] = RevertParams
    subject: type[BaseModel] = RevertParams
    can_undo = True

    def __init__(self, repositories: Mapping[str, GitAccess], redact: Callable[[str], str] = str) -> None:
        self._repositories = dict(repositories)
        self._redact = redact

    def patience_s(self, params: RevertParams) -> float:
        return max((access.patience_s for access in self._repositories.values()), default=0.0)

    def effect(self, params: RevertParams, before: JsonObject) -> str:
        access = self._access(params)
        return (
            f"On the branch {access.branch} of {access.remote}, the commit {before['commit'][:12]} "
            f"({before['subject']}) is reverted by a new commit to {', '.join(before['files'])}. Whatever follows the "
            "branch deploys it, with all else that was merged and not yet deployed."
        )

    def target(self, params: RevertParams) -> str:
        access = self._access(params)
        return f"git/branch/{access.remote}#{access.branch}"

    def refusal(self, params: RevertParams, before: JsonObject) -> str | None:
        if not before["files"]:
            return f"reverting {before['commit'][:12]} would change nothing: it was taken back already"
        return None

    def undo(self, params: RevertParams, before: JsonObject) -> JsonObject | None:
        """The revert of the revert, which has no name yet and is found by its trailer."""
        return params.model_copy(update={"again": not params.again}).model_dump(mode="json")

    async def read(self, params: RevertParams) -> JsonObject:
        """The commit's whole name and subject, the files that its revert changes, and a hash of how it changes them."""
        access = self._access(params)
        inside = await folder_in_repository(access, self._redact)
        async with cloned(access, self._redact, with_files=True) as clone:
            return await self._prepared(clone, params, inside)

    async def act(self, params: RevertParams, before: JsonObject, token: str) -> JsonObject:
        access = self._access(params)
        inside = await folder_in_repository(access, self._redact)
        async with cloned(access, self._redact, with_files=True) as clone:
            if await self._prepared(clone, params, inside) != before:
                raise ActionError("the files are not as they were when the plan was made: nothing was changed")
            if (reason := self.refusal(params, before)) is not None:
                raise ActionError(reason)
            commit = before["commit"]
            made = await clone.commit_and_push(
                f'Revert "{before["subject"]}"\n\nThis reverts commit {commit}, as approved in Watchkeeper.\n\n'
                f"{REVERTS}: {commit}\n{INTENT}: {token}\n"
            )
        return {"commit": made, "reverts": commit}

    async def happened(self, params: RevertParams, before: JsonObject, token: str) -> Happened:
        """Is there a commit on the branch with our trailers, of this intent if it has a token?"""
        try:
            async with cloned(self._access(params), self._redact, with_files=False) as clone:
                found = await _our_reverts(clone, before["commit"])
        except ActionError:
            return Happened.CANNOT_TELL
        is_there = any(not token or intent == token for _, intent in found)
        return Happened.YES if is_there else Happened.NO

    def _access(self, params: RevertParams) -> GitAccess:
        if not self._repositories:
            raise ActionError("no datasource of kind git has a `remote` in the configuration, so nothing can be pushed")
        return chosen_source(self._repositories, params.source, "Git source")

    async def _prepared(self, clone: Clone, params: RevertParams, inside: str) -> JsonObject:
        """Does the revert in the clone's files and index, and says what it is."""
        wanted = await _commit(clone, params.commit)
        if params.again:
            ours = await _our_reverts(clone, wanted.name)
            if not ours:
                raise ActionError(f"the branch has no revert of {wanted.name[:12]} by Watchkeeper")
            wanted = await _commit(clone, ours[0][0])
        await _require_revertible(clone, wanted)
        ended = await clone.run("revert", "--no-commit", wanted.name)
        if ended.status != 0:
            raise ActionError(f"later commits build upon {wanted.name[:12]}: revert it by hand ({clone.said(ended)})")
        raw = await clone.ask("diff", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev", "HEAD")
        files = raw.split("\0")[1::2]
        if outside := [file for file in files if not file.startswith(inside)]:
            raise ActionError(f"{wanted.name[:12]} touches {outside[0]!r}, which is outside of {inside}: do it by hand")
        if len(files) > _MOST_FILES:
            raise ActionError(f"{wanted.name[:12]} touches {len(files)} files, more than {_MOST_FILES}: do it by hand")
        return {
            "commit": wanted.name,
            "subject": self._shown(wanted.subject),
            "files": [self._shown(file) for file in files],
            "change": hashlib.sha256(raw.encode()).hexdigest()[:16],
        }

    def _shown(self, text: str) -> str:
        """Others' words, on one line, without what does not print and without credentials."""
        return self._redact("".join(char if char.isprintable() else " " for char in text))[:_MOST_SUBJECT]


async def _commit(clone: Clone, name: str) -> _Commit:
    """Raises ActionError."""
    ended = await clone.run("log", "-1", "--no-show-signature", "--format=%H%x00%P%x00%s", f"{name}^{{commit}}", "--")
    fields = ended.head.decode(errors="replace").rstrip("\n").split("\0")
    if ended.status != 0 or len(fields) != 3 or not fields[0].startswith(name):
        raise ActionError(f"the branch has no commit {name}")
    return _Commit(name=fields[0], parents=tuple(fields[1].split()), subject=fields[2])


async def _require_revertible(clone: Clone, commit: _Commit) -> None:
    """Raises ActionError."""
    if len(commit.parents) != 1:
        kind = "a merge" if commit.parents else "the first commit of all"
        raise ActionError(f"{commit.name[:12]} is {kind}: revert it by hand")
    if (await clone.run("merge-base", "--is-ancestor", commit.name, "HEAD")).status != 0:
        raise ActionError(f"the branch has no commit {commit.name[:12]}")


async def _our_reverts(clone: Clone, commit: str) -> list[tuple[str, str]]:
    """Our reverts of this commit, the newest first: name and intent. Raises ActionError."""
    trailers = ",".join(f"%(trailers:key={key},valueonly,separator=%x20)" for key in (REVERTS, INTENT))
    grep = ("--fixed-strings", f"--grep={REVERTS}: {commit}")
    listed = await clone.ask("log", "--no-show-signature", *grep, f"--format=%H,{trailers}", "HEAD", "--")
    lines = [line.split(",") for line in listed.splitlines()]
    return [(fields[0], fields[2]) for fields in lines if len(fields) == 3 and fields[1] == commit]
