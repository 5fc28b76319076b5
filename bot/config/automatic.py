"""Whether the actions that a configuration names exist, and whether a service may take some without a person."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from bot.config.bounds import Limit
from bot.config.entries import Service
from bot.config.errors import Problem, did_you_mean
from bot.config.lines import TomlPath
from runbooks.engine.actions import build_actions
from runbooks.engine.values import Tier

MOST_BY_ITSELF = Tier.R1


def unfit_actions(entries: Mapping[str, Mapping[int, Any]]) -> Iterator[Problem]:
    """Limits of actions that do not exist, and services in mode auto that could not keep to its conditions."""
    for position, limit in entries["limit"].items():
        if limit.action != "*":
            yield from _known(limit.action, ("limit", position, "action"))
    for position, service in entries["service"].items():
        at: TomlPath = ("service", position)
        if service.mode == "auto" and not service.auto:
            yield Problem(
                path=(*at, "mode"),
                what="mode auto, and no action is named that it may take",
                remedy='add auto = ["ACTION"], or write mode = "approve"',
            )
        for number, action in enumerate(service.auto):
            yield from _automatic(action, service, (*at, "auto", number), entries["limit"].values())


def _automatic(action: str, service: Service, path: TomlPath, limits: Collection[Limit]) -> Iterator[Problem]:
    tiers = _tiers()
    if action not in tiers:
        yield from _known(action, path)
        return
    tier = tiers[action]
    if tier > MOST_BY_ITSELF:
        yield Problem(
            path=path,
            what=f"{action} is or may be {tier.name}, and only R0 and R1 may run without a person",
            remedy="leave it out; people approve it",
        )
    elif not is_limited(limits, tier=tier.name, service=service, action=action):
        yield Problem(
            path=path,
            what=f"nothing limits how often {action} runs by itself for {service.name}",
            remedy="add a [[limit]] with per_hour that covers it",
        )


def is_limited(limits: Collection[Limit], *, tier: str, service: Service, action: str) -> bool:
    """Is there a number of times in an hour after which it stops?"""
    return any(
        limit.per_hour is not None
        and limit.covers(tier=tier, environment=service.environment, service=service.name, action=action)
        for limit in limits
    )


def _known(action: str, path: TomlPath) -> Iterator[Problem]:
    if action not in _tiers():
        remedy = did_you_mean(action, _tiers(), "runbooks/README.md lists them")
        yield Problem(path=path, what=f"there is no action {action!r}", remedy=remedy)


@cache
def _tiers() -> Mapping[str, Tier]:
    """Each action's highest tier; made only for configurations that name actions."""
    return {name: action.tier for name, action in build_actions().items()}
