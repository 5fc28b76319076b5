"""The part of a process that people and PagerDuty meet: the doors, Slack's listeners, and the desk behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler

from bot.desk import Desk
from bot.doors import Intake, Readiness
from bot.parts import Parts, reveal
from bot.slack.authorise import Authoriser
from bot.slack.listeners import Stragglers, build_bolt
from bot.web.app import WebSettings, build_web
from retrieval.ranking import RunbookSearch


class Front:
    """Verifies, stores, answers; what is asked of it is done by whoever works, here or in another process."""

    def __init__(self, parts: Parts, *, search: RunbookSearch, ring: Callable[[], None]) -> None:
        self._parts = parts
        self._ring = ring
        self.stragglers = Stragglers()
        self.desk = self._desk(search)
        self.bolt = build_bolt(
            web=parts.slack_web,
            signing_secret=reveal(parts.settings.slack_signing_secret),
            desk=self.desk,
            authoriser=Authoriser(people=parts.people, directory=parts.slack),
            slack=parts.slack,
            stragglers=self.stragglers,
        )

    def _desk(self, search: RunbookSearch) -> Desk:
        parts = self._parts
        return Desk(
            incidents=parts.incidents,
            plans=parts.plans,
            journal=parts.journal,
            approvals=parts.approvals,
            policy=parts.policy,
            search=search,
            errands=parts.errands,
            ring=self._ring,
        )

    async def start(self) -> None:
        """When the doors open. Slack's Socket Mode connects here, with `self.bolt`."""

    async def stop(self) -> None:
        """After the doors are closed: late clicks end first."""
        await self.stragglers.finish()

    def web(self, readiness: Readiness) -> Any:
        """The FastAPI application: both doors, probes, and whatever pages operators get."""
        parts = self._parts
        settings = WebSettings(
            pagerduty_secrets=tuple(reveal(each).encode() for each in parts.settings.pagerduty_webhook_secrets),
            slack_secret=reveal(parts.settings.slack_signing_secret).encode(),
        )
        return build_web(
            intake=Intake(parts.inbox, self._ring),
            slack_handler=AsyncSlackRequestHandler(self.bolt),
            readiness=readiness,
            settings=settings,
            registry=parts.registry,
        )
