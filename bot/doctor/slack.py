"""Slack: the token, its scopes, the channel, Socket Mode, and whether the people of the configuration are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.config import Config, Person
from bot.doctor.advice import Advice
from bot.settings import Settings
from bot.slack.client import answer_of, web_client

SCOPES = ("app_mentions:read", "chat:write", "commands", "files:write", "users:read")
GROUPS = "usergroups:read"
"""Where a [[role_source]] is a user group."""

HISTORY = ("channels:history", "groups:history")
"""One of them finds a posted card again after a lost answer: the first in public channels, the second in private."""

_REINSTALL = "add them to the app (deploy/slack-manifest.yaml has all) and install it to the workspace again"
_NAMED = {
    "invalid_auth": "the token is wrong or of another workspace: copy it from the app's OAuth page",
    "account_inactive": "the app was removed from the workspace: install it again",
    "token_revoked": "the token was revoked: install the app again",
    "not_in_channel": "invite the app: /invite @Watchkeeper in that channel",
    "channel_not_found": "correct INCIDENT_CHANNEL (an id such as C0123456789), and invite the app if it is private",
    "missing_scope": _REINSTALL,
    "not_allowed_token_type": "SLACK_APP_TOKEN must be an app-level token (xapp-...) with the scope connections:write",
}


class _RefusedError(Exception):
    """Slack refused a call or cannot be reached; `remedy` is what to do."""

    def __init__(self, says: str, remedy: str) -> None:
        super().__init__(says)
        self.remedy = remedy


async def examine(settings: Settings, config: Config) -> list[Advice]:
    if settings.slack_bot_token is None:
        return []  # the settings say so already
    web = web_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_base_url)
    try:
        me, scopes = await _who_am_i(web)
    except _RefusedError as refusal:
        return [Advice.bad("Slack", str(refusal), refusal.remedy)]
    found = [
        Advice.ok("Slack", f"{me.get('user', 'the app')} in {me.get('team', 'the workspace')}"),
        _scopes(scopes, config),
    ]
    found += await asyncio.gather(_channel(web, settings), _socket(web, settings))
    found += await asyncio.gather(*(_person(web, str(me.get("team_id", "")), person) for person in config.people))
    return found


async def _who_am_i(web: AsyncWebClient) -> tuple[Mapping[str, Any], frozenset[str]]:
    body, headers = await _call(web, "auth.test")
    given = headers.get("x-oauth-scopes", "")
    return body, frozenset(scope.strip() for scope in given.split(",") if scope.strip())


async def _call(
    web: AsyncWebClient, method: str, *, token: str | None = None, **params: str | int
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """A call's answer and its headers, in lower case."""
    try:
        answer = await web.api_call(method, params={**params, **({"token": token} if token else {})})
    except SlackApiError as error:
        _, name, _ = answer_of(error)
        raise _RefusedError(f"{method}: {name or 'no answer that can be read'}", _NAMED.get(name, _STATUS)) from error
    except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _RefusedError(f"cannot be reached: {type(error).__name__}", _NETWORK) from error
    headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
    return (answer.data if isinstance(answer.data, Mapping) else {}), headers


_STATUS = "look at https://status.slack.com and at the error's name in Slack's documentation of the method"
_NETWORK = "let this machine reach https://slack.com (SLACK_API_BASE_URL for another address)"


def _scopes(given: frozenset[str], config: Config) -> Advice:
    if not given:
        return Advice.unknown("Slack scopes", "Slack did not say which the token has", "compare them by hand")
    needed = {*SCOPES, *([GROUPS] if any(each.slack_usergroup for each in config.role_sources) else [])}
    missing = [scope for scope in sorted(needed) if scope not in given]
    if not given & set(HISTORY):
        missing.append(" or ".join(HISTORY))
    if missing:
        return Advice.bad("Slack scopes", f"missing: {', '.join(missing)}", _REINSTALL)
    surplus = given - {*needed, *HISTORY, GROUPS}
    more = f"; {', '.join(sorted(surplus))} are not needed" if surplus else ""
    return Advice.ok("Slack scopes", f"all that are needed{more}")


async def _channel(web: AsyncWebClient, settings: Settings) -> Advice:
    """Reading one message proves that the app is in the channel and finds its cards again."""
    channel = settings.incident_channel
    if channel is None:
        return Advice.bad("Slack channel", "INCIDENT_CHANNEL is not set", "set it to the channel's id")
    try:
        await _call(web, "conversations.history", channel=channel, limit=1)
    except _RefusedError as refusal:
        return Advice.bad("Slack channel", f"{channel}: {refusal}", refusal.remedy)
    return Advice.ok("Slack channel", f"{channel} can be read; posting is proved by the first card")


async def _socket(web: AsyncWebClient, settings: Settings) -> Advice:
    if not settings.socket_mode:
        return Advice.ok("Slack events", "come over HTTP to /slack/events, signed")
    if settings.slack_app_token is None:
        return Advice.bad("Slack events", "SOCKET_MODE without SLACK_APP_TOKEN", _NAMED["not_allowed_token_type"])
    try:
        await _call(web, "apps.connections.open", token=settings.slack_app_token.get_secret_value())
    except _RefusedError as refusal:
        return Advice.bad("Slack events", str(refusal), refusal.remedy)
    return Advice.ok("Slack events", "come over Socket Mode; a connection is granted")


async def _person(web: AsyncWebClient, team: str, person: Person) -> Advice:
    """Somebody whose Slack id is misspelt is a stranger there, and learns it at 3 a.m."""
    about = f"person {person.id}"
    if not person.slack:
        return Advice.unknown(about, "has no Slack id, so their clicks count for nobody", "add slack = [TEAM/USER]")
    here = [account.partition("/")[2] for account in person.slack if account.partition("/")[0] == team]
    if not here:
        return Advice.unknown(about, "is of other Slack workspaces only", f"add {team}/USER if they click here")
    try:
        body, _ = await _call(web, "users.info", user=here[0])
    except _RefusedError as refusal:
        return Advice.bad(about, f"Slack user {here[0]}: {refusal}", "correct the id, or remove the person")
    user = body.get("user")
    user = user if isinstance(user, Mapping) else {}
    barred = [word for word in ("deleted", "is_bot", "is_restricted", "is_ultra_restricted") if user.get(word)]
    if barred:
        says = f"Slack user {here[0]} is {', '.join(barred)}, and may do nothing here"
        return Advice.bad(about, says, "give the id of a full, active member")
    return Advice.ok(about, f"{user.get('real_name') or user.get('name') or here[0]} in Slack")
