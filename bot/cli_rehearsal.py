"""`watchkeeper runbook plan | preview | coverage`: what a runbook would do, how it looks, and what none is for."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.settings import Settings

NOT_POSSIBLE = 1


class Gap(StrEnum):
    """What a pipeline may fail on."""

    MISSING = "missing"
    STALE = "stale"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunbookFile = Annotated[Path, typer.Argument(metavar="FILE", help="A runbook, such as runbooks/queue-backlog.md.")]


def add_rehearsal_commands(runbooks: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """Hang this file's commands into `watchkeeper runbook`; `require_schema` refuses a database of another version."""
    _add_plan(runbooks, require_schema)
    _add_preview(runbooks)
    _add_coverage(runbooks)


def _add_plan(runbooks: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    @runbooks.command("plan")
    def plan(
        file: RunbookFile,
        *,
        case: Annotated[Path | None, typer.Option(help="A recorded case's folder.")] = None,
        incident: Annotated[str | None, typer.Option(help="An incident's id, with its latest diagnosis.")] = None,
        param: Annotated[list[str] | None, typer.Option(help="name=value of a parameter; may be repeated.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Render exactly what would run: steps, targets, present state, risk, undo, approvers. Touches nothing."""
        if (case is None) == (incident is None):
            raise WatchkeeperError("say for what: either --case DIR or --incident ID")
        from bot.config import load_config
        from bot.rehearsal_shown import as_json as in_json
        from bot.rehearsal_shown import show
        from bot.rehearsals import for_case, for_incident, read_case
        from bot.settings import Settings

        settings = Settings.load()
        if case is not None:
            offer = asyncio.run(for_case(file, asyncio.run(read_case(case)), param or (), settings))
        else:
            require_schema(settings)
            config = load_config(settings.watchkeeper_config, prometheus_url=settings.prometheus_url)
            offer = asyncio.run(for_incident(file, str(incident), param or (), settings, config))
        if as_json:
            print(json.dumps(in_json(offer), indent=2))
        else:
            show(offer, sys.stdout)
        if offer.rehearsal.plan is None:
            raise typer.Exit(NOT_POSSIBLE)


def _add_preview(runbooks: typer.Typer) -> None:
    @runbooks.command("preview")
    def preview(
        file: RunbookFile,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="Print the card's blocks for Block Kit Builder.")] = False,
        of_thread: Annotated[bool, typer.Option("--thread", help="With --json: the thread's first message.")] = False,
    ) -> None:
        """Show the card and the thread that would offer the runbook's fix in Slack."""
        from rich.console import Console
        from rich.rule import Rule

        from bot.preview import builder
        from bot.preview import preview as draw
        from bot.slack.terminal import lines

        drawn = asyncio.run(draw(file))
        if as_json:
            print(json.dumps(builder(drawn.thread[0] if of_thread else drawn.card), indent=2))
            return
        console = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
        for title, message in (("card", drawn.card), *(("thread", each) for each in drawn.thread)):
            console.print(Rule(title, align="left"))
            for line in lines(message.blocks):
                console.print(line)
        print(drawn.note)


def _add_coverage(runbooks: typer.Typer) -> None:
    @runbooks.command("coverage")
    def coverage(
        *,
        fail_on: Annotated[list[Gap] | None, typer.Option(help="Exit status 1 if any is; may be repeated.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Say which alerts and causes have no runbook, and which runbooks are never used, fail, or are overdue."""
        from bot.coverage import as_json as in_json
        from bot.coverage import here, in_words
        from bot.settings import Settings

        found = asyncio.run(here(Settings.load(), today=datetime.now(UTC).date()))
        print(json.dumps(in_json(found), indent=2) if as_json else "\n".join(in_words(found)))
        wanted = set(fail_on or ())
        if (Gap.MISSING in wanted and found.missing) or (Gap.STALE in wanted and found.stale):
            raise typer.Exit(NOT_POSSIBLE)
