"""
`watchkeeper operator ...` gives out tokens, beside the database; `incidents`, `show`, `similar`, `approve`, `deny`,
`revoke`, `narrow`, `stop` and `go` use them.

The latter ask the running server over HTTP: whoever has a token needs no access to the database, and the policy and
the record are the same as behind Slack's buttons.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli_totp import add_totp_commands
from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.operator_client import Json, OperatorClient
    from bot.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The id on the card and on the web page, plan-...")]
Digest = Annotated[str | None, typer.Option("--digest", metavar="SHA256", help="The hash of the plan you read.")]
Beside = Annotated[bool, typer.Option("--database", help="In the database itself; so, too, without WATCHKEEPER_TOKEN.")]
Code = Annotated[str | None, typer.Option("--code", help="The one-time code that your phone shows, for an R3 plan.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; needs --digest.")]


def add_operator_commands(app: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """Hang this file's commands into the program; `require_schema` refuses a database of another version."""
    _add_tokens(app, require_schema)
    _add_views(app)
    _add_deeds(app)
    _add_break_glass(app)
    _add_switch(app, require_schema)


def _add_tokens(app: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """What is done beside the database."""
    tokens = typer.Typer(no_args_is_help=True, help="Tokens and one-time codes for people who work outside Slack.")
    app.add_typer(tokens, name="operator")
    add_totp_commands(tokens, require_schema, unix_user)

    @tokens.command("add")
    def add(
        person: Annotated[str, typer.Argument(help="Whose token: an id of watchkeeper.toml.")],
        *,
        label: Annotated[str, typer.Option(help="What it is for, such as laptop.")] = "",
        days: Annotated[int, typer.Option(help="How long it counts.")] = 30,
    ) -> None:
        """Make a token for somebody and print it, once."""
        settings = _settings()
        require_schema(settings)
        from bot.config import load_config
        from bot.operate import add_token

        config = load_config(settings.watchkeeper_config, prometheus_url=settings.prometheus_url)
        print(asyncio.run(add_token(settings, config, person, label=label, days=days, actor=unix_user())))

    @tokens.command("list")
    def list_tokens() -> None:
        """Whose tokens there are, until when they count; never the tokens themselves."""
        settings = _settings()
        require_schema(settings)
        from bot.operate import list_tokens as listed

        print(asyncio.run(listed(settings)))

    @tokens.command("revoke")
    def revoke(token: Annotated[str, typer.Argument(metavar="ID", help="From `watchkeeper operator list`.")]) -> None:
        """End a token, and every session that was begun with it."""
        settings = _settings()
        require_schema(settings)
        from bot.operate import revoke_token

        print(asyncio.run(revoke_token(settings, token, actor=unix_user())))


def _add_views(app: typer.Typer) -> None:
    """What the running server is asked to tell."""

    @app.command("incidents")
    def incidents(*, as_json: AsJson = False) -> None:
        """List the open incidents. Works while Slack is down."""
        from bot.operator_client import incidents_in_words

        answer = operator_client().incidents()
        print(json.dumps(answer, indent=2) if as_json else incidents_in_words(answer))

    @app.command("show")
    def show(
        thing: Annotated[str, typer.Argument(metavar="INCIDENT_OR_PLAN", help="An id.")], *, as_json: AsJson = False
    ) -> None:
        """Show an incident with its evidence, fixes and timeline, or a plan as it would be approved."""
        from bot.operator_client import thing_in_words

        answer = operator_client().show(thing)
        print(json.dumps(answer, indent=2) if as_json else thing_in_words(answer))

    @app.command("similar")
    def similar(
        incident: Annotated[str, typer.Argument(metavar="INCIDENT", help="Its id.")],
        *,
        explain: Annotated[bool, typer.Option("--explain", help="How much and why each resembles it.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """List past incidents that resemble one: their cause, the fix that ran, and what became of it."""
        from bot.operator_client import seen_in_words

        answer = operator_client().incident(incident)
        print(json.dumps(answer["seen"], indent=2) if as_json else seen_in_words(answer, explain=explain))


def _add_deeds(app: typer.Typer) -> None:
    """What the running server is asked to do."""

    @app.command("approve")
    def approve(plan: PlanId, *, yes: Yes = False, digest: Digest = None, code: Code = None) -> None:
        """Approve a plan, after showing exactly what it changes. Works while Slack is down."""
        client = operator_client()
        read = _read(client, plan, "approve", yes=yes, digest=digest)
        if read["needs_code"] and code is None and not yes:
            code = typer.prompt("One-time code")
        _said(client.approve(plan, read["digest"], code))

    @app.command("deny")
    def deny(plan: PlanId, *, yes: Yes = False, digest: Digest = None) -> None:
        """Refuse a plan for good. Works while Slack is down."""
        client = operator_client()
        read = _read(client, plan, "deny", yes=yes, digest=digest)
        _said(client.deny(plan, read["digest"]))

    @app.command("revoke")
    def revoke(plan: PlanId, *, yes: Yes = False, digest: Digest = None) -> None:
        """Take the approval of a plan back that has not begun; it is offered again. Works while Slack is down."""
        client = operator_client()
        read = _read(client, plan, "revoke the approval of", yes=yes, digest=digest)
        _said(client.revoke(plan, read["digest"]))

    @app.command("narrow")
    def narrow(
        plan: PlanId,
        *,
        param: Annotated[list[str], typer.Option("--param", metavar="NAME=VALUE", help="One value; may be repeated.")],
    ) -> None:
        """Make a plan anew with other values. The old one is void, and somebody else has to approve the new one."""
        values = dict(_named(each) for each in param)
        client = operator_client()
        print(client.narrow(plan, values, client.plan(plan)["digest"])["said"])


def _add_break_glass(app: typer.Typer) -> None:
    """The way past the quorum."""

    @app.command("break-glass")
    def break_glass(
        plan: PlanId,
        *,
        reason: Annotated[str, typer.Option(help="Why it cannot wait for the others; somebody reviews it.")],
        yes: Yes = False,
        digest: Digest = None,
        code: Code = None,
    ) -> None:
        """Start a plan alone, in an emergency, for a role that may; on record, told to all, and reviewed."""
        from bot import narrate

        client = operator_client()
        read = _read(client, plan, "start alone", yes=yes, digest=digest)
        if read["on_failure"]:
            typer.echo(narrate.OFFERED_ALONE)
        _said(client.break_glass(plan, read["digest"], reason, code or typer.prompt("One-time code")))


def _add_switch(app: typer.Typer, require_schema: Callable[[Settings], None]) -> None:
    """The kill switch: asked of the server like the other deeds, or turned beside the database."""

    @app.command("stop")
    def stop(
        *,
        reason: Annotated[str, typer.Option(help="Why, for the others.")] = "",
        database: Beside = False,
    ) -> None:
        """Stop every fix on every machine before its next step. Works while Slack is down."""
        settings = _settings()
        if settings.watchkeeper_token is not None and not database:
            print(operator_client().stop(reason)["said"])
            return
        require_schema(settings)
        from bot.operate import stop_beside_the_database

        print(asyncio.run(stop_beside_the_database(settings, reason, actor=unix_user())))

    @app.command("go")
    def go(*, database: Beside = False) -> None:
        """End the stop: fixes may start again, but none from before it."""
        settings = _settings()
        if settings.watchkeeper_token is not None and not database:
            print(operator_client().go()["said"])
            return
        require_schema(settings)
        from bot.operate import go_beside_the_database

        print(asyncio.run(go_beside_the_database(settings, actor=unix_user())))


def _read(client: OperatorClient, plan_id: str, decision: str, *, yes: bool, digest: str | None) -> Json:
    """The plan, after the person has read it and said so; with `yes` they say by its hash that they have."""
    from bot.operator_client import thing_in_words

    if yes and not digest:
        raise WatchkeeperError("--yes needs --digest: say which plan you read")
    plan = client.plan(plan_id)
    if digest not in (None, plan["digest"]):
        raise WatchkeeperError(f"{plan_id} is not the plan that you read: its hash is {plan['digest']}")
    print(thing_in_words(plan))
    if plan["refusal"]:
        print(f"  note       {plan['refusal']}")
    if not yes and typer.prompt(f'Type "yes" to {decision} exactly this', default="no") != "yes":
        raise WatchkeeperError("nothing was done")
    return plan


def _said(answer: Json) -> None:
    print(f"{answer['said']} The plan is now {answer['state']}.")


def _named(param: str) -> tuple[str, str]:
    name, equals, value = param.partition("=")
    if not equals:
        raise WatchkeeperError(f"{param!r} is not NAME=VALUE, for example --param replicas=4")
    return name.strip(), value


def operator_client() -> OperatorClient:
    """Speaks for the bearer of WATCHKEEPER_TOKEN. Raises WatchkeeperError without one."""
    from bot.operator_client import OperatorClient

    settings = _settings()
    if settings.watchkeeper_token is None:
        raise WatchkeeperError(
            "WATCHKEEPER_TOKEN is not set: have `watchkeeper operator add` run for you where the server is, "
            "and set it, or WATCHKEEPER_TOKEN_FILE, to what that prints"
        )
    return OperatorClient(settings.watchkeeper_url, settings.watchkeeper_token.get_secret_value())


def _settings() -> Settings:
    from bot.settings import Settings

    return Settings.load()


def unix_user() -> str:
    """Who stands at the database; whoever can read it could do anything, so this is a note and no proof."""
    try:
        return f"unix:{getpass.getuser()}"
    except (KeyError, OSError):
        return "unix:unknown"
