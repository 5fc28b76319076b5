"""What operators do beside the running product: migrate, replay dead letters, prove the record, stop everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bot import narrate
from bot.checkpoints import signed_line
from bot.config import SEAL_KEY, Config, load_config
from bot.draft import Account, Exported, account, draft, exported
from bot.incidents import StoreUnavailableError, UnreadableEventError, WatchkeeperError
from bot.kill_switch import StopFile
from bot.operators import Operators
from bot.pagerduty import parse_event
from bot.pagerduty_client import PagerDutyClient
from bot.proof import Known, NotProvenError, header_line, row_line, verify_export
from bot.redact import safe_text
from bot.seal import SealKey
from bot.settings import Settings
from bot.store import schema
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.inbox import Inbox
from bot.store.kill_switch import KillSwitch
from bot.store.operators import Credential, OperatorTokens
from bot.store.people import PeopleTable

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
        return await inbox.revive(event_id, parse_event(raw.encode()) if raw else None)
    except UnreadableEventError as error:
        if named:
            raise
        log.warning("still unreadable", event_id=event_id, why=str(error))
        return False


async def verify_audit(settings: Settings, known: Known | None = None) -> str:
    """One sentence about the record's chain. Raises NotProvenError when it is broken, or not that of the checkpoint."""
    async with open_database(settings) as database:
        report = await AuditLog(database).verify(known)
    if report.broken_at is not None:
        raise NotProvenError(f"the record is broken at row {report.broken_at}: {report.why}")
    return f"{report.rows} rows, unbroken; head {report.head}{_against(known, report.rows)}"


