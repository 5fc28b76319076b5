"""`watchkeeper runbook test`: the fixtures beside the runbooks, run with the actions and names of this installation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bot.incidents import WatchkeeperError
from bot.library import FOLDER, vocabulary
from runbooks.engine.fixtures import SUFFIX, failures, load_fixture
from runbooks.engine.library import NOT_A_RUNBOOK, load_file
from runbooks.engine.lint import Vocabulary
from runbooks.engine.problems import Problem, RunbookError


@dataclass(frozen=True, kw_only=True)
class Tested:
    """How many runbooks and cases were tested, which runbooks have no fixture, and every expectation that fails."""

    runbooks: int
    cases: int
    without: tuple[str, ...]
    problems: tuple[Problem, ...]


async def run_tests(paths: Sequence[Path] = ()) -> Tested:
    """
    The fixtures of these files and folders, ours when none. A runbook stands for its fixture.

    Raises WatchkeeperError for a path that is neither.
    """
    names = vocabulary()
    files = sorted({file for path in paths or (FOLDER,) for file in _runbooks(path)})
    tested, cases, problems = 0, 0, list[Problem]()
    for file in files:
        fixture = fixture_of(file)
        if fixture.exists():
            tested += 1
            count, wrong = await _tested(file, fixture, names)
            cases += count
            problems += [replace(problem, path=str(file.parent / problem.path)) for problem in wrong]
    without = tuple(file.stem for file in files if not fixture_of(file).exists())
    return Tested(runbooks=tested, cases=cases, without=without, problems=tuple(sorted(problems)))


def fixture_of(runbook: Path) -> Path:
    """Where a runbook's fixture stands."""
    return runbook.with_name(runbook.stem + SUFFIX)


async def _tested(file: Path, fixture: Path, names: Vocabulary) -> tuple[int, Sequence[Problem]]:
    try:
        runbook, loaded = load_file(file), load_fixture(fixture)
    except RunbookError as error:
        return 0, error.problems
    return len(loaded.fixture.cases), await failures(runbook, loaded, names)


def _runbooks(path: Path) -> Iterator[Path]:
    """The runbooks that a path names: a folder's, one, or the one of a fixture. Also of fixtures that lost theirs."""
    if path.is_dir():
        yield from (file for file in path.glob("*.md") if file.name != NOT_A_RUNBOOK)
        yield from (_tested_by(file) for file in path.glob(f"*{SUFFIX}"))
    elif path.name.endswith(SUFFIX):
        yield _tested_by(path)
    elif path.suffix == ".md" and path.is_file():
        yield path
    else:
        raise WatchkeeperError(f"{path} is neither a runbook (.md), nor its fixture ({SUFFIX}), nor a folder of them")


def _tested_by(fixture: Path) -> Path:
    return fixture.with_name(fixture.name.removesuffix(SUFFIX) + ".md")
