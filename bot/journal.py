"""The change journal: each minute one process asks all change sources, and writes down what they will forget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from bot.config import Config, Service
from bot.discretion import keepable
from bot.incidents import NotFoundError, StoreUnavailableError
from bot.redact import safe_text
from bot.store.change_journal import ChangeJournal
from diagnostics.changes.change import Change, ChangeSource, ChangeSourceError
from diagnostics.changes.merge import distinct
from diagnostics.runner import CHANGES_BEFORE, Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry, TelemetryError

log = structlog.get_logger()

EVERY_S = 60.0
_PATIENCE_S = 5.0
_OVERLAP = timedelta(minutes=30)
"""Some sources tell late: an audit log is minutes behind, and a poll may have failed."""


class JournalledChanges:
    """The journal as a change source: what pipelines and people reported, and what sources told before they forgot."""

    name = "change journal"

    def __init__(self, journal: ChangeJournal) -> None:
        self._journal = journal

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """The target's changes in this time, oldest first. Raises ChangeSourceError."""
        try:
            found = await self._journal.between(target.service, since, until)
        except StoreUnavailableError as error:
            raise ChangeSourceError(f"the change journal cannot be read: {error}") from error
        return distinct([change] for change in found)


class ChangeBook:
    """Takes down what pipelines and people report, as far as its service allows."""

    def __init__(self, journal: ChangeJournal, config: Config) -> None:
        self._journal = journal
        self._config = config

    async def report(self, item: Change, *, actor: str, now: datetime) -> bool:
        """
        False when this id was reported before. Raises StoreUnavailableError, NotFoundError for an unknown service.
        """
        service = self._config.service(item.service)
        if service is None:
            raise NotFoundError(f"there is no service {item.service!r} in {self._config.path}")
        item = replace(item, id=safe_text(item.id))  # an outsider's; those of our sources have to stay as they are
        kept = await asyncio.to_thread(keepable, item, service.prompt_diff)
        return await self._journal.record(kept, actor=actor, now=now)


class ChangeWatch:
    """
    Asks every service's sources and keeps what they tell; prompt stores are so seen to move their labels, too.

    `sources` gives those of a service without the journal itself. What does not answer is asked again the next time.
    """

    def __init__(
        self,
        *,
        sources: Callable[[Service], Sequence[ChangeSource]],
        diagnosers: Mapping[str, Diagnoser],
        config: Config,
        journal: ChangeJournal,
    ) -> None:
        self._sources = sources
        self._diagnosers = diagnosers
        self._config = config
        self._journal = journal
        self._asked: set[tuple[str, str]] = set()

    async def sweep(self) -> None:
        """One look, dated by the telemetry's clock. Raises StoreUnavailableError."""
        for service in self._config.services:
            if (diagnoser := self._diagnosers.get(service.name)) is None:
                continue
            try:
                until = await _now(diagnoser.telemetry)
            except TelemetryError as error:
                log.warning("changes not seen", service=service.name, why=str(error))
                continue
            told = await asyncio.gather(*(self._look(source, service, until) for source in self._sources(service)))
            found = [change for changes in told for change in changes]
            kept = await asyncio.to_thread(_keepable, found, service)
            if count := await self._journal.keep(kept, now=datetime.now(UTC)):
                log.info("changes seen", service=service.name, count=count)

    async def _look(self, source: ChangeSource, service: Service, until: datetime) -> list[Change]:
        """The first time as far back as a diagnosis looks, then a little."""
        key = (service.name, source.name)
        since = until - (_OVERLAP if key in self._asked else CHANGES_BEFORE)
        try:
            found = await asyncio.wait_for(source.changes(service.target(), since, until), _PATIENCE_S)
        except (ChangeSourceError, TimeoutError) as error:
            why = str(error) or f"no answer within {_PATIENCE_S:g} s"
            log.warning("changes not seen", source=source.name, service=service.name, why=why)
            return []
        self._asked.add(key)
        return found


def _keepable(changes: Sequence[Change], service: Service) -> list[Change]:
    """Redacting computes for milliseconds a text; called in a thread."""
    return [keepable(change, service.prompt_diff) for change in changes]


async def _now(telemetry: Telemetry) -> datetime:
    try:
        return await asyncio.wait_for(telemetry.now(), _PATIENCE_S)
    except TimeoutError:
        raise TelemetryError("its clock cannot be read in time") from None
