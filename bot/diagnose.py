"""`watchkeeper diagnose`: one look at a service from the command line, as JSON or in words."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from bot.config import Config, Service
from bot.connections import connect
from bot.discretion import discreet
from bot.incidents import WatchkeeperError
from bot.journal import JournalledChanges
from bot.redact import safe_text
from bot.settings import Settings
from bot.store import schema
from bot.store.change_journal import ChangeJournal
from bot.store.database import Database
from bot.store.sightings import LabelSightings
from diagnostics.answer import CaseError, as_answer
from diagnostics.answer import diagnose_case as diagnose_folder
from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.recorder import Recorder

Answer = Mapping[str, Any]


async def diagnose_service(settings: Settings, config: Config, name: str) -> Answer:
    """
    Diagnose a configured service from its telemetry now.

    A recorder is asked for what `serve` recorded; nothing is scraped, so that two processes do not write one file.
    Raises WatchkeeperError when the service is unknown or its telemetry cannot be asked.
    """
    service = config.service(name) or _nobody(config, name)
    async with _our_database(settings) as database:
        return await _diagnosed(settings, config, service, database)


async def _diagnosed(settings: Settings, config: Config, service: Service, database: Database | None) -> Answer:
    """With what the journal knows, where there is one; without, the sources have no memory."""
    connections = connect(settings, config, (lambda of: LabelSightings(database, of)) if database else None)
    remembered = (JournalledChanges(ChangeJournal(database)),) if database else ()
    try:
        telemetry = connections.telemetry[str(service.datasource)]
        if isinstance(telemetry, Recorder):
            await telemetry.open()
        diagnosers = connections.diagnosers(config, remembered=remembered)
        return as_answer(await diagnosers[service.name].diagnose(service.target()))
    except TelemetryError as error:
        raise WatchkeeperError(f"the telemetry of {service.name} cannot be asked: {error}") from error
    finally:
        await connections.close()


@asynccontextmanager
async def _our_database(settings: Settings) -> AsyncIterator[Database | None]:
    """Where `serve` keeps the journal; None where it never ran, or another version did: diagnosing needs none."""
    url = settings.database_url.get_secret_value()
    try:
        is_ours = await asyncio.to_thread(schema.current, url) == schema.head()
    except SQLAlchemyError:
        is_ours = False
    database = Database(url) if is_ours else None
    try:
        yield database
    finally:
        if database is not None:
            await database.close()


async def diagnose_case(folder: Path) -> Answer:
    """Diagnose a recorded case; its truth is not read. Raises WatchkeeperError when the folder is not a case."""
    try:
        return as_answer(discreet(await diagnose_folder(folder), "full"))
    except (CaseError, TelemetryError) as error:
        raise WatchkeeperError(str(error)) from error


def _nobody(config: Config, name: str) -> Service:
    near = difflib.get_close_matches(name, [service.name for service in config.services], n=1)
    hint = f"did you mean {near[0]}?" if near else f"add a [[service]] to {config.path}"
    raise WatchkeeperError(f"there is no service {name!r}; {hint}")


def in_words(answer: Answer) -> str:
    """The answer for a terminal, without characters that a terminal would obey and without credentials."""
    return "\n".join(safe_text(line) for line in _lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    since = f"since {answer['since']}" if answer.get("since") else "since an unknown time"
    impact = "users notice" if answer["user_impact"] else "users do not notice"
    yield f"{answer['service']} at {answer['at']}: {impact}, {since}"
    for cause in answer["causes"][:3]:
        yield ""
        yield f"{cause['probability']:4.0%}  {cause['cause']}  {cause.get('title', '')}".rstrip()
        yield from (f"        for      {sentence}" for sentence in cause.get("for", ()))
        yield from (f"        against  {sentence}" for sentence in cause.get("against", ()))
    yield ""
    if scope := answer.get("scope"):
        yield f"where: {scope['dimension']} {', '.join(scope['values'])}".rstrip()
    if answer.get("culprit_change"):
        yield f"suspected change: {answer['culprit_change']}"
    for spot in answer["blind_spots"]:
        yield f"not known: {spot['check']}: {spot['why']}"
    if answer.get("next_check"):
        yield f"next: {answer['next_check']}"
