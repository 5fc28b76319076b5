"""`watchkeeper policy explain`: who may approve a step, and why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli_operator import AsJson
from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.config import Config
    from bot.explain import Explained, LimitLine
    from bot.limits import Act
    from bot.settings import Settings

_VERDICTS = {"yes": "may approve this", "on_call": "may approve this while on call", "no": "may not approve this"}


def add_policy_commands(
    app: typer.Typer,
    configured: Callable[[], tuple[Settings, Config]],
    require_schema: Callable[[Settings], None],
) -> None:
    """Hang this file's commands into the program; without a database of this version limits are not counted."""
    policy = typer.Typer(no_args_is_help=True, help="Who may approve what.")
    app.add_typer(policy, name="policy")

    @policy.command("explain")
    def explain(
        *,
        user: Annotated[str, typer.Option(help="A [[person]]'s id, or their name.")],
        runbook: Annotated[str, typer.Option(help="A runbook's file name without .md.")],
        step: Annotated[str, typer.Option(help="A step's number or title.")],
        service: Annotated[str | None, typer.Option(help="The only one that fits if not given.")] = None,
        environment: Annotated[
            str | None, typer.Option(help="prod, staging or dev; the service's if not given.")
        ] = None,
        at: Annotated[str | None, typer.Option(help="Then: 14:03 (today, UTC) or 2026-12-24T14:03:00Z; now.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Say whether somebody may approve a step, rule by rule, and what else holds it up."""
        from bot.diagnose import instant_of
        from bot.explain import Question
        from bot.explain import explain as ask
        from bot.library import open_shelf
        from runbooks.engine.actions import build_actions

        settings, config = configured()
        now = datetime.now(UTC)
        question = Question(
            user=user,
            runbook=runbook,
            step=step,
            service=service,
            environment=environment,
            at=instant_of(at, now) if at else now,
        )
        acts = _acts(settings, require_schema, question.at) if config.limits else ()
        answer = ask(config, open_shelf(config.runbooks).runbooks, build_actions(), question, acts)
        print(json.dumps(asdict(answer), indent=2, default=str) if as_json else "\n".join(_lines(answer)))


def _acts(settings: Settings, require_schema: Callable[[Settings], None], at: datetime) -> Sequence[Act] | None:
    """What started in the hour before; None when the database cannot be asked."""
    from bot.store.database import Database
    from bot.store.plans import Plans

    async def read() -> Sequence[Act]:
        database = Database(settings.database_url.get_secret_value())
        try:
            return await Plans(database).recent_acts(now=at)
        finally:
            await database.close()

    try:
        require_schema(settings)
        return asyncio.run(read())
    except WatchkeeperError:
        return None


def _lines(answer: Explained) -> Iterator[str]:
    team = f", team {answer.team}" if answer.team else ", no team"
    yield f"{answer.name} ({answer.person}{team}) {_VERDICTS[answer.verdict]}: {answer.why}"
    yield f"  step       {answer.step} {answer.title}: {answer.action}, {answer.tier}"
    whole = "" if answer.plan_tier == answer.tier else f" (a fix is approved as a whole: {answer.plan_tier})"
    yield f"  runbook    {answer.runbook}{whole}"
    yield f"  service    {answer.service}, {answer.environment}, mode {answer.mode}"
    yield f"  at         {answer.at:%Y-%m-%d %H:%M} UTC"
    yield "Roles"
    yield from (f"  {each.role:<15} {each.source}" for each in answer.roles)
    if not answer.roles:
        yield "  none"
    yield "Rules, in file order"
    for rule in answer.rules:
        yield f"  {'->' if rule.decides else '  '} {rule.number}  {rule.rule}: {rule.why}"
    if not answer.rules:
        yield "  none, so nobody may approve anything"
    yield "What it takes"
    yield from (f"  {each}" for each in _needed(answer))


def _needed(answer: Explained) -> Iterator[str]:
    yield f"approvers  {answer.who}"
    if answer.count is not None:
        team = ", one of them of another team than the service and the requester" if answer.other_team else ""
        yield f"quorum     {answer.count} of them{team}; never the requester"
        code = "a one-time code outside Slack from each" if answer.step_up else "not needed"
        yield f"step-up    {code}"
        starts = f"starts within {answer.start_within_min:g} min or never"
        yield f"clocks     offered for {answer.expires_min:g} min; {starts}"
    yield f"freeze     {answer.freeze or 'none at that time'}"
    yield f"limits     {'; '.join(map(_limit, answer.limits)) or 'none counts this step'}"
    yield f"by itself  {f'no. {answer.by_itself}' if answer.by_itself else 'yes: mode auto, and every step is allowed'}"


def _limit(line: LimitLine) -> str:
    each = [f"{line.per_hour} an hour"] if line.per_hour is not None else []
    each += [f"{line.per_target_per_hour} an hour on a target"] if line.per_target_per_hour is not None else []
    used = "not counted: the database cannot be asked" if line.used is None else f"{line.used} in the hour before"
    targets = [f"{count} on {target}" for target, count in line.used_by_target.items()]
    return f"{line.limit}: at most {' and '.join(each)} ({', '.join([used, *targets])})"
