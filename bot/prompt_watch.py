"""Looks at the prompts' labels every half minute, since prompt stores forget where a label was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from bot.config import Config
from diagnostics.changes.change import ChangeSource, ChangeSourceError
from diagnostics.runner import Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry, TelemetryError

log = structlog.get_logger()

EVERY_S = 30.0


class PromptWatch:
    """Asks each source for each service's changes; a source with a journal writes down what it sees."""

    def __init__(self, sources: Sequence[ChangeSource], diagnosers: Mapping[str, Diagnoser], config: Config) -> None:
        self._sources = sources
        self._diagnosers = diagnosers
        self._services = config.services

    async def sweep(self) -> None:
        """One look, dated by the telemetry's clock. What does not answer is looked at again the next time."""
        for service in self._services:
            target = service.target()
            named = {prompt.source for prompt in target.prompts}
            if (diagnoser := self._diagnosers.get(service.name)) is None:
                continue
            for source in self._sources:
                if source.name in named:
                    await self._look(source, target, diagnoser.telemetry)

    async def _look(self, source: ChangeSource, target: Target, telemetry: Telemetry) -> None:
        try:
            now = await telemetry.now()
            await source.changes(target, now, now)
        except (ChangeSourceError, TelemetryError) as error:
            log.warning("prompts not seen", source=source.name, service=target.service, why=str(error))
