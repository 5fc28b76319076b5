"""
`watchkeeper audit ...`: verify the record, export it, and take checkpoints to keep elsewhere.

`verify --export` needs no database, no settings and nothing of the product that made the export.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.proof import Known
    from bot.settings import Settings

Out = Annotated[Path | None, typer.Option("--out", help="Write to this file, which must not exist yet.")]


def add_audit_commands(app: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """Hang this file's commands into the program; `require_schema` refuses a database of another version."""
    audit = typer.Typer(no_args_is_help=True, help="The hash-chained record of what was done and by whom.")
    app.add_typer(audit, name="audit")

    @audit.command("verify")
    def verify(
        *,
        checkpoint: Annotated[Path | None, typer.Option(help="A file of checkpoints that was kept elsewhere.")] = None,
        key: Annotated[
            str | None,
            typer.Option(help="The public key of their signatures; by default that of WATCHKEEPER_SEAL_KEY."),
        ] = None,
        export: Annotated[Path | None, typer.Option(help="Verify this export, without any database.")] = None,
    ) -> None:
        """Recompute the chain of hashes; with a checkpoint also find what was cut off or rewritten as a whole."""
        from bot.operate import verify_audit, verify_exported

        known = _checkpoints(checkpoint, key) if checkpoint else None
        if export is not None:
            print(verify_exported(export, known))
            return
        settings = _settings(require_schema)
        print(asyncio.run(verify_audit(settings, known)))

    @audit.command("checkpoint")
    def take_checkpoint(*, out: Out = None) -> None:
        """Verify the record, and print where it ends, signed; keep that where nobody here can write."""
        from bot.operate import checkpoint as take

        settings = _settings(require_schema)
        text = asyncio.run(take(settings))
        with _output(out) as file:
            print(text, file=file)

    @audit.command("export")
    def export_record(
        *,
        since: Annotated[str | None, typer.Option(help="From then on: 2026-11-01 or 2026-11-01T08:00:00Z.")] = None,
        until: Annotated[str | None, typer.Option(help="Up to then, that time excluded.")] = None,
        out: Out = None,
    ) -> None:
        """Print the record as JSON lines that anybody can verify (docs/audit.md)."""
        from bot.operate import export_audit

        settings = _settings(require_schema)
        times = _time(since, "--since"), _time(until, "--until")
        with _output(out) as file:
            said = asyncio.run(export_audit(settings, since=times[0], until=times[1], write=file.write))
        print(said, file=sys.stderr)

    _add_keys(audit)
    _add_reviews(audit, require_schema)


def _add_keys(audit: typer.Typer) -> None:
    """What checkpoints are signed and verified with."""

    @audit.command("new-key")
    def new_key() -> None:
        """Print a fresh secret for WATCHKEEPER_SEAL_KEY, which signs checkpoints."""
        from bot.seal import new_secret

        print(new_secret())

    @audit.command("public-key")
    def public_key() -> None:
        """Print what verifies the signatures of this deployment; give it to whoever audits."""
        from bot.operate import public_key as known
        from bot.settings import Settings

        print(known(Settings.load()))


def _add_reviews(audit: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """What is owed where somebody started a fix alone."""

    @audit.command("reviews")
    def reviews() -> None:
        """List every time that somebody broke the glass; what nobody has reviewed yet comes first."""
        from bot.operate_reviews import reviews as listed

        print(asyncio.run(listed(_settings(require_schema), datetime.now(UTC))))

    @audit.command("review")
    def review(
        number: Annotated[int, typer.Argument(metavar="ID", help="From `watchkeeper audit reviews`.")],
        *,
        by: Annotated[str, typer.Option(help="Who reviewed it: an id of watchkeeper.toml, not who broke the glass.")],
        says: Annotated[str, typer.Option(help="Whether it was right, and what should change.")],
    ) -> None:
        """Close the review of a broken glass; what it says goes on record."""
        from bot.cli_operator import unix_user
        from bot.config import load_config
        from bot.operate_reviews import review as close

        settings = _settings(require_schema)
        config = load_config(settings.watchkeeper_config, prometheus_url=settings.prometheus_url)
        print(asyncio.run(close(settings, config, number, by=by, says=says, actor=unix_user())))


def _checkpoints(path: Path, key: str | None) -> Known:
    from bot.checkpoints import read_checkpoints
    from bot.operate import public_key
    from bot.proof import NotProvenError
    from bot.settings import Settings

    public = public_key(Settings.load()) if key is None else key
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WatchkeeperError(f"{path} cannot be read: {reason}") from error
    try:
        return read_checkpoints(text, public)
    except NotProvenError as error:
        raise NotProvenError(f"{path}: {error}") from error


def _settings(require_schema: Callable[[Settings], None]) -> Settings:
    from bot.settings import Settings

    settings = Settings.load()
    require_schema(settings)
    return settings


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a new file; a proof never overwrites another."""
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise WatchkeeperError(f"{out} cannot be written: {error.strerror}") from error


def _time(text: str | None, option: str) -> datetime | None:
    """A time with its zone; without one it is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise WatchkeeperError(f"{option} has to be a day or a time, such as 2026-11-01, not {text!r}") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
