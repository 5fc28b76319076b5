"""`watchkeeper runbook ...`: check what people and the machine will follow."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from bot.incidents import WatchkeeperError

FOUND_FAULTS = 1


def add_runbook_commands(app: typer.Typer) -> None:
    """Hang this file's commands into the program."""
    runbooks = typer.Typer(no_args_is_help=True, help="Runbooks: check what people and the machine will follow.")
    app.add_typer(runbooks, name="runbook")
    _add_lint(runbooks)


def _add_lint(runbooks: typer.Typer) -> None:
    @runbooks.command("lint")
    def lint(
        paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders; ours when none.")] = None,
        *,
        today: Annotated[
            str | None, typer.Option(help="Which reviews are overdue on that day; today if not given.")
        ] = None,
    ) -> None:
        """Check runbooks: form, names, secrets, links, reviews; prints file:line, what is wrong, and the remedy."""
        from bot.library import faults

        count, problems = faults(paths or (), today=_day(today))
        for problem in problems:
            print(problem)
        print(f"{count} runbooks, {len(problems)} problems")
        if problems:
            raise typer.Exit(FOUND_FAULTS)


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise WatchkeeperError(f"--today {text!r} is not a day such as 2026-11-22") from None
