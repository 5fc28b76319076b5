"""Past incidents that resemble one: what is said of them, who may see them, and how they are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.incidents import Incident, IncidentState, PlanState
from bot.operator_client import seen_in_words
from bot.past import Fix, Look, Outcome, past_of
from bot.respond import ALERTS, DIAGNOSIS
from bot.similar import SimilarIncidents
from bot.slack import blocks
from bot.slack.view import CardView
from bot.store.bursts import Bursts
from bot.store.tables import burst, burst_member, incident, plan, run, step_record
from bot.web.operator_api import seen_json
from diagnostics.diagnosis import Diagnosis
from retrieval.forgetting import ForgettingVectors
from retrieval.similar import IncidentSearch
from tests.bot.test_card import Wall
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event
from tests.operator_house import operator_house
from tests.retrieval.hashing_embedder import HashingEmbedder
from tests.stories import ALERT, FOUND, diagnosed, texts, without

AGAIN = "Q0AGAIN"
LATER = NOW + timedelta(days=12)
SENTENCE = "#7, 12 d earlier, S04, confirmed by its fix, fixed by “Move the label back”, verified, over after 25 min"


class Memory:
    """What a working process remembers, with words and vectors, and the cards that show it."""

    def __init__(self, wall: Wall, folder: Path, services: str = CONFIG) -> None:
        self.wall = wall
        self.store = wall.store
        self.file = folder / "past-vectors.sqlite"
        self.past = wall.past
        self.similar = SimilarIncidents(
            past=self.past,
            incidents=self.store.incidents,
            duties=self.store.duties,
            config=config_in(folder, services),
            search=IncidentSearch(HashingEmbedder(), ForgettingVectors(self.file, b"key")),
        )

    async def happened(self, incident_id: str = AGAIN, found: Diagnosis = FOUND, **more: Any) -> None:
        """A page at this time, and its verdict."""
        at = more.pop("at", LATER)
        paged = event("incident.triggered", at=at, incident_id=incident_id, created_at=at.isoformat(), **more)
        await self.store.inbox.deliver(replace(paged, event_id=f"page-{incident_id}"), now=NOW)
        await self.store.inbox.fold(now=NOW)
        await self.store.incidents.record(
            incident_id,
            1,
            alerts=ALERTS.dump_python([ALERT], mode="json"),
            diagnosis=DIAGNOSIS.dump_python(found, mode="json"),
        )
        await self.store.incidents.finish(incident_id, 1, now=datetime.now(UTC), cause="S04", probability=0.9)

    async def ended(self, incident_id: str, at: datetime) -> None:
        began = (await self.store.incidents.get(incident_id)).created_at
        over = event("incident.resolved", at=at, incident_id=incident_id, created_at=began.isoformat())
        await self.store.inbox.deliver(replace(over, event_id=f"over-{incident_id}"), now=NOW)
        await self.store.inbox.fold(now=NOW)

    async def found(self, incident_id: str = AGAIN) -> list[str]:
        """The ids, after another look at what is over."""
        await self.similar.refresh()
        return [each.incident_id for each in await self.similar.find(incident_id, 1)]

    async def view(self) -> CardView:
        await self.similar.refresh()
        await self.similar.answer()
        return await self.wall.cards.view(AGAIN)


@pytest.fixture
async def memory(store: Store, tmp_path: Path) -> Memory:
    """Twelve days ago a fix was verified, and the incident was over after 25 minutes."""
    wall = Wall(store)
    await wall.approved()
    await diagnosed(store)
    await wall.tell()
    await wall.happens("incident.resolved", minute=25)
    return Memory(wall, tmp_path)


async def test_the_card_says_what_was_seen_before(memory: Memory) -> None:
    """Cause and how it is known, fix, outcome, how long ago and how long it took; on card, page and command line."""
    await memory.happened(number=19)
    assert (await memory.wall.cards.view(AGAIN)).seen is None

    view = await memory.view()

    assert view.seen is not None
    [line] = view.seen
    assert line.sentence == SENTENCE
    assert line.reasons[:3] == ("same cause (S04, now 91 %)", "same alert", "same service")
    assert "Seen before: <https://acme.pagerduty.com/incidents/Q0INCIDENT1|#7>, 12 d earlier, S04" in texts(
        blocks.card(view).blocks
    )
    answer = {"seen": [seen_json(line)]}
    assert seen_in_words(answer, explain=False) == f"{INCIDENT}  {SENTENCE}: [FIRING:1] LLMHighTTFT chat"
    assert "same cause (S04, now 91 %)" in seen_in_words(answer, explain=True)
    async with operator_house(memory.store) as house, house.signed_in("bob") as browser:
        page = (await browser.get(f"/incidents/{AGAIN}")).text
    assert f'<a href="/incidents/{INCIDENT}">' in page
    assert "12 d earlier, S04" in page


async def test_nothing_alike_is_an_answer_too(memory: Memory) -> None:
    """Another trouble under another alert: the card is silent, the command says so, and nobody looks again."""
    other = replace(FOUND.causes[0], cause="G01", title="A GPU fell off the bus", evidence_for=("XID 79",))
    await memory.happened(found=without(FOUND, causes=(other,)), title="node gpu-7: device lost")
    await memory.store.incidents.record(AGAIN, 1, alerts=[])

    view = await memory.view()

    assert view.seen == ()
    assert "Seen before" not in texts(blocks.card(view).blocks)
    assert seen_in_words({"seen": []}, explain=True) == "no past incident resembles it"
    assert await memory.past.waiting(now=datetime.now(UTC)) == []


async def test_only_what_was_over_and_ours_and_of_no_same_burst_counts(memory: Memory, tmp_path: Path) -> None:
    """Not itself, not what went on when it began, not what came in the same burst, not another team's services."""
    await memory.happened("Q0BEFORE", at=LATER - timedelta(minutes=30), number=17)
    await memory.happened("Q0TWIN", at=LATER - timedelta(minutes=9), number=18)
    await memory.happened(number=19)
    await memory.ended("Q0TWIN", LATER - timedelta(minutes=1))
    await memory.ended("Q0BEFORE", LATER + timedelta(minutes=5))
    await memory.ended(AGAIN, LATER + timedelta(minutes=9))
    assert sorted(await memory.found()) == [INCIDENT, "Q0TWIN"]

    await Bursts(memory.store.database).gather(now=NOW)
    async with memory.store.database.write() as connection:
        await connection.execute(
            burst.insert().values(burst_id=99, opened_at=NOW, joined_at=NOW, due_at=NOW, is_begun=True)
        )
        await connection.execute(burst_member.delete())
        rows = [{"incident_id": each, "burst_id": 99} for each in (AGAIN, "Q0TWIN")]
        await connection.execute(burst_member.insert(), rows)
    memory.similar._known.clear()
    assert await memory.found() == [INCIDENT]

    strangers = CONFIG.replace('name = "chat"', 'name = "chat"\nteam = "chat"', 1)
    strangers += '\n[[service]]\nname = "search"\npagerduty_service = "PSEARCH"\nteam = "search"\n'
    strangers += "[service.selectors]\nserving = {namespace = 'search'}\n"
    others = Memory(memory.wall, tmp_path, strangers)
    async with memory.store.database.write() as connection:
        await connection.execute(
            incident.update().where(incident.c.incident_id == INCIDENT).values(service="search", revision=77)
        )
    assert await others.found() == []


