"""The part of a process that people and PagerDuty meet: the doors, Slack's listeners, and the desk behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler

from bot.desk import Desk
from bot.doors import Backlog, Intake, Readiness
from bot.parts import Parts, reveal
from bot.reception import operator_routes
from bot.slack.bolt import build_bolt
from bot.slack.listeners import Stragglers
from bot.slack.socket import SlackSocket
from bot.store.inbox_writer import InboxWriter
from bot.store.slack_events import SlackEvents
from bot.web.app import WebSettings, build_web
from bot.web.slack_payload import has_parts
from retrieval.ranking import RunbookSearch


class Front:
    """Verifies, stores, answers; what is asked of it is done by whoever works, here or in another process."""

    def __init__(self, parts: Parts, *, search: RunbookSearch, ring: Callable[[], None]) -> None:
        self._parts = parts
        self._ring = ring
        self.stragglers = Stragglers()
        self._writer = InboxWriter(parts.database)
        self.desk = self._desk(search)
        self.bolt = build_bolt(
            web=parts.slack_web,
            desk=self.desk,
            authoriser=parts.authoriser,
            slack=parts.slack,
            claims=SlackEvents(parts.database),
            stragglers=self.stragglers,
        )
        self.socket = self._socket() if parts.settings.socket_mode else None

    def _desk(self, search: RunbookSearch) -> Desk:
        parts = self._parts
        return Desk(
            incidents=parts.incidents,
            plans=parts.plans,
            journal=parts.journal,
            approvals=parts.approvals,
            glass=parts.glass,
            policy=parts.policy,
            search=search,
            errands=parts.errands,
            switch=parts.switch,
            stop_file=parts.stop_file,
            narrowing=parts.narrowing,
            votes=parts.votes,
            ring=self._ring,
        )

    def _socket(self) -> SlackSocket:
        parts = self._parts
        token = reveal(parts.settings.slack_app_token)
        socket = SlackSocket(bolt=self.bolt, web=parts.slack_web, app_token=token, is_readable=has_parts)
        parts.troubles.append(socket.line.trouble)
        return socket

    async def start(self) -> None:
        """When the doors open. Slack's Socket Mode connects in the background, however long that takes."""
        if self.socket is not None:
            self.socket.start()

    async def stop(self) -> None:
        """After the doors are closed: late clicks end first, and what came is stored, whether or not somebody waits."""
        if self.socket is not None:
            await self.socket.stop()
        await self.stragglers.finish()
        await self._writer.drain()

    def web(self, readiness: Readiness) -> Any:
        """The FastAPI application: both doors, probes, and whatever pages operators get."""
        parts = self._parts
        settings = WebSettings(
            pagerduty_secrets=tuple(reveal(each).encode() for each in parts.settings.pagerduty_webhook_secrets),
            slack_secret=reveal(parts.settings.slack_signing_secret).encode(),
        )
        return build_web(
            intake=Intake(self._writer, self._ring, Backlog(parts.inbox)),
            slack_handler=None if self.socket else AsyncSlackRequestHandler(self.bolt),
            readiness=readiness,
            settings=settings,
            registry=parts.registry,
            routes=operator_routes(parts, self.desk, readiness),
        )
