"""Asks Slack's user groups and PagerDuty's schedules who has which role, one process for all, every two minutes."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from bot.config import Config, RoleSource
from bot.pagerduty_client import PagerDutyClient, PagerDutyError
from bot.redact import safe_text
from bot.slack.client import SlackClient, SlackError
from bot.store.role_sources import RoleSources

log = structlog.get_logger()

EVERY_S = 120.0
"""PagerDuty wants its on-calls to be asked at a human's speed."""


class RoleWatch:
    """Only people of the configuration ever get a role; a source that cannot be read grows old."""

    def __init__(self, *, config: Config, sources: RoleSources, slack: SlackClient, pagerduty: PagerDutyClient) -> None:
        self._config = config
        self._sources = sources
        self._slack = slack
        self._pagerduty = pagerduty

    async def sweep(self) -> None:
        """One look at each. Raises StoreUnavailableError."""
        for source in self._config.role_sources:
            try:
                people = await self._people(source)
            except (SlackError, PagerDutyError) as error:
                log.warning("a source of roles cannot be read", source=source.name, why=str(error))
                await self._sources.failed(source.name, safe_text(str(error)))
            else:
                await self._sources.keep(source.name, people)

    async def _people(self, source: RoleSource) -> list[str]:
        """Those of the configuration whom it names. Raises SlackError, PagerDutyError."""
        if source.slack_usergroup is not None:
            team, _, group = source.slack_usergroup.partition("/")
            members = await self._slack.usergroup(team, group)
            by_account = {account: each.id for each in self._config.people for account in each.slack}
            return [by_account[account] for member in members if (account := f"{team}/{member}") in by_account]
        service = self._config.service(source.service)
        if service is None or service.pagerduty_service is None:
            raise PagerDutyError(f"{source.service} has no pagerduty_service", permanent=True)
        levels: Mapping[int, list[str]] = await self._pagerduty.on_call(service.pagerduty_service)
        by_user = {each.pagerduty: each.id for each in self._config.people if each.pagerduty}
        return [by_user[user] for user in levels.get(source.level, []) if user in by_user]
