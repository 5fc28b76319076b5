"""What people do with the change journal beside the database: record, list, and give out reporters' tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from bot.config import Config
from bot.incidents import NotFoundError, WatchkeeperError
from bot.journal import ChangeBook
from bot.operate import tokens_in_words
from bot.redact import safe_text
from bot.reporters import CLI, Reporters
from bot.settings import Settings
from bot.store.change_journal import ChangeJournal
from bot.store.database import Database
from bot.store.operators import OperatorTokens
from bot.web.change_door import Fault, Report, fault_of, misfits
from diagnostics.changes.change import Change
from diagnostics.changes.diff import short_diff

Json = dict[str, Any]


async def record_change(
    settings: Settings, config: Config, said: Mapping[str, Any], *, actor: str, now: datetime
) -> str:
    """
    Write down what somebody says; the same rules hold as for `POST /changes`. Says what was recorded.

    Without an id of its own a change goes by what it says, so that a script that runs twice records once. Raises
    WatchkeeperError with every fault.
    """
    given = {name: value for name, value in said.items() if value is not None}
    given.setdefault("id", _id_of(given))
    try:
        report = Report.model_validate_json(json.dumps(given))
    except ValidationError as error:
        faults: Sequence[Fault] = [fault_of(each) for each in error.errors(include_input=False, include_url=False)]
    else:
        faults = misfits(report, CLI, config, now)
    if faults:
        raise WatchkeeperError("\n".join(f"{each.where}: {each.what}" for each in faults))
    async with _database(settings) as database:
        item = report.change(CLI, now)
        is_new = await ChangeBook(ChangeJournal(database), config).report(item, actor=actor, now=now)
    return f"{'recorded' if is_new else 'recorded before'}: {report.id}"


async def listed_changes(
    settings: Settings, config: Config, service: str, since: timedelta, *, now: datetime
) -> list[Json]:
    """The journal of a service, oldest first. Raises NotFoundError for a service that is not configured."""
    if config.service(service) is None:
        known = ", ".join(each.name for each in config.services)
        raise NotFoundError(f"there is no service {service!r}; {config.path} has {known}")
    async with _database(settings) as database:
        found = await ChangeJournal(database).between(service, now - since, now)
    return [_json(change) for change in found]


def changes_in_words(found: Sequence[Json]) -> str:
    """One line a change, with its diff below; for a terminal, without characters that a terminal would obey."""
    lines = []
    for each in found:
        who = f", {each['author']}" if each["author"] else ""
        mark = "  symptom" if each["symptom"] else ""
        lines.append(f"{each['at'][:19]}Z  {each['kind']:<10}  {each['summary']}  ({each['source']}{who}){mark}")
        lines += [f"    {line}" for line in short_diff(each["before"], each["after"]).splitlines()]
    return "\n".join(safe_text(line) for line in lines) or "nothing is known to have changed"


async def add_token(settings: Settings, config: Config, source: str, *, label: str, days: int, actor: str) -> str:
    """A new token for a source, which nobody can read again. Raises WatchkeeperError for a name that is taken."""
    async with _database(settings) as database:
        reporters, now = Reporters(OperatorTokens(database)), datetime.now(UTC)
        return await reporters.issue(source, label=label, days=days, config=config, actor=actor, now=now)


async def list_tokens(settings: Settings) -> str:
    """Every reporter's token that was given out, one a line, without the tokens."""
    async with _database(settings) as database:
        found = await Reporters(OperatorTokens(database)).tokens()
    return tokens_in_words(found, datetime.now(UTC)) or "no source has a token"


async def revoke_token(settings: Settings, token_id: str, *, actor: str) -> str:
    """End a reporter's token; says whose it was. Raises NotFoundError."""
    async with _database(settings) as database:
        item = await Reporters(OperatorTokens(database)).revoke(token_id, actor=actor, now=datetime.now(UTC))
    return f"revoked {item.token_id} of {item.person_id}"


def _id_of(given: Mapping[str, Any]) -> str:
    text = json.dumps(given, sort_keys=True)
    return f"{given['kind']}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _json(change: Change) -> Json:
    """The shape of a case's changes, and what only the journal knows."""
    return {
        "id": change.id,
        "at": change.at.isoformat(),
        "kind": change.kind,
        "service": change.service,
        "source": change.source,
        "summary": change.summary,
        "author": change.author,
        "scope": {name: list(values) for name, values in change.scope.items()},
        "before": change.before,
        "after": change.after,
        "url": change.url,
        "symptom": change.is_symptom,
    }


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_url.get_secret_value())
    try:
        yield database
    finally:
        await database.close()
