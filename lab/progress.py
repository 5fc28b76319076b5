"""What the demo tells while it works: a spinner on a terminal, plain lines with seconds everywhere else."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.status import Status


class Progress:
    """Lines with the seconds since the start; `begin` names what goes on until the next line."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._console = Console(highlight=False) if sys.stdout.isatty() else None
        self._spinner: Status | None = None

    def begin(self, what: str) -> None:
        """Something that takes a while."""
        self.close()
        if self._console is None:
            self.say(what + " ...")
            return
        self._spinner = self._console.status(what + " ...")
        self._spinner.start()

    def say(self, line: str) -> None:
        """Something that happened."""
        self.close()
        text = f"{time.monotonic() - self._started_s:6.1f} s  {line}"
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class Prefixed(Progress):
    """The lines of one of several that go on at the same time; nothing of it spins."""

    def __init__(self, progress: Progress, name: str) -> None:
        super().__init__()
        self._whole = progress
        self._name = name

    def begin(self, what: str) -> None:
        self.say(what + " ...")

    def say(self, line: str) -> None:
        self._whole.say(f"{self._name}  {line}")
