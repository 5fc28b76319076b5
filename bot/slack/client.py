"""Slack's Web API behind a small face: what we send never unfurls, never mentions by name, and carries its key."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.slack.view import Message

METADATA_TYPE = "watchkeeper"
_USER_CACHE_S = 60.0
_LOOK_BACK_PAGES = 3
_TRIES = 3
_PATIENCE_S = 3.0
"""A longer Retry-After is not waited out here: the caller comes back later, and other incidents go on meanwhile."""

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
_MISSING = frozenset({"message_not_found", "cant_update_message"})


class SlackError(Exception):
    """
    Slack refused, or could not be reached.

    `permanent` says that trying again cannot help, and that nobody can mend it from outside. When it is false the
    message may have been sent all the same: look it up by its key (`find_posted`) before sending it again.
    `retry_after` is Slack's own wish, in seconds; `untouched` says that Slack certainly did nothing, as after a rate
    limit, and `missing` that the message which was to be changed is not there any more, or not ours.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        retry_after: float | None = None,
        untouched: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.untouched = untouched
        self.missing = missing


def web_client(token: str, base_url: str | None = None, timeout_s: int = 10) -> AsyncWebClient:
    """The client that Bolt and we share; it waits out no rate limit, since the turnstile does that for each method."""
    return AsyncWebClient(token=token, timeout=timeout_s, base_url=base_url or AsyncWebClient.BASE_URL)


class _Turnstile:
    """
    One call of a method at a time, and none before its Retry-After is over.

    Slack limits a method for the whole workspace. In a storm of incidents every card wants the same method, and those
    that went on asking while one waits would keep the limit up.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed_until: dict[str, float] = {}

    async def said(self, method: str, call: Callable[[], Awaitable[AsyncSlackResponse]]) -> Mapping[str, Any]:
        """Slack's answer; short limits are waited out. Raises SlackError."""
        async with self._locks[method]:
            for _ in range(_TRIES - 1):
                await self._opening(method)
                try:
                    return await self._asked(method, call)
                except SlackError as error:
                    if not error.untouched:
                        raise
            await self._opening(method)
            return await self._asked(method, call)

    async def _opening(self, method: str) -> None:
        left_s = self._closed_until.get(method, 0.0) - self._clock()
        if left_s > _PATIENCE_S:
            raise SlackError(
                f"Slack limits {method} for another {left_s:.0f} s", permanent=False, retry_after=left_s, untouched=True
            )
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _asked(self, method: str, call: Callable[[], Awaitable[AsyncSlackResponse]]) -> Mapping[str, Any]:
        try:
            return await _said(call())
        except SlackError as error:
            if error.untouched:
                self._closed_until[method] = self._clock() + (error.retry_after or 1.0)
            raise


class SlackClient:
    """Every call raises SlackError and nothing else. `clock` is monotonic seconds, for the cache of users."""

    def __init__(self, web: AsyncWebClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._web = web
        self._clock = clock
        self._turnstile = _Turnstile(clock)
        self._users: dict[str, tuple[float, Mapping[str, Any]]] = {}

    async def post(self, channel: str, message: Message, *, key: str, thread_ts: str | None = None) -> str:
        """Returns the message's `ts`. `key` is unique to this message and finds it again."""
        posted = await self._turnstile.said(
            "chat.postMessage",
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

    async def update(self, channel: str, ts: str, message: Message, *, key: str) -> None:
        """Replace text and blocks together: an update without blocks would remove them."""
        await self._turnstile.said(
            "chat.update",
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
        """Shown to one person only, and gone when they reload."""
        await self._turnstile.said(
            "chat.postEphemeral",
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

    async def upload_picture(
        self, channel: str, png: bytes, *, filename: str, title: str, alt_text: str, thread_ts: str | None = None
    ) -> None:
        """A PNG into the channel or a thread. It has no key: send it once, and never again after an unknown outcome."""
        await self._turnstile.said(
            "files.upload",
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
            return await self._turnstile.said("conversations.history", lambda: self._web.conversations_history(**page))
        return await self._turnstile.said(
            "conversations.replies", lambda: self._web.conversations_replies(**page, ts=thread_ts)
        )

    async def users_info(self, user: str) -> Mapping[str, Any]:
        """Slack's `user` object, at most 60 s old: a deactivated account loses its rights within a minute."""
        now = self._clock()
        cached = self._users.get(user)
        if cached is not None and now - cached[0] < _USER_CACHE_S:
            return cached[1]
        answer = await _said(self._web.users_info(user=user))  # a person waits for it: never in a queue
        account = answer.get("user")
        if not isinstance(account, Mapping):
            raise SlackError("users.info: the answer has no user", permanent=False)
        self._users = {name: entry for name, entry in self._users.items() if now - entry[0] < _USER_CACHE_S}
        self._users[user] = (now, account)
        return account


async def _said(call: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
    """Await a call of slack_sdk; its many kinds of error become SlackError."""
    try:
        response = await call
    except SlackApiError as error:
        raise _translated(error) from error
    except SlackClientError as error:
        raise SlackError(f"the request could not be made: {error}", permanent=True) from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SlackError(f"Slack cannot be reached: {type(error).__name__}", permanent=False) from error
    return response.data if isinstance(response.data, Mapping) else {}


def _translated(error: SlackApiError) -> SlackError:
    response = error.response
    status = getattr(response, "status_code", 0)
    payload = getattr(response, "data", response)
    name = str(payload.get("error", "")) if isinstance(payload, Mapping) else ""
    passing = status == 429 or status >= 500 or name in _PASSING | _MENDABLE or not name
    headers = getattr(response, "headers", None) or {}
    wished = str(headers.get("Retry-After", ""))
    retry_after = float(wished) if wished.isascii() and wished.isdigit() else None
    limited = status == 429 or name == "ratelimited"
    return SlackError(
        f"Slack answered {name or status}",
        permanent=not passing,
        retry_after=retry_after,
        untouched=limited,
        missing=name in _MISSING,
    )


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
