"""`watchkeeper diagnose`: one look at a service from the command line, as JSON or in words."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time
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
_HOURS = re.compile(r"\d\d:\d\d(?::\d\d)?")


def time_of(text: str, now: datetime) -> datetime:
    """
    A time that was, as people type it.

    Raises WatchkeeperError for what is none, and for a time that is still to come.
    """
    at = instant_of(text, now)
    if at > now:
        raise WatchkeeperError(f"{at:%Y-%m-%d %H:%M} UTC is still to come; what is not yet has no cause")
    return at


def instant_of(text: str, now: datetime) -> datetime:
    """RFC 3339 with its zone, or the hours and minutes of today in UTC. Raises WatchkeeperError for anything else."""
    try:
        if _HOURS.fullmatch(text):
            at = datetime.combine(now.astimezone(UTC).date(), time.fromisoformat(text), UTC)
        else:
            at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise WatchkeeperError(f"{text!r} is no time; write 14:03 (today, UTC) or 2026-11-22T14:03:00Z")
    return at.astimezone(UTC)


async def diagnose_service(settings: Settings, config: Config, name: str, at: datetime | None = None) -> Answer:
    """
    Diagnose a configured service from its telemetry as of `at`, or now.

    A recorder is asked for what `serve` recorded; nothing is scraped, so that two processes do not write one file.
    Raises WatchkeeperError when the service is unknown or its telemetry cannot be asked.
    """
    service = config.service(name) or _nobody(config, name)
    async with our_database(settings) as database:
        return await _diagnosed(settings, config, service, database, at)


async def _diagnosed(
    settings: Settings, config: Config, service: Service, database: Database | None, at: datetime | None
) -> Answer:
    """With what the journal knows, where there is one; without, the sources have no memory."""
    connections = connect(settings, config, (lambda of: LabelSightings(database, of)) if database else None)
    remembered = (JournalledChanges(ChangeJournal(database)),) if database else ()
    try:
        telemetry = connections.telemetry[str(service.datasource)]
        if isinstance(telemetry, Recorder):
            await telemetry.open()
        diagnosers = connections.diagnosers(config, remembered=remembered)
        return as_answer(await diagnosers[service.name].diagnose(service.target(), at=at))
    except TelemetryError as error:
        raise WatchkeeperError(f"the telemetry of {service.name} cannot be asked: {error}") from error
    finally:
        await connections.close()


@asynccontextmanager
async def our_database(settings: Settings) -> AsyncIterator[Database | None]:
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


def bad_in(answer: Answer) -> list[Answer]:
    """The findings that speak of trouble; who is hurt is said apart."""
    return [one for one in answer.get("findings", ()) if one["status"] == "bad" and one["check"] != "impact"]


def suspects_in(answer: Answer) -> list[Answer]:
    """The suspected changes, the culprit first."""
    return sorted(answer.get("suspects", ()), key=lambda one: one["change"] != answer["culprit_change"])


def in_words(answer: Answer) -> str:
    """The answer for a terminal, without characters that a terminal would obey and without credentials."""
    return "\n".join(safe_text(line) for line in _lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    since = f"since {answer['since']}" if answer.get("since") else "since an unknown time"
    felt = "users notice" if answer["user_impact"] else "users do not notice"
    yield f"{answer['service']} at {answer['at']}: {felt}, {since}"
    for cause in answer["causes"][:3]:
        yield ""
        yield f"{cause['probability']:4.0%}  {cause['cause']}  {cause.get('title', '')}".rstrip()
        yield from (f"        for      {sentence}" for sentence in cause.get("for", ()))
        yield from (f"        against  {sentence}" for sentence in cause.get("against", ()))
    yield ""
    if scope := answer.get("scope"):
        yield f"where: {scope['dimension']} {', '.join(scope['values'])}".rstrip()
    if (impact := answer.get("impact")) and impact["sentence"]:
        yield f"who is hurt: {impact['sentence']}"
    yield from (f"bad: {finding['summary']}" for finding in bad_in(answer))
    if answer.get("culprit_change"):
        yield f"suspected change: {answer['culprit_change']}"
    for suspect in suspects_in(answer)[:3]:
        yield f"change: {suspect['at']} {suspect['summary']} ({suspect['score']:.0%})"
        yield from (f"        {line}" for line in suspect["diff"].splitlines())
    for spot in answer["blind_spots"]:
        yield f"not known: {spot['check']}: {spot['why']}"
    if answer.get("next_check"):
        yield f"next: {answer['next_check']}"
