"""What operators do beside the running product: migrate, replay dead letters, verify the record."""

from __future__ import annotations

import structlog

from bot.config import Config
from bot.incidents import UnreadableEventError, WatchkeeperError
from bot.pagerduty import parse_event
from bot.settings import Settings
from bot.store import schema
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.inbox import Inbox

log = structlog.get_logger()


def migrate(settings: Settings) -> None:
    """Bring the database to this program's schema."""
    revision = schema.upgrade(settings.database_url.get_secret_value())
    log.info("migrated", revision=revision)


async def replay(settings: Settings, config: Config, event_id: str | None) -> int:
    """
    Try dead letters again: one, or all when None; returns how many went back into the inbox.

    Raises WatchkeeperError when a named one is not there or still cannot be read.
    """
    database = Database(settings.database_url.get_secret_value())
    inbox = Inbox(database, services=services_by_pagerduty(config))
    try:
        letters = [event_id] if event_id else [letter.event_id for letter in await inbox.dead_letters()]
        return sum([await _revive(inbox, each, named=event_id is not None) for each in letters])
    finally:
        await database.close()


async def _revive(inbox: Inbox, event_id: str, *, named: bool) -> bool:
    raw = await inbox.exhume(event_id)
    if raw is None:
        raise WatchkeeperError(f"there is no dead letter {event_id}")
    try:
        return await inbox.revive(event_id, parse_event(raw.encode()))
    except UnreadableEventError as error:
        if named:
            raise
        log.warning("still unreadable", event_id=event_id, why=str(error))
        return False


async def verify_audit(settings: Settings) -> str:
    """One sentence about the record's chain. Raises WatchkeeperError when it is broken."""
    database = Database(settings.database_url.get_secret_value())
    try:
        report = await AuditLog(database).verify()
    finally:
        await database.close()
    if report.broken_at is not None:
        raise WatchkeeperError(f"the record is broken at row {report.broken_at}: {report.why}")
    return f"{report.rows} rows, unbroken; head {report.head}"


def services_by_pagerduty(config: Config) -> dict[str, str]:
    """PagerDuty's service id -> our name."""
    return {service.pagerduty_service: service.name for service in config.services if service.pagerduty_service}