async def test_what_is_forgotten_leaves_card_index_and_file(memory: Memory) -> None:
    """The rows decide; within a sweep no replica finds the incident any more, and no vector of it is left."""
    await memory.happened()
    assert (await memory.view()).seen
    kept = _rows(memory.file)
    assert kept > 0

    async with memory.store.database.write() as connection:
        for table in (step_record, sa.table("approval", sa.column("plan_id"))):
            await connection.execute(sa.delete(table))
        for rows in (plan, run, sa.table("outbox", sa.column("incident_id")), incident):
            await connection.execute(sa.delete(rows).where(rows.c.incident_id == INCIDENT))

    assert (await memory.wall.cards.view(AGAIN)).seen == ()
    assert await memory.found() == []
    assert _rows(memory.file) == 0


def _rows(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT count(*) FROM vector").fetchone()[0])


OVER = Incident(
    incident_id=INCIDENT,
    number=7,
    title="LLMHighTTFT chat",
    state=IncidentState.RESOLVED,
    state_at=NOW,
    created_at=NOW - timedelta(minutes=25),
    pagerduty_service="PCHAT01",
    pagerduty_service_name="Chat",
    service="chat",
    url="",
    urgency="high",
    assignees={},
    run=1,
    revision=1,
)


def _fix(state: PlanState, plan_id: str = "p", **more: Any) -> Fix:
    values: dict[str, Any] = {"run": 1, "ended": NOW, "runbook": "book", "titles": ("Do",), "actions": ("fake.set",)}
    return Fix(plan_id=plan_id, state=state, **{**values, "undoes": None, **more})


@pytest.mark.parametrize(
    ("fixes", "outcome"),
    [
        ([], Outcome.NONE),
        ([_fix(PlanState.VERIFIED)], Outcome.VERIFIED),
        ([_fix(PlanState.NOT_VERIFIED), _fix(PlanState.VERIFIED, "q", ended=LATER)], Outcome.VERIFIED),
        ([_fix(PlanState.VERIFIED), _fix(PlanState.DONE, "u", undoes="p", ended=LATER)], Outcome.UNDONE),
        ([_fix(PlanState.VERIFIED), _fix(PlanState.FAILED, "u", undoes="p", ended=LATER)], Outcome.VERIFIED),
        ([_fix(PlanState.NOT_VERIFIED)], Outcome.NOT_VERIFIED),
        ([_fix(PlanState.DONE, actions=("manual",))], Outcome.BY_HAND),
        ([_fix(PlanState.DONE)], Outcome.UNPROVEN),
        ([_fix(PlanState.FAILED)], Outcome.CUT_SHORT),
        ([_fix(PlanState.IN_DOUBT)], Outcome.NONE),
    ],
)
def test_the_outcome_is_that_of_the_last_fix(fixes: Sequence[Fix], outcome: Outcome) -> None:
    """Only what ran counts; without a verified fix for it a cause is only diagnosed."""
    look = Look(number=1, alerts=None, diagnosis=DIAGNOSIS.dump_python(FOUND, mode="json"))

    known = past_of(OVER, [look], fixes, burst=None, treats=lambda _: ("S01",))

    assert known.outcome is outcome
    assert (known.cause, known.is_confirmed) == (("S01", True) if outcome is Outcome.VERIFIED else ("S04", False))
    assert known.as_searched().certainty == (1.0 if known.is_confirmed else 0.91)
