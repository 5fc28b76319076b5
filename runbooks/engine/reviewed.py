"""
Which files of a folder were reviewed: those whose bytes are what a remote-tracking branch of their work tree holds.

A branch that only merges can move is the proof; what a file says of itself (front matter) is none. Runs `git` itself
with argument lists (no shell), without anybody's configuration, hooks, grafts or replaced objects.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_QUIET = ("--no-pager", "--no-replace-objects", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
          "-c", "safe.directory=*")  # fmt: skip
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",  # not known to every Git; so no way to fetch is left, whatever .git/config says
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_SSH_COMMAND": "false",
}
_PATIENCE_S = 10.0


class NotReviewedError(Exception):
    """Git cannot say what was reviewed; the message says why. Nothing of the folder counts then."""


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """What the branch held of a folder when it was asked: the commit (hex), and the bytes of each file there."""

    branch: str
    commit: str
    contents: dict[str, bytes]

    def objection(self, name: str, content: bytes) -> str | None:
        """Why this file of this content does not count; None when it was reviewed."""
        if name not in self.contents:
            return f"not in {self.branch}: it was not reviewed, and is left out"
        if self.contents[name] != content:
            return f"not what {self.branch} holds ({self.commit[:12]}): not reviewed like this, and is left out"
        return None


def reviewed(folder: Path, branch: str, names: Sequence[str]) -> Reviewed:
    """
    What this remote-tracking branch (`origin/main`) holds under these names of the folder.

    Blocks for two processes of about 5 ms each. Raises NotReviewedError.
    """
    ref = f"refs/remotes/{branch}^{{commit}}"  # in full: a local branch may be called origin/main, too
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", ref).decode().strip()
    prefix = _git(folder, "rev-parse", "--show-prefix").removesuffix(b"\n")
    plain = [name for name in names if "\n" not in name]
    asked = b"".join(commit.encode() + b":" + prefix + os.fsencode(name) + b"\n" for name in plain)
    contents = _contents(plain, _git(folder, "cat-file", "--batch", asked=asked))
    return Reviewed(branch=branch, commit=commit, contents=contents)


def _contents(names: Sequence[str], answer: bytes) -> dict[str, bytes]:
    """
    `git cat-file --batch`: a line `OID blob SIZE`, that many bytes and a line feed; or a line that ends in `missing`.

    Whole contents and no object names are compared, so nothing hangs on SHA-1.
    """
    found: dict[str, bytes] = {}
    at = 0
    for name in names:
        end = answer.index(b"\n", at)
        head, at = answer[at:end], end + 1
        words = head.split(b" ")
        if head.endswith(b" missing") or len(words) != 3 or not words[2].isdigit():
            continue
        size = int(words[2])
        if words[1] == b"blob":
            found[name] = answer[at : at + size]
        at += size + 1
    return found


def _git(folder: Path, *arguments: str, asked: bytes = b"") -> bytes:
    program = shutil.which("git")
    if program is None:
        raise NotReviewedError("git is not installed, so nobody can tell what was reviewed")
    try:
        ended = subprocess.run(  # noqa: S603  an argument list of ours; names go in by stdin
            [program, *_QUIET, *arguments],
            cwd=folder.resolve(),
            env=_ENVIRONMENT,
            input=asked,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotReviewedError(f"git gave no answer within {_PATIENCE_S:g} s") from None
    except OSError as error:
        raise NotReviewedError(f"git cannot run in {folder}: {error.strerror}") from error
    if ended.returncode != 0:
        first = ended.stderr.decode(errors="replace").strip().splitlines()[:1]
        raise NotReviewedError(first[0] if first else f"{folder} has no such remote-tracking branch")
    return ended.stdout
