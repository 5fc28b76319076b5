"""The change journal: what is kept of what sources tell, how polling fills it, and how a diagnosis reads it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.discretion import keepable
from bot.incidents import StoreUnavailableError
from bot.journal import ChangeBook, ChangeWatch, JournalledChanges
from bot.store.audit import AuditLog
from bot.store.change_journal import ChangeJournal
from bot.store.retention import forget
from bot.store.sightings import LabelSightings
from diagnostics.changes.change import Change, ChangeSource, ChangeSourceError
from diagnostics.runner import CHANGES_BEFORE, Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import TelemetryError
from tests.kit import NOW, Store, config_in
from tests.made_up_secrets import dice

MINUTE = timedelta(minutes=1)
TOKEN = "ghp_" + dice(random.Random(7), 36)
CHAT = Target(service="chat")


def change(change_id: str = "c-1", *, minutes_ago: float = 5, **more: Any) -> Change:
    told = {
        "id": change_id,
        "at": NOW - timedelta(minutes=minutes_ago),
        "kind": "config",
        "service": "chat",
        "source": "prod",
        "summary": "chat-vllm revision 2: --max-num-seqs 256 -> 64",
        "author": "bob",
        "scope": {"deployment": ("chat-vllm",)},
        "before": "--max-num-seqs 256",
        "after": "--max-num-seqs 64",
        "undo": {"deployment": "chat-vllm", "revision": "2", "to_revision": "1"},
        "url": "https://example.com/2",
    }
    return Change(**{**told, **more})


def prompt(before: str | None, after: str | None, **more: Any) -> Change:
    told: dict[str, Any] = {"kind": "prompt", "source": "prompts", "summary": "production is on version 8 (why)"}
    return change("p-8", **{**told, "scope": {"prompt": ("system",)}, "before": before, "after": after, **more})


@pytest.fixture
def journal(store: Store) -> ChangeJournal:
    return ChangeJournal(store.database)


async def test_what_was_kept_comes_back_whole(journal: ChangeJournal) -> None:
    """Everything that a diagnosis needs of it: texts, scope, the literals of its undo."""
    told = [change("late", minutes_ago=1), change("early", minutes_ago=9, is_symptom=True, author=None)]

    assert await journal.keep(told, now=NOW) == 2

    assert await journal.between("chat", NOW - 10 * MINUTE, NOW) == [told[1], told[0]]
    assert await journal.between("chat", NOW - 5 * MINUTE, NOW) == [told[0]]
    assert await journal.between("search", NOW - 10 * MINUTE, NOW) == []


async def test_a_change_is_kept_once_for_each_service(journal: ChangeJournal) -> None:
    """Polling tells the same again and again; a prompt that two services use is a change of both."""
    shared = replace(change(), service="search")

    assert await journal.keep([change(), shared, change()], now=NOW) == 2
    assert await journal.keep([change(summary="told otherwise"), shared], now=NOW) == 0
    [kept] = await journal.between("chat", NOW - 10 * MINUTE, NOW)
    assert kept.summary == change().summary


async def test_two_processes_that_keep_at_once_keep_once(journal: ChangeJournal) -> None:
    """The key decides, not an earlier look."""
    counts = await asyncio.gather(*(journal.keep([change()], now=NOW) for _ in range(4)))

    assert sum(counts) == 1
    assert len(await journal.between("chat", NOW - 10 * MINUTE, NOW)) == 1


async def test_a_report_is_on_record_without_its_texts(store: Store, journal: ChangeJournal) -> None:
    """Who reported which change; the record is for ever, and a text is not for it."""
    book = ChangeBook(journal, store.config)

    assert await book.report(change(), actor="source:ci", now=NOW)
    assert not await book.report(change(), actor="source:ci", now=NOW)
    await book.report(change(TOKEN, service="chat", kind="flag"), actor="source:ci", now=NOW)

    assert TOKEN not in repr(await journal.between("chat", NOW - 10 * MINUTE, NOW))
    [row, _] = await AuditLog(store.database).about("service:chat")
    assert (row.actor, row.action) == ("source:ci", "change.recorded")
    assert row.details == {"id": "c-1", "kind": "config", "source": "prod", "service": "chat"}


async def test_changes_are_forgotten_a_month_after_they_were_recorded(store: Store, journal: ChangeJournal) -> None:
    """By the wall's clock, since a drill's runs otherwise; the same id of another service stays as long as that one."""
    await journal.keep([change()], now=NOW - timedelta(days=31))
    await journal.keep([replace(change(), service="search")], now=NOW)

    assert (await forget(store.database, now=NOW))["changes"] == 1
    assert await journal.between("chat", NOW - 10 * MINUTE, NOW) == []
    assert len(await journal.between("search", NOW - 10 * MINUTE, NOW)) == 1


async def test_a_label_that_moved_is_remembered(store: Store) -> None:
    """The store tells only where the label is; our memory tells where it was, from when to when."""
    sightings = LabelSightings(store.database, "prompts")

    for minute, version in enumerate([7, 7, 8, 8, 7]):
        await sightings.seen("chat-system", "production", version, NOW + minute * MINUTE)
    await sightings.seen("chat-system", "production", 7, NOW + 3 * MINUTE)  # a look that comes late prolongs nothing

    history = await sightings.history("chat-system", "production")
    assert [(seen.version, seen.at, seen.until) for seen in history] == [
        (7, NOW, NOW + MINUTE),
        (8, NOW + 2 * MINUTE, NOW + 3 * MINUTE),
        (7, NOW + 4 * MINUTE, NOW + 4 * MINUTE),
    ]


@pytest.mark.parametrize("mode", ["full", "redacted", "link"])
def test_no_credential_is_kept(mode: Any) -> None:
    """In no text, whatever the service allows of its prompts' words."""
    told = prompt("Be kind.", f"Be kind.\nkey: {TOKEN}", summary=f"use {TOKEN}", author=TOKEN, scope={"tool": (TOKEN,)})
    told = replace(told, url=f"https://example.com/?token={TOKEN}")

    for item in (told, replace(told, kind="config")):
        assert TOKEN not in repr(keepable(item, mode))


