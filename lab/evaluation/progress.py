"""How far an evaluation is, on standard error: a bar on a terminal, a line per tenth anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Told = Callable[[int, int], None]
"""Hears how many of how many cases are done."""


@contextmanager
def counting() -> Iterator[Told]:
    """What hears of the progress while the evaluation runs."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("cases")

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield told


def _lines() -> Told:
    began = time.monotonic()

    def told(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{time.monotonic() - began:6.1f} s  {done} of {total} cases", file=sys.stderr, flush=True)

    return told
