"""How often fixes may run: counts what started within the last hour against the limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot import narrate
from bot.config import Limit
from runbooks.engine.values import Plan, PlannedStep

HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Act:
    """A step that started at that time, or of a fix that is under way and will start it."""

    at: datetime
    tier: str
    environment: str
    service: str
    action: str
    target: str


def act(plan: Plan, step: PlannedStep, at: datetime) -> Act:
    """The step as limits count it."""
    return Act(
        at=at,
        tier=step.tier.name,
        environment=plan.environment,
        service=plan.service,
        action=step.action,
        target=step.target,
    )


def over_limit(limits: Sequence[Limit], plan: Plan, past: Sequence[Act], now: datetime) -> str:
    """Which limit this plan would break now, and when it will not, in words; "" when it may start. Undos may always."""
    if plan.undoes is not None:
        return ""
    asked = [act(plan, step, now) for step in plan.steps]
    return next((words for limit in limits for words in _broken(limit, asked, past, now)), "")


def _broken(limit: Limit, asked: Sequence[Act], past: Sequence[Act], now: datetime) -> Iterator[str]:
    mine = [each for each in asked if counts(limit, each)]
    known = [each for each in past if counts(limit, each) and each.at > now - HOUR]
    if limit.per_hour is not None and mine and len(known) + len(mine) > limit.per_hour:
        yield _words(limit, limit.per_hour, "", known, len(mine))
    if (most := limit.per_target_per_hour) is None:
        return
    for target in dict.fromkeys(each.target for each in mine):
        here = [each for each in known if each.target == target]
        wanted = sum(each.target == target for each in mine)
        if len(here) + wanted > most:
            yield _words(limit, most, f" on {target}", here, wanted)


def counts(limit: Limit, each: Act) -> bool:
    """Is this a step that the limit is about?"""
    return limit.covers(tier=each.tier, environment=each.environment, service=each.service, action=each.action)


def _words(limit: Limit, most: int, where: str, known: Sequence[Act], wanted: int) -> str:
    what = f"{described(limit)} may start at most {most} times an hour{where}"
    too_many = len(known) + wanted - most
    if too_many > len(known):
        return f"{what}, and this fix alone has {wanted} such steps"
    free_at = sorted(each.at for each in known)[too_many - 1] + HOUR
    return f"{what}, and {len(known)} did; it is free again at {narrate.clock(free_at)}"


def described(limit: Limit) -> str:
    """ "R1 steps kubernetes.scale for chat in prod"."""
    tier = "" if limit.tier == "*" else f"{limit.tier} "
    action = "" if limit.action == "*" else f" {limit.action}"
    service = "" if limit.service == "*" else f" for {limit.service}"
    environment = "" if limit.environment == "*" else f" in {limit.environment}"
    return f"{tier}steps{action}{service}{environment}"
