"""Slack's Web API behind a small face: what we send never unfurls, never mentions by name, and carries its key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from prometheus_client import CollectorRegistry
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.far_ends import FarEnds
from bot.slack.counted import CountedWebClient
from bot.slack.line import Line
from bot.slack.pace import ClosedError, Pace, Rank
from bot.slack.view import Message

log = structlog.get_logger(__name__)

METADATA_TYPE = "watchkeeper"
_USER_CACHE_S = 60.0
_LOOK_BACK_PAGES = 3
_ASK_EVERY_S = 2.0

# Slack's own words for "later".
_PASSING = frozenset(
    {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "rollup_error"}
)
# What a person can mend: the token, its scopes, the channel, the workspace's rules. Every other error stays the same
# however often we ask.
_MENDABLE = frozenset(
    {
        "invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive", "missing_scope",
        "not_in_channel", "channel_not_found", "is_archived", "org_login_required", "ekm_access_denied",
        "access_denied", "no_permission", "restricted_action", "team_access_not_granted",
    }
)  # fmt: skip
_MISSING = frozenset({"message_not_found", "cant_update_message", "user_not_found", "user_not_visible"})


class SlackError(Exception):
    """
    Slack refused, or could not be reached.

    `permanent` says that trying again cannot help, and that nobody can mend it from outside. When it is false the
    message may have been sent all the same: look it up by its key (`find_posted`) before sending it again.
    `retry_after` is Slack's own wish, in seconds; `untouched` says that Slack certainly did nothing, as after a rate
    limit, and `missing` that the message or the account which was meant is not there any more, or not ours.
    `unreachable` says that nobody was there, or nobody who speaks Slack, so that it is no message's fault.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        retry_after: float | None = None,
        untouched: bool = False,
        missing: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.untouched = untouched
        self.missing = missing
        self.unreachable = unreachable


def web_client(
    token: str, base_url: str | None = None, timeout_s: int = 10, far_ends: FarEnds | None = None
) -> AsyncWebClient:
    """
    The client that Bolt and we share. It repeats nothing by itself.

    slack_sdk's own handler sends a request again when the connection broke, also a post that Slack has taken.
    """
    return CountedWebClient(
        far_ends or FarEnds(CollectorRegistry()),
        token=token,
        timeout=timeout_s,
        base_url=base_url or AsyncWebClient.BASE_URL,
        retry_handlers=[],
    )


