"""
Socket Mode: Slack's envelopes over a WebSocket that we open, so that no address of ours need be public.

Any number of processes may hold a connection each; Slack sends an envelope to one of them. slack_sdk's own client is
not used: after a handshake that failed it tries the same one-time address for ever, and it acknowledges over whatever
connection is the newest. What an envelope holds goes to the same Bolt app as a request of the HTTP door.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any

import aiohttp
import structlog
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.client import answer_of
from bot.slack.line import Line, utc_now

log = structlog.get_logger(__name__)

PATIENCE_S = 10.0
"""For the address, for the handshake, and for Slack's first word."""

HEARTBEAT_S = 10.0
"""A ping that stays without an answer for half of this ends the connection; a cut cable says nothing by itself."""

LINGER_S = 15.0
"""After "disconnect" Slack closes within ten seconds; what it still sends until then is heard."""

_LONGEST_WAIT_S = 20.0
_SHORT_LIFE_S = 5.0  # a connection that ends sooner counts as a failure, or we would spin
_MOST_BYTES = 1024 * 1024

IsReadable = Callable[[Any], bool]


class NoConnectionError(Exception):
    """Slack did not take the connection; `retry_after` is its own wish in seconds."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class SlackSocket:
    """
    Keeps one connection to Slack and hands what comes over it to Bolt.

    Raises nothing: while Slack is away, `line` says since when and why, and everything else goes on.
    """

    def __init__(
        self,
        *,
        bolt: AsyncApp,
        web: AsyncWebClient,
        app_token: str,
        is_readable: IsReadable,
        now: Callable[[], datetime] = utc_now,
        longest_wait_s: float = _LONGEST_WAIT_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._bolt = bolt
        self._web = web
        self._token = app_token
        self._is_readable = is_readable
        self._longest_wait_s = longest_wait_s
        self._heartbeat_s = heartbeat_s
        self.line = Line("Slack: Socket Mode not connected", now)
        self._stopping = False
        self._session: aiohttp.ClientSession | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self._hearing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect in the background; returns at once."""
        self.line.lost("not connected yet")
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self, patience_s: float = 5.0) -> None:
        """Take nothing more, let what is being decided be acknowledged, then hang up."""
        self._stopping = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._hearing:
            await asyncio.wait(self._hearing, timeout=patience_s)
        for task in (*self._reading, *self._hearing):
            task.cancel()
        await asyncio.gather(*self._reading, *self._hearing, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _keep(self) -> None:
        """Connect, again and again; a refused attempt is repeated ever more slowly."""
        self._session = aiohttp.ClientSession()
        failures = 0
        while True:
            try:
                socket = await self._connect(self._session)
            except NoConnectionError as error:
                failures += 1
                self.line.lost(str(error))
                log.warning("Slack's Socket Mode cannot be reached", why=str(error), failures=failures)
                await asyncio.sleep(max(self._wait_s(failures), error.retry_after))
                continue
            began = time.monotonic()
            self.line.found()
            log.info("connected to Slack's Socket Mode")
            wants_another = asyncio.Event()
            reading = self._begin(self._reading, self._read(socket, wants_another))
            await _either(reading, wants_another)
            failures = failures + 1 if time.monotonic() - began < _SHORT_LIFE_S else 0
            if reading.done():
                self.line.lost("the connection ended")
                log.warning("Slack's Socket Mode connection ended")
            await asyncio.sleep(self._wait_s(failures))

    def _wait_s(self, failures: int) -> float:
        """Jitter, since others lost their connections at the same moment; longer with every failure in a row."""
        return random.uniform(0.05, min(self._longest_wait_s, 0.5 * 2.0 ** min(failures, 8)))  # noqa: S311

    async def _connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        """A connection on which Slack has said hello. Raises NoConnectionError."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                opened = await self._web.apps_connections_open(app_token=self._token)
                socket = await session.ws_connect(
                    str(opened["url"]),
                    heartbeat=self._heartbeat_s,
                    max_msg_size=_MOST_BYTES,
                    proxy=self._web.proxy,
                    ssl=self._web.ssl or True,
                )
                hello = await socket.receive_json()
        except SlackApiError as error:
            status, name, retry_after = answer_of(error)
            raise NoConnectionError(f"Slack answered {name or status}", retry_after or 0.0) from error
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError) as error:
            raise NoConnectionError(_in_words(error)) from error
        if not isinstance(hello, Mapping) or hello.get("type") != "hello":
            await socket.close()
            raise NoConnectionError("whoever answered did not say hello")
        return socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, wants_another: asyncio.Event) -> None:
        """Until the connection ends; after Slack announced the end, for a little while."""
        try:
            async with asyncio.timeout(None) as limit:
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT or self._stopping:
                        continue
                    said = _object(message.data)
                    if said.get("type") == "disconnect":
                        log.info("Slack will end the connection", reason=str(said.get("reason"))[:100])
                        wants_another.set()
                        limit.reschedule(asyncio.get_running_loop().time() + LINGER_S)
                    elif isinstance(said.get("envelope_id"), str):
                        self._begin(self._hearing, self._hear(socket, said))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("reading from Slack ended", why=type(error).__name__)
        finally:
            if self._hearing:  # their acknowledgements go over this connection
                await asyncio.wait(self._hearing, timeout=3.0)
            await socket.close()

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse, envelope: Mapping[str, Any]) -> None:
        """
        Let Bolt decide and acknowledge that; what it did not take stays without an answer, and Slack sends it again.

        The listeners acknowledge after their commit.
        """
        payload = envelope.get("payload")
        if not isinstance(payload, dict) or not self._is_readable(payload):
            log.error("envelope not understood", kind=str(envelope.get("type"))[:40])
            return
        request = AsyncBoltRequest(mode="socket_mode", body=payload, headers=_retry_headers(envelope))
        response = await self._bolt.async_dispatch(request)
        if response.status != 200:
            log.warning("envelope not acknowledged", kind=str(envelope.get("type"))[:40], status=response.status)
            return
        answer = {"envelope_id": envelope["envelope_id"]}
        if envelope.get("accepts_response_payload") and (said := _payload_of(response)):
            answer["payload"] = said
        with contextlib.suppress(aiohttp.ClientError, OSError):  # it will come again, and is known then
            await socket.send_json(answer)

    def _begin(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(lambda ended: _ended(tasks, ended))
        return task


def _ended(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if not task.cancelled() and (broke := task.exception()) is not None:
        log.error("an envelope broke off", exc_info=broke)


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _in_words(error: Exception) -> str:
    """Without the error's own text: it may hold the address, with which anybody could connect in our place."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__


def _object(text: str) -> Mapping[str, Any]:
    """What Slack said; nothing when it is no JSON object."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}


def _retry_headers(envelope: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    """As the HTTP door would have them."""
    attempt = envelope.get("retry_attempt")
    return {"X-Slack-Retry-Num": str(attempt)} if isinstance(attempt, int) and attempt else {}


def _payload_of(response: BoltResponse) -> dict[str, Any] | None:
    """A command's answer, as a message."""
    if not response.body:
        return None
    try:
        said = json.loads(response.body)
    except ValueError:
        return {"text": response.body}
    return said if isinstance(said, dict) else None
