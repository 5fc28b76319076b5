"""
`watchkeeper change ...` writes into the change journal and reads it, beside the database; tokens let pipelines report.

Pipelines far from the database say the same with `POST /changes` (docs/changes.md).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli_operator import AsJson, unix_user
from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.config import Config
    from bot.settings import Settings

Configured = Callable[[], tuple["Settings", "Config"]]
ServiceName = Annotated[str, typer.Option("--service", help="A service of watchkeeper.toml.")]


def add_change_commands(app: typer.Typer, configured: Configured, require_schema: Callable[[Settings], None]) -> None:
    """Hang this file's commands into the program; `require_schema` refuses a database of another version."""
    changes = typer.Typer(no_args_is_help=True, help="The change journal: what was changed, by whom, and when.")
    app.add_typer(changes, name="change")
    _add_journal(changes, configured, require_schema)
    _add_tokens(changes, configured, require_schema)


def _add_journal(changes: typer.Typer, configured: Configured, require_schema: Callable[[Settings], None]) -> None:
    @changes.command("record")
    def record(
        *,
        service: ServiceName,
        kind: Annotated[str, typer.Option(help="prompt, model, engine, config, flag, index, gateway, ...")],
        summary: Annotated[str, typer.Option(help="What was changed, in a sentence.")],
        at: Annotated[str | None, typer.Option(help="When, such as 2026-03-02T11:50:00Z; now if not given.")] = None,
        change_id: Annotated[str | None, typer.Option("--id", help="Recording the same id twice is once.")] = None,
        author: Annotated[str | None, typer.Option(help="Who did it; you if not given.")] = None,
        scope: Annotated[
            list[str] | None, typer.Option(help="What it touches: DIMENSION=VALUE; may be repeated.")
        ] = None,
        url: Annotated[str | None, typer.Option(help="Where people read about it.")] = None,
        before_file: Annotated[Path | None, typer.Option(help="The text before, such as a prompt.")] = None,
        after_file: Annotated[Path | None, typer.Option(help="The text after.")] = None,
    ) -> None:
        """Write a change into the journal, so that a diagnosis can suspect it."""
        settings, config = configured()
        require_schema(settings)
        from bot.changes_by_hand import record_change

        said = {
            "id": change_id,
            "kind": kind,
            "service": service,
            "summary": summary,
            "at": at,
            "author": author or unix_user(),
            "scope": _scope(scope or ()),
            "url": url,
            "before": _text(before_file),
            "after": _text(after_file),
        }
        print(asyncio.run(record_change(settings, config, said, actor=unix_user(), now=datetime.now(UTC))))

    @changes.command("list")
    def list_changes(
        *,
        service: ServiceName,
        since: Annotated[str, typer.Option(help="How far back: 6h, 2d, 1w.")] = "6h",
        as_json: AsJson = False,
    ) -> None:
        """Show the journal of a service, oldest first."""
        settings, config = configured()
        require_schema(settings)
        from bot.backtest import period
        from bot.changes_by_hand import changes_in_words, listed_changes

        found = asyncio.run(listed_changes(settings, config, service, period(since), now=datetime.now(UTC)))
        print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else changes_in_words(found))


def _add_tokens(changes: typer.Typer, configured: Configured, require_schema: Callable[[Settings], None]) -> None:
    tokens = typer.Typer(no_args_is_help=True, help="Tokens for pipelines that report changes with POST /changes.")
    changes.add_typer(tokens, name="token")

    @tokens.command("add")
    def add(
        source: Annotated[str, typer.Argument(help="The source that this token speaks for, such as github-actions.")],
        *,
        label: Annotated[str, typer.Option(help="What it is for.")] = "",
        days: Annotated[int, typer.Option(help="How long it counts.")] = 365,
    ) -> None:
        """Make a token for a source and print it, once."""
        settings, config = configured()
        require_schema(settings)
        from bot.changes_by_hand import add_token

        print(asyncio.run(add_token(settings, config, source, label=label, days=days, actor=unix_user())))

    @tokens.command("list")
    def list_tokens() -> None:
        """Which sources have tokens, until when they count; never the tokens themselves."""
        settings, _ = configured()
        require_schema(settings)
        from bot.changes_by_hand import list_tokens as listed

        print(asyncio.run(listed(settings)))

    @tokens.command("revoke")
    def revoke(
        token: Annotated[str, typer.Argument(metavar="ID", help="From `watchkeeper change token list`.")],
    ) -> None:
        """End a token."""
        settings, _ = configured()
        require_schema(settings)
        from bot.changes_by_hand import revoke_token

        print(asyncio.run(revoke_token(settings, token, actor=unix_user())))


def _scope(words: list[str] | tuple[()]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        dimension, equals, value = word.partition("=")
        if not (equals and value):
            raise WatchkeeperError(f"--scope {word!r} is not DIMENSION=VALUE, such as prompt=chat-system")
        found.setdefault(dimension, []).append(value)
    return found


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise WatchkeeperError(f"{file} cannot be read: {reason}") from error