def test_of_a_masked_prompt_the_shape_is_kept() -> None:
    """Words are boxes one by one, so growth and a new variable at the start can still be seen."""
    kept = keepable(prompt("Be kind and brief.", "{{now}} Be kind and very very brief.\n\n- {{q}}"), "redacted")

    assert kept.before == "▒ ▒ ▒ ▒."
    assert kept.after == "{{now}} ▒ ▒ ▒ ▒ ▒ ▒.\n\n- {{q}}"
    assert keepable(kept, "redacted") == kept


def test_masked_texts_that_look_alike_are_not_kept() -> None:
    """Equal texts would clear a change of which we only know that it changed words."""
    kept = keepable(prompt("Be kind.", "Be rude."), "redacted")

    assert (kept.before, kept.after) == (None, None)


def test_of_a_linked_prompt_no_word_is_kept() -> None:
    """Not even its author's own, which may quote it."""
    kept = keepable(prompt("Be kind.", "Be rude.", undo={"version": "8", "previous_version": "7"}), "link")

    assert (kept.before, kept.after) == (None, None)
    assert kept.summary == "prompt system is on version 8, before that on version 7"


def test_an_id_fits_into_its_column() -> None:
    """Two long ones that differ at the end stay different."""
    one, two = (keepable(change("x" * 600 + end), "full").id for end in "ab")

    assert len(one) == len(two) == 512
    assert one != two


class Told:
    """A source that answers with a list, fails first if told so, and remembers what it was asked."""

    def __init__(self, *changes: Change, name: str = "prod", failures: int = 0) -> None:
        self.name = name
        self.asked: list[tuple[datetime, datetime]] = []
        self._changes = changes
        self._failures = failures

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        self.asked.append((since, until))
        if len(self.asked) <= self._failures:
            raise ChangeSourceError(f"{self.name} cannot be reached")
        return [replace(each, service=target.service) for each in self._changes if since <= each.at <= until]


class Clock:
    """A diagnoser's telemetry: it has a clock of its own, as in a drill."""

    def __init__(self, *failures: Exception) -> None:
        self.telemetry = self
        self._failures = list(failures)

    async def now(self) -> datetime:
        if self._failures:
            raise self._failures.pop()
        return NOW


def watch(store: Store, folder: Path, *sources: ChangeSource, clock: Clock | None = None) -> ChangeWatch:
    return ChangeWatch(
        sources=lambda _: sources,
        diagnosers={"chat": clock or Clock()},  # type: ignore[dict-item]  # only its clock is asked
        config=config_in(folder),
        journal=ChangeJournal(store.database),
    )


