"""
Prompt files in a Git work tree: which of them changed, when, by whom, and how.

Runs `git` itself with argument lists (no shell), without the user's configuration, hooks, pagers or external diff
programs. A commit's time is not the time of its deployment: join with a rollout when there is one.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.target import Target

MOST_COMMITS = 50
_LONGEST_TEXT = 65_536
_RECORD, _FIELD = "\x1e", "\x1f"
_QUIET = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false",
    "-c", "safe.directory=*",  # git-sync's folder belongs to another user; nothing in it is run, see above
    "--no-pager",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Commit:
    """One commit and the files it touched: (status letter, path)."""

    hash: str
    at: datetime
    author: str
    subject: str
    files: tuple[tuple[str, str], ...]


class GitPrompts:
    """The change source of one folder inside a Git work tree; a prompt is a file whose stem is the prompt's name."""

    def __init__(self, *, name: str, folder: Path, patience_s: float = 2.5) -> None:
        self.name = name
        self._folder = folder.resolve()
        self._patience_s = patience_s

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Commits to the target's prompt files in this time, oldest first. Raises ChangeSourceError."""
        wanted = {prompt.name for prompt in target.prompts if prompt.source in {"", self.name}}
        changes = []
        for commit in await self._commits(since, until):
            for status, path in commit.files:
                stem = PurePosixPath(path).stem
                if stem in wanted:
                    changes.append(await self._change(target, commit, status, path, stem))
        return sorted(changes, key=lambda change: change.at)

    async def _commits(self, since: datetime, until: datetime) -> list[_Commit]:
        answer = await self._git(
            "log",
            f"--since={since.astimezone(UTC).isoformat()}",
            f"--until={until.astimezone(UTC).isoformat()}",
            f"--max-count={MOST_COMMITS}",
            "--no-renames",
            "--name-status",
            "-z",
            f"--format={_RECORD}%H{_FIELD}%cI{_FIELD}%an{_FIELD}%s{_RECORD}",
            "--",
            ".",
        )
        return parse_log(answer.decode("utf-8", errors="replace"))

    async def _change(self, target: Target, commit: _Commit, status: str, path: str, stem: str) -> Change:
        before, after = await asyncio.gather(
            self._text(f"{commit.hash}^", path) if status != "A" else _nothing(),
            self._text(commit.hash, path) if status != "D" else _nothing(),
        )
        return Change(
            id=f"{self.name}:{commit.hash[:12]}:{path}",
            at=commit.at,
            kind="prompt",
            service=target.service,
            source=self.name,
            summary=f"{_VERBS.get(status, 'changed')} {path}: {commit.subject}",
            author=commit.author,
            scope={"prompt": (stem,)},
            before=before,
            after=after,
            undo={"commit": commit.hash, "path": path},
        )

    async def _text(self, revision: str, path: str) -> str | None:
        """A file as it was; None where the revision does not have it (the first commit has no parent)."""
        try:
            content = await self._git("cat-file", "blob", f"{revision}:{path}")
        except ChangeSourceError:
            return None
        return content[:_LONGEST_TEXT].decode("utf-8", errors="replace")

    async def _git(self, *arguments: str) -> bytes:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ALLOW_PROTOCOL": "none",  # a partial clone fetches what it lacks, by any command of .git/config
            "GIT_SSH_COMMAND": "false",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *_QUIET,
                *arguments,
                cwd=self._folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ChangeSourceError(f"{self.name}: git cannot run in {self._folder}: {error.strerror}") from error
        try:
            output, complaint = await asyncio.wait_for(process.communicate(), self._patience_s)
        except TimeoutError:
            raise ChangeSourceError(f"{self.name}: git gave no answer within {self._patience_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            first = complaint.decode("utf-8", errors="replace").strip().splitlines()[:1]
            raise ChangeSourceError(f"{self.name}: git failed: {first[0] if first else process.returncode}")
        return output


_VERBS = {"A": "added", "M": "changed", "D": "removed"}


def parse_log(text: str) -> list[_Commit]:
    """
    Read the log's own format: a header between two record separators, then NUL-separated status and path pairs.

    Names and subjects may hold anything but those separators; a header that does not fit raises ChangeSourceError.
    """
    commits = []
    parts = text.split(_RECORD)
    for header, files in zip(parts[1::2], parts[2::2], strict=False):
        fields = header.split(_FIELD)
        if len(fields) != 4:
            raise ChangeSourceError("git's log holds a commit whose header cannot be read")
        names = [name for name in files.strip("\n").split("\0") if name.strip("\n")]
        pairs = tuple((status.strip("\n")[:1], path) for status, path in zip(names[::2], names[1::2], strict=False))
        at = datetime.fromisoformat(fields[1]).astimezone(UTC)
        commits.append(_Commit(hash=fields[0], at=at, author=fields[2], subject=fields[3], files=pairs))
    return commits


async def _nothing() -> None:
    return None
