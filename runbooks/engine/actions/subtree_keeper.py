"""
Runs one command, and ends it together with everything that it started; a small process of its own.

`subtree.py` starts this file with Python's standard library alone and sends an order, one line of JSON, to its
standard input; the answer is one line of JSON on its standard output. The end of standard input means that whoever
gave the order is gone or no longer wants it: the tree is ended then, too.

Killing a process leaves its children, and killing its process group leaves those that called setsid. Here they all
remain descendants: Linux gives orphans to the nearest "child subreaper" above them (prctl(2)), which is this process
and not the whole server, so /proc shows every one of them beneath us, and no zombie is left.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

KEPT_HEAD = KEPT_TAIL = 128 * 1024
"""Of the output, in bytes: how it began and how it ended. The rest is read and dropped, so that nobody blocks."""

LOOK_EVERY_S = 0.05
KILL_PATIENCE_S = 2.0
_CHUNK = 256 * 1024


class Output:
    """The first and the last bytes of a stream of any length."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.tail = bytearray()
        self.total = 0

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = KEPT_HEAD - len(self.head)
        self.head += chunk[:room]
        self.tail += chunk[room:]
        if len(self.tail) > 2 * KEPT_TAIL:
            del self.tail[:-KEPT_TAIL]

    def answer(self) -> dict[str, Any]:
        tail = bytes(self.tail[-KEPT_TAIL:])
        return {
            "head": base64.b64encode(self.head).decode(),
            "tail": base64.b64encode(tail).decode(),
            "dropped": self.total - len(self.head) - len(tail),
        }


class Tree:
    """The command and all its descendants."""

    def __init__(self, child: int, pipe: int) -> None:
        self.status: int | None = None  # of the command itself, as waitpid(2) reports it
        self.abandoned = False  # whoever gave the order is gone
        self.output = Output()
        self._child = child
        self._open = [0, pipe]
        os.set_blocking(pipe, False)

    def look(self) -> None:
        """Wait a moment for output, an end or an abandonment, and take in what is there."""
        ready, _, _ = select.select(self._open, [], [], LOOK_EVERY_S)
        for source in ready:
            self._read(source)
        self._reap()

    def drain(self) -> None:
        """What the pipe still holds; with nobody left to write this ends."""
        for pipe in self._open[1:]:
            while self._read(pipe):
                pass

    def end(self, grace_s: float) -> int:
        """TERM, then KILL, to all; the number of those that are still there."""
        self._signal(signal.SIGTERM, signal.SIGCONT)  # a stopped one must wake up to be told
        self._wait(grace_s, lambda: None)
        self._wait(KILL_PATIENCE_S, lambda: self._signal(signal.SIGKILL))
        return len(list(self._living()))

    def _wait(self, patience_s: float, act: Callable[[], None]) -> None:
        until = time.monotonic() + patience_s
        while any(self._living()) and time.monotonic() < until:
            act()
            self.look()

    def _read(self, source: int) -> bool:
        try:
            chunk = os.read(source, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._open.remove(source)
            self.abandoned = self.abandoned or source == 0
        elif source != 0:
            self.output.add(chunk)
        return bool(chunk)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # there is no child left
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    self.status = status

    def _signal(self, *numbers: int) -> None:
        for pid in self._living():
            for number in numbers:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # gone meanwhile, or not ours to end
                    os.kill(pid, number)

    def _living(self) -> Iterator[int]:
        """Every descendant that is no zombie."""
        children: dict[int, list[tuple[int, str]]] = {}
        for pid, parent, state in _processes():
            children.setdefault(parent, []).append((pid, state))
        below = [os.getpid()]
        while below:
            for pid, state in children.get(below.pop(), ()):
                below.append(pid)
                if state != "Z":
                    yield pid


def _processes() -> Iterator[tuple[int, int, str]]:
    """Process id, parent's id and state of all that there are; see proc(5)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended between listing and reading
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                state, parent = stat.rpartition(")")[2].split()[:2]  # the name in brackets may hold anything
                yield int(folder.name), int(parent), state


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def close_this_process() -> None:
    """
    Let no other process of our user look into this one: neither /proc/PID/environ nor its memory (prctl(2)).

    What root starts can look all the same.
    """
    _prctl(PR_SET_DUMPABLE, 0)


def run(order: dict[str, Any]) -> dict[str, Any]:
    """What became of the command: how it ended, whether it had to be ended, what it wrote."""
    folder = tempfile.mkdtemp(prefix="watchkeeper-")
    try:
        return _run_in(Path(folder), order)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_in(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    for name in ("home", "work"):
        (folder / name).mkdir()
    try:
        child = subprocess.Popen(  # noqa: S603 - a list without a shell; what it may hold is `command.py`'s to say
            order["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder / "work",
            env={**order["environment"], "HOME": str(folder / "home")},
            start_new_session=True,
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - no threads here
        )
    except OSError as error:
        return {"started": False, "why": error.strerror or str(error)}
    assert child.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    tree = Tree(child.pid, child.stdout.fileno())
    until = time.monotonic() + order["timeout_s"]
    while tree.status is None and not tree.abandoned and time.monotonic() < until:
        tree.look()
    timed_out = tree.status is None
    left = tree.end(order["grace_s"])
    tree.drain()
    child.returncode = 0 if tree.status is None else os.waitstatus_to_exitcode(tree.status)  # it was reaped by us
    status = None if timed_out else child.returncode
    return {"started": True, "status": status, "timed_out": timed_out, "left": left, **tree.output.answer()}


def _first_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit(1)  # nobody finished the order
        line += chunk
    return bytes(line)


def main() -> None:
    """Take the order, run it, answer."""
    order = json.loads(_first_line())
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)  # what sudo starts could not be ended by us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the credentials
    os.umask(0o077)
    answer = json.dumps(run(order)).encode()
    with contextlib.suppress(BrokenPipeError), os.fdopen(1, "wb") as out:
        out.write(answer)


if __name__ == "__main__":
    main()