async def test_every_look_keeps_what_is_new(store: Store, tmp_path: Path, journal: ChangeJournal) -> None:
    """At first as far back as a diagnosis looks, later a little; dated by the telemetry's clock."""
    source = Told(change("old", minutes_ago=200), change("new"))
    looking = watch(store, tmp_path, source)

    await looking.sweep()
    await looking.sweep()

    assert [each.id for each in await journal.between("chat", NOW - CHANGES_BEFORE, NOW)] == ["old", "new"]
    assert source.asked == [(NOW - CHANGES_BEFORE, NOW), (NOW - 30 * MINUTE, NOW)]


async def test_a_source_that_fails_hides_no_other(store: Store, tmp_path: Path, journal: ChangeJournal) -> None:
    """It is asked again the next time, from the beginning; what the others told is kept."""
    shaky, sound = Told(change("a"), name="shaky", failures=1), Told(change("b"), name="sound")
    looking = watch(store, tmp_path, shaky, sound)

    await looking.sweep()
    first = [each.id for each in await journal.between("chat", NOW - CHANGES_BEFORE, NOW)]
    await looking.sweep()

    assert first == ["b"]
    assert {each.id for each in await journal.between("chat", NOW - CHANGES_BEFORE, NOW)} == {"a", "b"}
    assert [since for since, _ in shaky.asked] == [NOW - CHANGES_BEFORE] * 2


async def test_without_the_telemetrys_clock_nobody_looks(store: Store, tmp_path: Path) -> None:
    """The wall's clock would mix a drill's times with ours."""
    source = Told(change())
    looking = watch(store, tmp_path, source, clock=Clock(TelemetryError("connection refused")))

    await looking.sweep()
    assert source.asked == []
    await looking.sweep()
    assert len(source.asked) == 1


async def test_what_the_journal_keeps_of_a_prompt_is_what_its_service_allows(
    store: Store, tmp_path: Path, journal: ChangeJournal
) -> None:
    """Nothing else ever reaches the table: the default masks the words."""
    await watch(store, tmp_path, Told(prompt("Be kind.", "Be very kind."))).sweep()

    [kept] = await journal.between("chat", NOW - CHANGES_BEFORE, NOW)
    assert kept.after == "▒ ▒ ▒."


class Away:
    """A journal whose database does not answer."""

    async def between(self, service: str, since: datetime, until: datetime) -> list[Change]:
        raise StoreUnavailableError("the database does not answer")


async def test_a_journal_that_cannot_be_read_is_a_blind_spot() -> None:
    """Never an absence of changes."""
    source = JournalledChanges(Away())  # type: ignore[arg-type]  # nothing else is asked

    with pytest.raises(ChangeSourceError, match="the change journal cannot be read: the database does not answer"):
        await source.changes(CHAT, NOW, NOW)


class Silent:
    """Telemetry without a single series."""

    async def now(self) -> datetime:
        return NOW

    async def vector(self, *_: Any) -> dict[Any, Any]:
        return {}

    async def matrix(self, *_: Any) -> dict[Any, Any]:
        return {}

    async def exported(self, *_: Any) -> bool:
        return False


class Hanging:
    """A source that never answers."""

    name = "hanging"

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_diagnosis_reads_the_journal_beside_the_sources(journal: ChangeJournal) -> None:
    """The live answer has the whole text and is preferred; what its source forgot comes from the journal."""
    live = change("both", before="Be kind.", after="Be rude.")
    await journal.keep([replace(live, before=None, after=None), change("forgotten", source="audit", scope={})], now=NOW)
    diagnoser = Diagnoser(Silent(), [Told(live), JournalledChanges(journal)], checks={})

    found, unread = await diagnoser._all_changes(CHAT, NOW)

    assert {each.id: each.after for each in found} == {"both": "Be rude.", "forgotten": "--max-num-seqs 64"}
    assert unread == []


async def test_a_hanging_source_costs_its_patience_and_is_told(journal: ChangeJournal) -> None:
    """The others' changes come, and the journal still knows what the hanging one told before."""
    await journal.keep([change("told before", source="hanging")], now=NOW)
    diagnoser = Diagnoser(Silent(), [Hanging(), JournalledChanges(journal)], patience_s=0.2, checks={})
    began = datetime.now(UTC)

    found, [spot] = await diagnoser._all_changes(CHAT, NOW)

    assert [each.id for each in found] == ["told before"]
    assert (spot.check, spot.why) == ("changes in hanging", "no answer within 0.2 s")
    assert datetime.now(UTC) - began < timedelta(seconds=2)