class SlackClient:
    """
    Every call raises SlackError and nothing else. `clock` is monotonic seconds.

    What people do not wait for is not even tried while Slack is away (`line`) or its limits are reached (`pace`).
    """

    def __init__(self, web: AsyncWebClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._web = web
        self._clock = clock
        self._pace = Pace(clock)
        self._users: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self.line = Line("Slack: not reachable")
        self.workspace_url = ""

    def room(self, method: str, channel: str, rank: Rank) -> int:
        """How many calls of this importance would go through now; ask before doing the work for one."""
        return 0 if self.line.down_since else self._pace.room(method, channel, rank)

    async def post(
        self, channel: str, message: Message, *, key: str, thread_ts: str | None = None, rank: Rank = Rank.CARD
    ) -> str:
        """Returns the message's `ts`. `key` is unique to this message and finds it again."""
        posted = await self._paced(
            "chat.postMessage",
            channel,
            rank,
            lambda: self._web.chat_postMessage(
                channel=channel,
                text=message.text,
                blocks=message.blocks,
                metadata=_metadata(key),
                thread_ts=thread_ts,
                parse="none",
                link_names=False,
                unfurl_links=False,
                unfurl_media=False,
            ),
        )
        return _text(posted, "ts")

    async def update(self, channel: str, ts: str, message: Message, *, key: str, rank: Rank = Rank.CARD) -> None:
        """Replace text and blocks together: an update without blocks would remove them."""
        await self._paced(
            "chat.update",
            channel,
            rank,
            lambda: self._web.chat_update(
                channel=channel,
                ts=ts,
                text=message.text,
                blocks=message.blocks,
                metadata=_metadata(key),
                parse="none",
                link_names=False,
            ),
        )

    async def ephemeral(self, channel: str, user: str, message: Message, *, thread_ts: str | None = None) -> None:
        """Shown to one person only, and gone when they reload; a person waits for it, so it is always tried."""
        await self._tried(
            "chat.postEphemeral",
            channel,
            Rank.FIRST,
            lambda: self._web.chat_postEphemeral(
                channel=channel,
                user=user,
                text=message.text,
                blocks=message.blocks,
                thread_ts=thread_ts,
                parse="none",
                link_names=False,
            ),
        )

    async def open_view(self, trigger_id: str, view: Mapping[str, Any]) -> None:
        """A form for whoever just clicked; a trigger counts once, for three seconds."""
        await self._tried(
            "views.open", "", Rank.FIRST, lambda: self._web.views_open(trigger_id=trigger_id, view=dict(view))
        )

    async def respond(self, response_url: str, message: Message) -> None:
        """The same by the address that came with a click or a command; it needs neither a channel nor a limit."""
        if not self._is_slacks(response_url):
            raise SlackError("there is no response_url of Slack's to answer to", permanent=True)
        webhook = AsyncWebhookClient(
            response_url, timeout=self._web.timeout, ssl=self._web.ssl, proxy=self._web.proxy, retry_handlers=[]
        )
        try:
            answer = await webhook.send(
                text=message.text, blocks=message.blocks, response_type="ephemeral", replace_original=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise SlackError(f"the response_url cannot be reached: {type(error).__name__}", permanent=False) from error
        if answer.status_code != 200:
            raise SlackError(f"the response_url answered {answer.status_code}", permanent=True)

    def _is_slacks(self, url: str) -> bool:
        """Only Slack can have sent it; still, nothing of ours is sent to whatever address a payload may name."""
        try:
            asked, ours = urlsplit(url), urlsplit(self._web.base_url)
        except ValueError:
            return False
        if asked.netloc == ours.netloc and asked.scheme == ours.scheme:
            return True  # a stand-in's
        return asked.scheme == "https" and asked.netloc == "hooks.slack.com"

    async def upload_picture(
        self, channel: str, png: bytes, *, filename: str, title: str, alt_text: str, thread_ts: str | None = None
    ) -> None:
        """A PNG into the channel or a thread. It has no key: send it once, and never again after an unknown outcome."""
        await self._paced(
            "files.upload",
            channel,
            Rank.EVIDENCE,
            lambda: self._web.files_upload_v2(
                channel=channel, file=png, filename=filename, title=title, alt_txt=alt_text, thread_ts=thread_ts
            ),
        )

    async def find_posted(
        self, channel: str, key: str, *, thread_ts: str | None = None, since: datetime | None = None
    ) -> str | None:
        """The `ts` of our message with this key, in the channel or a thread; None when the last 300 do not hold it."""
        cursor = ""
        oldest = {"oldest": f"{since.timestamp():.6f}"} if since else {}
        for _ in range(_LOOK_BACK_PAGES):
            page: dict[str, Any] = {"channel": channel, "limit": 100, "include_all_metadata": True, **oldest}
            page |= {"cursor": cursor} if cursor else {}
            found = await self._page(page, thread_ts)
            for message in found.get("messages") or []:
                if _key_of(message) == key:
                    return _text(message, "ts")
            cursor = (found.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return None
        return None

    async def _page(self, page: Mapping[str, Any], thread_ts: str | None) -> Mapping[str, Any]:
        if thread_ts is None:
            return await self._paced(
                "conversations.history", page["channel"], Rank.CARD, lambda: self._web.conversations_history(**page)
            )
        return await self._paced(
            "conversations.replies",
            page["channel"],
            Rank.CARD,
            lambda: self._web.conversations_replies(**page, ts=thread_ts),
        )

    async def users_info(self, user: str) -> Mapping[str, Any]:
        """Slack's `user` object, at most 60 s old: a deactivated account loses its rights within a minute."""
        now = self._clock()
        cached = self._users.get(user)
        if cached is not None and now - cached[0] < _USER_CACHE_S:
            return cached[1]
        answer = await self._tried("users.info", "", Rank.FIRST, lambda: self._web.users_info(user=user))
        account = answer.get("user")
        if not isinstance(account, Mapping):
            raise SlackError("users.info: the answer has no user", permanent=False)
        self._users = {name: entry for name, entry in self._users.items() if now - entry[0] < _USER_CACHE_S}
        self._users[user] = (now, account)
        return account

    async def usergroup(self, team: str, group: str) -> list[str]:
        """The members' ids of a user group that is switched on; a group that is not there or off is a SlackError."""
        listed = await self._tried(
            "usergroups.list", "", Rank.EVIDENCE, lambda: self._web.usergroups_list(team_id=team)
        )
        groups = listed.get("usergroups")
        known = [each.get("id") for each in groups if isinstance(each, Mapping)] if isinstance(groups, list) else []
        if group not in known:
            raise SlackError(f"usergroups.list: there is no user group {group} that is switched on", permanent=True)
        answer = await self._tried(
            "usergroups.users.list",
            "",
            Rank.EVIDENCE,
            lambda: self._web.usergroups_users_list(usergroup=group, team_id=team),
        )
        users = answer.get("users")
        if not isinstance(users, list):
            raise SlackError("usergroups.users.list: the answer has no users", permanent=False)
        return [user for user in users if isinstance(user, str)]

    async def probe(self) -> None:
        """Ask Slack who we are: whether it is there, and the workspace's address for links. Never in a queue."""
        answer = await self._asked("auth.test", "", self._web.auth_test)
        url = answer.get("url")
        self.workspace_url = url if isinstance(url, str) else ""

    async def keep_asking(self, every_s: float = _ASK_EVERY_S) -> None:
        """For ever: while Slack is away, and until its address is known, ask whether it is there."""
        while True:
            if self.line.down_since is not None or not self.workspace_url:
                try:
                    await self.probe()
                except SlackError as error:
                    log.info("Slack does not answer", why=str(error))
            await asyncio.sleep(every_s)

    def permalink(self, channel: str, ts: str) -> str:
        """Where the message can be read; empty while the workspace's address is not known."""
        return f"{self.workspace_url}archives/{channel}/p{ts.replace('.', '')}" if self.workspace_url else ""

    async def _paced(
        self, method: str, channel: str, rank: Rank, call: Callable[[], Awaitable[AsyncSlackResponse]]
    ) -> Mapping[str, Any]:
        async def unless_away() -> AsyncSlackResponse:
            if self.line.down_since:  # asked as late as this: those before us in the queue may have found out
                raise SlackError(self.line.why, permanent=False, untouched=True, unreachable=True)
            return await call()

        return await self._tried(method, channel, rank, unless_away)

    async def _tried(
        self, method: str, channel: str, rank: Rank, call: Callable[[], Awaitable[AsyncSlackResponse]]
    ) -> Mapping[str, Any]:
        try:
            async with self._pace.turn(method, channel, rank):
                return await self._asked(method, channel, call)
        except ClosedError as error:
            raise SlackError(str(error), permanent=False, retry_after=error.seconds, untouched=True) from error

    async def _asked(
        self, method: str, channel: str, call: Callable[[], Awaitable[AsyncSlackResponse]]
    ) -> Mapping[str, Any]:
        try:
            answer = await _said(call())
        except SlackError as error:
            if error.unreachable:
                self.line.lost(str(error))
                raise
            self.line.found()
            if error.untouched:
                self._pace.close(method, channel, error.retry_after or 1.0)
            raise
        self.line.found()
        return answer


async def _said(call: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
    """Await a call of slack_sdk; its many kinds of error become SlackError."""
    try:
        response = await call
    except SlackApiError as error:
        raise _translated(error) from error
    except SlackClientError as error:
        raise SlackError(f"the request could not be made: {error}", permanent=True) from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        why = f"Slack cannot be reached: {type(error).__name__}"
        raise SlackError(why, permanent=False, unreachable=True) from error
    return response.data if isinstance(response.data, Mapping) else {}


def _translated(error: SlackApiError) -> SlackError:
    status, name, retry_after = answer_of(error)
    passing = status == 429 or status >= 500 or name in _PASSING | _MENDABLE or not name
    limited = status == 429 or name == "ratelimited"
    return SlackError(
        f"Slack answered {name or status}",
        permanent=not passing,
        retry_after=retry_after,
        untouched=limited,
        missing=name in _MISSING,
        unreachable=not limited and (status >= 500 or not name),
    )


def answer_of(error: SlackApiError) -> tuple[int, str, float | None]:
    """The status, Slack's word for the error, and its Retry-After; slack_sdk has two kinds of answers in its errors."""
    response = error.response
    status: int = getattr(response, "status_code", 0) or getattr(response, "status", 0)
    payload = getattr(response, "data", response)
    name = str(payload.get("error", "")) if isinstance(payload, Mapping) else ""
    wished = str((getattr(response, "headers", None) or {}).get("Retry-After", ""))
    return status, name, float(wished) if wished.isascii() and wished.isdigit() else None


def _metadata(key: str) -> dict[str, Any]:
    return {"event_type": METADATA_TYPE, "event_payload": {"key": key}}


def _key_of(message: Any) -> str | None:
    metadata = message.get("metadata") if isinstance(message, Mapping) else None
    if not isinstance(metadata, Mapping) or metadata.get("event_type") != METADATA_TYPE:
        return None
    payload = metadata.get("event_payload")
    key = payload.get("key") if isinstance(payload, Mapping) else None
    return key if isinstance(key, str) else None


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise SlackError(f"Slack's answer has no {name}", permanent=False)
    return value
