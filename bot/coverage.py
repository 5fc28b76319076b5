"""
`watchkeeper runbook coverage`: which alerts and causes have no runbook, and which runbooks are not kept or do not help.

Causes come from the catalogue, alerts from the incidents in the database. Without a database only the files speak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from bot.config import load_config
from bot.diagnose import our_database
from bot.incidents import PlanState
from bot.library import open_shelf
from bot.question import alert_name_in
from bot.respond import ALERTS
from bot.settings import Settings
from bot.store.database import Database
from bot.store.usage import Usage
from diagnostics.causes import knowledge
from runbooks.engine.values import Runbook

HELPED = frozenset({PlanState.VERIFIED, PlanState.DONE})
FAILED = frozenset({PlanState.NOT_VERIFIED, PlanState.FAILED})


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a runbook's fixes ended: `offered` plans, and of those that ran how many helped and failed."""

    offered: int
    helped: int
    failed: int

    @property
    def failing(self) -> float | None:
        """The share of those that ended which failed; None where none ended."""
        ended = self.helped + self.failed
        return self.failed / ended if ended else None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """
    Ids and names. What only a database knows is None without one: `alerts` that paged and no runbook names (with how
    often), runbooks `unused` (never offered), and the `records` of the others.
    """

    causes: Mapping[str, str]
    overdue: Mapping[str, date]
    unreviewed: tuple[str, ...]
    alerts: Mapping[str, int] | None = None
    unused: tuple[str, ...] | None = None
    records: Mapping[str, Record] | None = None

    @property
    def missing(self) -> bool:
        return bool(self.causes or self.alerts)

    @property
    def stale(self) -> bool:
        return bool(self.overdue)


async def here(settings: Settings, *, today: date) -> Coverage:
    """Of this installation's runbooks, with its database where there is one. Raises WatchkeeperError."""
    path = settings.watchkeeper_config
    folders = load_config(path, prometheus_url=settings.prometheus_url).runbooks if path.exists() else ()
    async with our_database(settings) as database:
        return await coverage(tuple(open_shelf(folders).runbooks.values()), today=today, database=database)


async def coverage(books: Sequence[Runbook], *, today: date, database: Database | None) -> Coverage:
    """Of these runbooks. Raises StoreUnavailableError."""
    treated = {cause for book in books for cause in book.causes}
    found = Coverage(
        causes={name: cause.title for name, cause in sorted(knowledge.load().causes.items()) if name not in treated},
        overdue={book.runbook_id: book.review_by for book in books if book.review_by and book.review_by < today},
        unreviewed=tuple(book.runbook_id for book in books if book.reviewed is None),
    )
    return found if database is None else await _with_past(found, books, Usage(database))


async def _with_past(found: Coverage, books: Sequence[Runbook], usage: Usage) -> Coverage:
    named = {alert for book in books for alert in book.alerts}
    paged = Counter(alert_name_in(page.title, ALERTS.validate_python(page.alerts)) for page in await usage.pages())
    ended: dict[str, Counter[PlanState]] = {}
    for name, state in await usage.plans():
        ended.setdefault(name, Counter())[state] += 1
    ours = {book.runbook_id for book in books}
    return Coverage(
        causes=found.causes,
        overdue=found.overdue,
        unreviewed=found.unreviewed,
        alerts={alert: count for alert, count in sorted(paged.items()) if alert and alert not in named},
        unused=tuple(sorted(ours - ended.keys())),
        records={name: _record(states) for name, states in sorted(ended.items()) if name in ours},
    )


def _record(states: Counter[PlanState]) -> Record:
    return Record(
        offered=states.total(),
        helped=sum(states[state] for state in HELPED),
        failed=sum(states[state] for state in FAILED),
    )


def as_json(found: Coverage) -> dict[str, object]:
    """For programs; what only a database knows is null without one."""
    records = None if found.records is None else {
        name: {"offered": each.offered, "helped": each.helped, "failed": each.failed, "failing": each.failing}
        for name, each in found.records.items()
    }  # fmt: skip
    return {
        "causes_without_runbook": dict(found.causes),
        "alerts_without_runbook": None if found.alerts is None else dict(found.alerts),
        "overdue": {name: day.isoformat() for name, day in found.overdue.items()},
        "unreviewed": list(found.unreviewed),
        "never_offered": None if found.unused is None else list(found.unused),
        "records": records,
    }


def in_words(found: Coverage) -> Iterator[str]:
    """For people: what is missing first."""
    yield f"Causes without a runbook: {len(found.causes)}"
    yield from (f"  {name}  {title}" for name, title in found.causes.items())
    if found.alerts is None or found.unused is None or found.records is None:
        yield "No database here, so nobody knows which alerts paged and which runbooks helped."
    else:
        yield f"Alerts that paged and that no runbook names: {len(found.alerts)}"
        yield from (f"  {alert}  paged {count} times" for alert, count in found.alerts.items())
        failing = [(name, each) for name, each in found.records.items() if each.failed]
        yield f"Runbooks whose fix did not help: {len(failing)}"
        for name, each in sorted(failing, key=lambda one: -(one[1].failing or 0)):
            yield f"  {name}  {each.failed} of {each.failed + each.helped} ({each.failing:.0%})"
        yield f"Runbooks never offered: {len(found.unused)}"
        yield from (f"  {name}" for name in found.unused)
    yield f"Reviews overdue: {len(found.overdue)}"
    yield from (f"  {name}  since {day}" for name, day in found.overdue.items())
    yield f"Runbooks without the day of a review (`reviewed`): {len(found.unreviewed)}"
