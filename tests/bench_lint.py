"""
How long `watchkeeper runbook lint` takes for 1,000 runbooks: `python -m tests.bench_lint` (in `make bench`).

They are ours many times over, each with a title, a text and numbers of its own, so that nothing can be remembered from
one to the next. The whole command is measured, as a pipeline would wait for it. The exit status is 1 over the budget.
"""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import runbooks

FOLDER = Path(runbooks.__file__).parent
RUNBOOKS = 1_000
BUDGET_S = 5.0
ROUNDS = 3
_SETTLE = re.compile(r"settle: \d+m")
_LINK = re.compile(r"\]\(([a-z0-9-]+)\.md")


def write_runbooks(folder: Path, count: int = RUNBOOKS) -> None:
    """`count` runbooks that lint finds nothing in; each differs from all others in its title, text and numbers."""
    ours = sorted(file for file in FOLDER.glob("*.md") if file.name != "README.md")
    for number, file in enumerate(islice(cycle(ours), count)):
        text = file.read_text(encoding="utf-8")
        text = text.replace("title: ", f"title: Team {number}. ", 1)
        text = text.replace("## Impact\n", f"## Impact\nSeen {number} times in the last {number % 90 + 1} days.\n", 1)
        text = _SETTLE.sub(f"settle: {number % 50 + 10}m", text)
        turn, turns = number // len(ours), count // len(ours)
        linked = turn if turn < turns else 0  # the last turn is not whole
        text = _LINK.sub(rf"](\1-{linked}.md", text)
        (folder / f"{file.stem}-{turn}.md").write_text(text, encoding="utf-8")


def measure(folder: Path) -> tuple[float, float]:
    """One run of the command: seconds, and seconds of processor time. Raises RuntimeError when it finds something."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bot", "runbook", "lint", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if f"{RUNBOOKS} runbooks, 0 problems" not in run.stdout:
        raise RuntimeError(run.stdout[-2000:] + run.stderr[-2000:])
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Prints the figure; 1 when it is over the budget."""
    with tempfile.TemporaryDirectory() as folder:
        write_runbooks(Path(folder))
        rounds = [measure(Path(folder)) for _ in range(ROUNDS)]
    seconds, processor = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"lint of {RUNBOOKS:,} runbooks: {seconds:.2f} s (processor time {processor:.2f} s), the median of {ROUNDS}")
    print(f"budget: {BUDGET_S:g} s")
    return int(seconds > BUDGET_S)


if __name__ == "__main__":
    sys.exit(main())
