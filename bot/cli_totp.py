"""`watchkeeper operator totp ...`: one-time codes for what a click alone must not start; beside the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bot.settings import Settings

PersonId = Annotated[str, typer.Argument(metavar="NAME", help="An id of watchkeeper.toml.")]


def add_totp_commands(
    operator: typer.Typer, require_schema: Callable[[Settings], None], unix_user: Callable[[], str]
) -> None:
    """
    Hang this file's commands below `operator`.

    `require_schema` refuses a database of another version; `unix_user` says who stands at it, for the record.
    """
    codes = typer.Typer(no_args_is_help=True, help="One-time codes (TOTP), which R3 fixes and break-glass need.")
    operator.add_typer(codes, name="totp")

    @codes.command("new-key")
    def new_key() -> None:
        """Print a fresh key for WATCHKEEPER_STEP_UP_KEY, which seals the secrets in the database."""
        from bot.step_up import new_key as made

        print(made())

    @codes.command("set-up")
    def set_up(person: PersonId) -> None:
        """Show somebody's secret to their authenticator, once, and keep it when its first code is right."""
        from bot.config import load_config
        from bot.operate_codes import enrol

        settings = _settings(require_schema)
        config = load_config(settings.watchkeeper_config, prometheus_url=settings.prometheus_url)
        print(asyncio.run(enrol(settings, config, person, actor=unix_user(), show=print, ask=_ask)))

    @codes.command("list")
    def list_holders() -> None:
        """Who has one-time codes, since when, and who is locked out; never the secrets."""
        from bot.operate_codes import holders

        print(asyncio.run(holders(_settings(require_schema))))

    @codes.command("remove")
    def remove(person: PersonId) -> None:
        """End somebody's codes: a lost phone, or a person who left."""
        from bot.operate_codes import remove as end

        print(asyncio.run(end(_settings(require_schema), person, actor=unix_user())))


def _ask() -> str:
    return str(typer.prompt("Code"))


def _settings(require_schema: Callable[[Settings], None]) -> Settings:
    from bot.settings import Settings

    settings = Settings.load()
    require_schema(settings)
    return settings