def verify_exported(path: Path, known: Known | None = None) -> str:
    """The same about an export, without a database. Raises NotProvenError, or WatchkeeperError when it is no file."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            proven = verify_export(file, known)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WatchkeeperError(f"{path} cannot be read: {reason}") from error
    if not proven.rows:
        return f"no rows, which proves nothing but that{_against(known, proven.last)}"
    return f"rows {proven.first} to {proven.last}, unbroken; head {proven.head}{_against(known, proven.last)}"


def _against(known: Known | None, last: int) -> str:
    if known is None:
        return "; without a checkpoint, rows that were cut off its end are not noticed"
    newest = known.newest
    after = (
        f"; what comes after it ({last - newest.sequence} rows) no checkpoint covers" if last > newest.sequence else ""
    )
    return f"; it holds the checkpoint's row {newest.sequence} of {newest.at}{after}"


async def checkpoint(settings: Settings) -> str:
    """
    Where the record ends, signed, after the whole chain was verified. Raises NotProvenError, and WatchkeeperError
    without a key.
    """
    key = _seal_key(settings)
    async with open_database(settings) as database:
        report = await AuditLog(database).verify()
    if report.broken_at is not None:
        raise NotProvenError(f"the record is broken at row {report.broken_at}: {report.why}")
    return signed_line(report.checkpoint(datetime.now(UTC)), key)


def public_key(settings: Settings) -> str:
    """What checkpoints of this deployment are verified with. Raises WatchkeeperError without a key."""
    return _seal_key(settings).public


def _seal_key(settings: Settings) -> SealKey:
    if settings.watchkeeper_seal_key is None:
        raise WatchkeeperError(
            f"{SEAL_KEY} is not set, and a checkpoint that nobody signed proves nothing: make one with `watchkeeper "
            f"audit new-key`, and set it, or {SEAL_KEY}_FILE"
        )
    return SealKey(settings.watchkeeper_seal_key.get_secret_value())


async def export_audit(
    settings: Settings, *, since: datetime | None, until: datetime | None, write: Callable[[str], object]
) -> str:
    """Write the rows of this time as lines, the header first; says how many. Raises NotProvenError for a gap."""
    async with open_database(settings) as database:
        log_of_deeds = AuditLog(database)
        header = await log_of_deeds.extent(since=since, until=until)
        write(header_line(header) + "\n")
        async for row in log_of_deeds.rows(header):
            write(row_line(row) + "\n")
    return f"{header.rows} rows exported; verify them with `watchkeeper audit verify --export FILE`"


async def stop_beside_the_database(settings: Settings, reason: str, *, actor: str) -> str:
    """Turn the kill switch in the database itself. Raises WatchkeeperError with another way when that is away."""
    now = datetime.now(UTC)
    try:
        async with open_database(settings) as database:
            is_new = await KillSwitch(database).stop(by=actor, name=actor, reason=reason, channel="database", now=now)
    except StoreUnavailableError as error:
        file = settings.watchkeeper_stop_file or "the file that WATCHKEEPER_STOP_FILE names"
        raise WatchkeeperError(f"{error}; where the workers run, create {file} instead") from error
    return narrate.DONE["stop"] if is_new else narrate.STOPPED_ALREADY


async def go_beside_the_database(settings: Settings, *, actor: str) -> str:
    """Turn it back. Raises StoppedError while the file is there, StoreUnavailableError."""
    StopFile(settings.watchkeeper_stop_file).refuse_if_there()
    async with open_database(settings) as database:
        is_new = await KillSwitch(database).go(by=actor, name=actor, channel="database", now=datetime.now(UTC))
    return narrate.DONE["go"] if is_new else narrate.NOTHING_STOPPED


async def add_token(settings: Settings, config: Config, person_id: str, *, label: str, days: int, actor: str) -> str:
    """
    A new token for somebody of the configuration, which nobody can read again.

    Raises WatchkeeperError when the configuration does not have them.
    """
    if config.person(person_id) is None:
        known = ", ".join(person.id for person in config.people) or "nobody"
        raise WatchkeeperError(f"{person_id} is not in {config.path}; it has {known}")
    async with _operators(settings) as operators:
        secret, _ = await operators.issue(person_id, label=label, days=days, actor=actor, now=datetime.now(UTC))
    return secret


async def list_tokens(settings: Settings) -> str:
    """Every token that was given out, one a line, without the tokens."""
    now = datetime.now(UTC)
    async with _operators(settings) as operators:
        found = await operators.tokens()
    return tokens_in_words(found, now) or "nobody has a token"


def tokens_in_words(found: Sequence[Credential], now: datetime) -> str:
    """One line a token: whose it is, whether it counts, until when; "" when there are none."""
    lines = [
        f"{each.token_id}  {each.person_id:<16}  {_standing(each, now):<10}  until {each.expires_at:%Y-%m-%d %H:%M} UTC"
        f"  {each.label}".rstrip()
        for each in found
    ]
    return safe_text("\n".join(lines))


async def revoke_token(settings: Settings, token_id: str, *, actor: str) -> str:
    """End a token and its sessions; says whose it was. Raises NotFoundError."""
    async with _operators(settings) as operators:
        item = await operators.revoke(token_id, actor=actor, now=datetime.now(UTC))
    return f"revoked {item.token_id} of {item.person_id}, and every session that was begun with it"


def _standing(item: Credential, now: datetime) -> str:
    if item.revoked_at is not None:
        return "revoked"
    return "counts" if item.counts(now) else "expired"


@asynccontextmanager
async def _operators(settings: Settings) -> AsyncIterator[Operators]:
    async with open_database(settings) as database:
        yield Operators(tokens=OperatorTokens(database), people=PeopleTable(database))


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings, for as long as the block lasts."""
    database = Database(settings.database_url.get_secret_value())
    try:
        yield database
    finally:
        await database.close()


def services_by_pagerduty(config: Config) -> dict[str, str]:
    """PagerDuty's service id -> our name."""
    return {service.pagerduty_service: service.name for service in config.services if service.pagerduty_service}


def draft_configuration(settings: Settings, output: Path, prometheus: str | None) -> str:
    """Write a first watchkeeper.toml and say what to do next. Raises WatchkeeperError; never overwrites a file."""
    if output.exists():
        raise WatchkeeperError(f"{output} exists already; move it away, or name another with --output")
    text = asyncio.run(_drafted(settings, prometheus or settings.prometheus_url))
    with output.open("x", encoding="utf-8") as file:
        file.write(text)
    summary = load_config(output).summary
    return f"{summary}\nNext: check every line that says `guessed`, then run `watchkeeper doctor`."


async def _drafted(settings: Settings, prometheus: str | None) -> str:
    key = settings.pagerduty_api_key
    if key is None and prometheus is None:
        raise WatchkeeperError("nothing to draft from: set PAGERDUTY_API_KEY, PROMETHEUS_URL, or both")
    known, seen = Account(), Exported()
    if key is not None:
        known = await account(PagerDutyClient(key.get_secret_value(), base_url=settings.pagerduty_api_base_url))
    if prometheus is not None:
        seen = await exported(prometheus)
    return draft(known, seen, prometheus=prometheus)
