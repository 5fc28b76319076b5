"""`watchkeeper runbook ...`: write and check what people and the machine will follow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli_rehearsal import add_rehearsal_commands
from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.settings import Settings
    from runbooks.engine.problems import Problem

FOUND_FAULTS = 1
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write into; this one if not given.")]


def add_runbook_commands(app: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """Hang `watchkeeper runbook` into the program; `require_schema` refuses a database of another version."""
    runbooks = typer.Typer(
        no_args_is_help=True, help="Runbooks: write and check what people and the machine will follow."
    )
    app.add_typer(runbooks, name="runbook")
    _add_lint(runbooks)
    _add_test(runbooks)
    _add_sign(runbooks)
    add_rehearsal_commands(runbooks, require_schema)
    _add_writers(runbooks)


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


def _add_test(runbooks: typer.Typer) -> None:
    @runbooks.command("test")
    def test(
        paths: Annotated[
            list[Path] | None, typer.Argument(help="Runbooks, their fixtures, or folders; ours when none.")
        ] = None,
    ) -> None:
        """Run the runbooks' own fixtures (NAME.test.yaml beside NAME.md); prints file:line of what does not hold."""
        from bot.runbook_tests import run_tests

        tested = asyncio.run(run_tests(paths or ()))
        for problem in tested.problems:
            print(problem)
        without = f"; without a fixture: {', '.join(tested.without)}" if tested.without and paths else ""
        print(f"{tested.runbooks} runbooks, {tested.cases} cases, {len(tested.problems)} failures{without}")
        if tested.problems:
            raise typer.Exit(FOUND_FAULTS)


def _add_sign(runbooks: typer.Typer) -> None:
    @runbooks.command("sign")
    def sign(
        folder: Annotated[Path, typer.Argument(help="A folder of runbooks and pages.", exists=True, file_okay=False)],
        *,
        key: Annotated[Path, typer.Option(help="Your Ed25519 private key in PEM: openssl genpkey -algorithm ed25519.")],
    ) -> None:
        """Vouch for a folder's files as they are: write SHA256SUMS and its signature; says what changed since."""
        from bot.pages import markdown_files
        from runbooks.engine.signed import LIST, SIGNATURE, UnsignedError
        from runbooks.engine.signed import sign as write

        names = markdown_files(folder)
        try:
            changed = write(folder, names, key)
        except UnsignedError as error:
            raise WatchkeeperError(str(error)) from error
        for line in changed:
            print(line)
        print(f"signed {len(names)} files: {folder / LIST}, {folder / SIGNATURE}")


def _add_writers(runbooks: typer.Typer) -> None:
    @runbooks.command("new")
    def new(
        name: Annotated[str, typer.Argument(help="The file's name without .md, such as queue-backlog.")],
        *,
        title: Annotated[str | None, typer.Option(help="One line: what is wrong.")] = None,
        alert: Annotated[list[str] | None, typer.Option(help="An alert rule's name; may be repeated.")] = None,
        cause: Annotated[list[str] | None, typer.Option(help="A cause's id, such as S04; may be repeated.")] = None,
        owner: Annotated[str, typer.Option(help="Who keeps it true.")] = "",
        out: OutFolder = Path(),
    ) -> None:
        """Write the skeleton of a runbook, and say what only you can fill in. Overwrites nothing."""
        from bot.authoring import new_runbook

        today = datetime.now(UTC).date()
        written, problems = new_runbook(
            name,
            out,
            today=today,
            title=title or name.replace("-", " "),
            alerts=alert or (),
            causes=cause or (),
            owner=owner,
        )
        _tell(written, problems)

    @runbooks.command("import")
    def take_over(
        file: Annotated[Path, typer.Argument(help="An Agent Skill's SKILL.md, or Markdown with runme's blocks.")],
        *,
        out: OutFolder = Path(),
    ) -> None:
        """Write somebody else's Markdown as a runbook whose steps people do; says line by line what is lost."""
        from bot.authoring import import_runbook

        source, written, problems = import_runbook(file, out, today=datetime.now(UTC).date())
        for lost in source.lost:
            print(f"{file}:{lost.line}: {lost.what}")
        print(f"{source.steps} steps for people, {len(source.lost)} losses")
        _tell(written, problems)

    @runbooks.command("schema")
    def schema(
        *, tests: Annotated[bool, typer.Option("--tests", help="Of fixtures (NAME.test.yaml) instead.")] = False
    ) -> None:
        """Print the JSON Schema of front matter and steps, with the names of this installation, for your editor."""
        from bot.library import vocabulary
        from runbooks.engine.fixtures import fixture_schema
        from runbooks.engine.schema import schema_for

        print(json.dumps(fixture_schema() if tests else schema_for(vocabulary()), indent=2))


def _tell(written: Path, problems: Sequence[Problem]) -> None:
    print(f"wrote {written}")
    for problem in problems:
        print(f"to do: {problem}")


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise WatchkeeperError(f"--today {text!r} is not a day such as 2026-11-22") from None
