"""
Who clicked? The one place that turns a Slack payload into a Person; every listener goes through it.

A person must be in the configuration under exactly this team and user, and Slack itself must say, at most a minute ago,
that the account is an active, full member of this workspace. Guests, bots, deleted accounts, people of other teams and
strangers are nobody; so is everybody while Slack cannot be asked.

The same is asked about whoever approved a plan when it starts, and before each of its acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from bot import narrate
from bot.incidents import Person, StoreUnavailableError
from bot.slack.client import SlackError
from bot.slack.desk import People
from bot.standing import CannotAskError

_DISQUALIFYING = {
    "deleted": "the Slack account is deactivated",
    "is_bot": "the Slack account is a bot's",
    "is_app_user": "the Slack account is an app's",
    "is_restricted": "the Slack account is a guest's",
    "is_ultra_restricted": "the Slack account is a guest's",
    "is_stranger": "the Slack account belongs to another organisation",
    "is_workflow_bot": "the Slack account is a workflow's",
}


class NobodyError(Exception):
    """The payload comes from nobody we know; the message is for them, `why` is for the record."""

    def __init__(self, message: str, *, why: str) -> None:
        super().__init__(message)
        self.why = why


class UserDirectory(Protocol):
    """Slack's users.info, cached for at most a minute."""

    async def users_info(self, user: str) -> Mapping[str, Any]:
        """Raises SlackError."""


class Authoriser:
    """Says who somebody is. What they may do is the desk's decision, made again when it is done."""

    def __init__(self, *, people: People, directory: UserDirectory) -> None:
        self._people = people
        self._directory = directory
        self._said_at: dict[str, datetime] = {}

    async def person(self, payload: Mapping[str, Any]) -> Person:
        """The person behind a click or a command. Raises NobodyError."""
        team, user = account_of(payload)
        if not team or not user:
            raise NobodyError(narrate.NOT_A_MEMBER, why="the payload names no team or user")
        home = _home_team(payload)
        if home and home != team:
            raise NobodyError(narrate.NOT_A_MEMBER, why=f"the user belongs to another team, {home}")
        person = await self._person(team, user)
        if person is None:
            raise NobodyError(narrate.NOT_A_MEMBER, why="not in the configuration")
        try:
            why = await self._disqualified(team, user)
        except SlackError as error:
            raise NobodyError(narrate.CANNOT_CHECK_YOU, why=f"users.info: {error}") from error
        if why:
            raise NobodyError(narrate.NOT_A_MEMBER, why=why)
        return person

    async def lost(self, person_id: str, *, now: datetime) -> str:
        """
        Why none of this person's Slack accounts could click any more; "" while one can, or where they have none.

        Raises CannotAskError when Slack does not say.
        """
        whys: list[str] = []
        for team, user in await self._people.accounts(person_id):
            try:
                why = await self._disqualified(team, user)
            except SlackError as error:
                raise CannotAskError(str(error), said_at=self._said_at.get(person_id)) from error
            if not why:
                self._said_at[person_id] = now
                return ""
            whys.append(why)
        return "; ".join(whys)

    async def _disqualified(self, team: str, user: str) -> str:
        """Why Slack disowns this account, "" when it does not. Raises SlackError."""
        try:
            return _disqualified(await self._directory.users_info(user), team, user)
        except SlackError as error:
            if error.missing:
                return str(error)
            raise

    async def _person(self, team: str, user: str) -> Person | None:
        try:
            return await self._people.by_slack(team, user)
        except StoreUnavailableError as error:
            raise NobodyError(narrate.CANNOT_LOOK_YOU_UP, why=f"people: {error}") from error


def account_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Team and user of an interaction (objects) or of a slash command (flat fields); empty when there is none."""
    team = _id(payload.get("team")) or _word(payload.get("team_id"))
    user = _id(payload.get("user")) or _word(payload.get("user_id"))
    return team, user


def _home_team(payload: Mapping[str, Any]) -> str:
    """In a shared channel, a partner's click carries their own team in `user.team_id`."""
    user = payload.get("user")
    return _word(user.get("team_id")) if isinstance(user, Mapping) else ""


def _disqualified(account: Mapping[str, Any], team: str, user: str) -> str:
    if account.get("id") != user:
        return "users.info answered about somebody else"
    for flag, why in _DISQUALIFYING.items():
        if account.get(flag):
            return f"{why} ({flag})"
    home = account.get("team_id")
    return f"the Slack account belongs to another team, {home}" if home != team else ""


def _id(value: Any) -> str:
    return _word(value.get("id")) if isinstance(value, Mapping) else ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= 64 else ""
