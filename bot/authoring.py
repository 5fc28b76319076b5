"""New runbooks on disk: a skeleton, or somebody else's Markdown taken over; nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bot.incidents import WatchkeeperError
from bot.library import faults
from runbooks.engine.imports import Imported, ImportRefusedError, imported
from runbooks.engine.library import NOT_A_RUNBOOK
from runbooks.engine.problems import Problem
from runbooks.engine.scaffold import NAME, skeleton

MOST_OF_A_FILE = 1024 * 1024


def new_runbook(
    name: str, folder: Path, *, today: date, title: str, alerts: Sequence[str], causes: Sequence[str], owner: str
) -> tuple[Path, list[Problem]]:
    """The file that was written, and what lint still asks of its author. Raises WatchkeeperError."""
    if not NAME.fullmatch(name) or len(name) > 80:
        raise WatchkeeperError(f"{name!r} cannot be a runbook's name: use a-z, 0-9 and -, such as queue-backlog")
    text = skeleton(name, title=title, today=today, alerts=alerts, causes=causes, owner=owner)
    return _written(folder, name, text, today)


def import_runbook(file: Path, folder: Path, *, today: date) -> tuple[Imported, Path, list[Problem]]:
    """What became of the file, the runbook that was written, and what lint still asks. Raises WatchkeeperError."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_OF_A_FILE).decode()
    except OSError as error:
        raise WatchkeeperError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WatchkeeperError(f"{file} is not UTF-8: save it as UTF-8") from error
    is_skill = file.stem.upper() == "SKILL"  # each skill's file has this name, in a folder named for the skill
    try:
        source = imported(text, file.resolve().parent.name if is_skill else file.stem)
    except ImportRefusedError as error:
        raise WatchkeeperError(f"{file}: {error}") from error
    return source, *_written(folder, source.runbook_id, source.text, today)


def _written(folder: Path, name: str, text: str, today: date) -> tuple[Path, list[Problem]]:
    target = folder / f"{name}.md"
    if target.name.lower() == NOT_A_RUNBOOK.lower():
        raise WatchkeeperError(f"{NOT_A_RUNBOOK} explains a folder: choose another name")
    try:
        with target.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError:
        raise WatchkeeperError(f"{target} is there already: choose another name or --out") from None
    except OSError as error:
        raise WatchkeeperError(f"{target} cannot be written: {error.strerror}") from error
    return target, faults([target], today=today)[1]
