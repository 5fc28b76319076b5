"""What votes teach, from the clicks to the next incident: learned by team, reviewed, adopted, taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.feedback import AdoptedExperience, Lessons, content_of, digest_of
from bot.incidents import NotFoundError, PlanState, StaleError
from bot.operate_ranking import learn_from
from bot.ranking_shown import lines
from bot.store.audit import AuditLog
from bot.store.rankings import SUBJECT, Offer, Rankings
from bot.store.vote_tables import ranking
from bot.store.votes import Ballot, Verdict
from retrieval.documents import Document, Origin, Question, Section
from retrieval.feedback import Experience, Lesson, Opinion, Prior, reordered
from retrieval.feedback_gain import Change, Gain
from retrieval.ranking import RunbookSearch
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event, open_store
from tests.operator_house import operator_house
from tests.stories import HIT, diagnosed, fresh_plan

TWO_TEAMS = (
    CONFIG.replace('name = "chat"\n', 'name = "chat"\nteam = "llm"\n')
    .replace('id = "alice"', 'id = "alice"\nteam = "llm"')
    .replace('id = "paul"', 'id = "paul"\nteam = "search"')
    + """
[[service]]
name = "find"
team = "search"
pagerduty_service = "PFIND01"
environment = "prod"
mode = "observe"
owners = ["paul"]
[service.selectors]
serving = {namespace = "find"}
"""
)
PRIOR = Prior(runbook=HIT.doc_id, sha256="a" * 64, helpful=3)
FLAT = Change(before=0.5, after=0.5, low=0.0, high=0.0)
GAIN = Gain(incidents=20, alerts=5, recall_1=FLAT, mrr_10=FLAT)


@pytest.fixture
async def store(database_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """Two services of two teams; Alice is of the first, Paul of the second, the others of none."""
    async with open_store(database_url, config_in(tmp_path, TWO_TEAMS)) as opened:
        yield opened


def offer(prior: Prior = PRIOR) -> Offer:
    known: Experience = {"alert LLMHighTTFT": {prior.runbook: prior}}
    content = content_of({"llm": (known, GAIN)})
    return Offer(digest=digest_of(content), content=content, made_at=NOW, made_by="unix:ops")


async def turns(store: Store) -> list[tuple[str, str]]:
    return [(row.actor, row.action) for row in await AuditLog(store.database).about(SUBJECT)]


async def test_adopted_and_taken_back_one_by_one(store: Store) -> None:
    """Each turn is on record; a rollback restores what was before, and again what was before that."""
    first, second = offer(), offer(Prior(runbook="another", sha256="b" * 64, wrong=1))
    assert [await store.rankings.offer(each) for each in (first, second, first)] == [True, True, False]
    assert await store.rankings.in_force() is None

    how: dict[str, Any] = {"by": "dana", "channel": "operator", "now": NOW}
    with pytest.raises(NotFoundError, match="was offered"):
        await store.rankings.adopt("c" * 64, **how)
    for each in (first, second):
        await store.rankings.adopt(each.digest, **how)
        assert await store.rankings.in_force() == each
    assert await store.rankings.roll_back(**how) == first.digest
    assert await store.rankings.in_force() == first
    assert await store.rankings.roll_back(**how) is None
    assert await store.rankings.in_force() is None
    with pytest.raises(StaleError, match="nothing to take back"):
        await store.rankings.roll_back(**how)

    dana = [("dana", f"ranking.{what}") for what in ("adopted", "adopted", "rolled_back", "rolled_back")]
    assert await turns(store) == [("unix:ops", "ranking.offered")] * 2 + dana


async def test_a_person_with_a_token_decides(store: Store) -> None:
    """Alice approves no R2 fix, so she adopts nothing, on record; Dana does, and every process uses it at once."""
    offered, elsewhere = offer(), AdoptedExperience(Rankings(store.database), store.config)
    await store.rankings.offer(offered)
    async with operator_house(store) as house:
        async with house.client(await house.mint("alice")) as alice:
            read = await alice.get(f"/api/ranking/{offered.digest}")
            refused = [
                (await alice.post(path)).status_code
                for path in (f"/api/ranking/{offered.digest}/adopt", "/api/ranking/rollback")
            ]
        before = await elsewhere.of("chat")
        async with house.client(await house.mint("dana")) as dana:
            adopted = await dana.post(f"/api/ranking/{offered.digest}/adopt")
            during = [await elsewhere.of(service) for service in ("chat", "find", "")]
            back = await dana.post("/api/ranking/rollback")

    assert "\n".join(lines(read.json()["content"])).endswith(
        f"{HIT.doc_id} (3 helpful, 0 wrong, 0 resolved; aaaaaaaaaaaa)"
    )
    assert (refused, adopted.status_code, back.status_code) == ([403, 403], 200, 200)
    assert during == [{"alert LLMHighTTFT": {HIT.doc_id: PRIOR}}, {}, {}]
    assert before == await elsewhere.of("chat") == {}
    assert await turns(store) == [
        ("unix:ops", "ranking.offered"),
        ("alice", "refused"),
        ("alice", "refused"),
        ("dana", "ranking.adopted"),
        ("dana", "ranking.rolled_back"),
    ]


async def test_what_was_not_reviewed_does_not_count(store: Store) -> None:
    """Somebody who writes into the table changes the content, and not its hash."""
    offered = offer()
    await store.rankings.offer(offered)
    await store.rankings.adopt(offered.digest, by="dana", channel="operator", now=NOW)
    forged = offer(Prior(runbook="evil", sha256="e" * 64, helpful=99)).content
    async with store.database.write() as connection:
        await connection.execute(sa.update(ranking).values(content=forged))

    assert await AdoptedExperience(store.rankings, store.config).of("chat") == {}


async def _vote(store: Store, person: str, incident_id: str, verdict: Verdict = "helpful") -> None:
    ballot = Ballot(incident_id=incident_id, runbook=HIT.doc_id, person_id=person, verdict=verdict, run=1, at=NOW)
    await store.votes.cast(ballot, channel="slack")


async def test_a_vote_counts_for_the_team_of_the_service_alone(store: Store) -> None:
    """Paul is of another team than the chat service's, so his vote says nothing there; a fix that worked does."""
    await store.page()
    await diagnosed(store)
    await store.page(incident_id="Q0FIND", event_id="find", service_id="PFIND01")
    item = await store.offer(fresh_plan(store), state=PlanState.RUNNING)
    for person in ("alice", "bob", "paul"):
        await _vote(store, person, INCIDENT)
    await _vote(store, "paul", "Q0FIND", "wrong")
    lessons = Lessons(store.incidents, store.votes, store.config)
    running = await lessons.by_team()
    await store.plans.end(item, PlanState.VERIFIED, "", now=NOW, expected=[PlanState.RUNNING], told=[], actor="bob")
    unresolved = await lessons.by_team()
    await store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(minutes=9)), now=NOW)
    await store.inbox.fold(now=NOW)
    resolved = await lessons.by_team()

    assert {team: [(each.incident, len(each.opinions)) for each in found] for team, found in running.items()} == {
        "llm": [(INCIDENT, 2)],
        "search": [("Q0FIND", 1)],
    }
    assert [each.person for each in running["llm"][0].opinions] == ["alice", "bob"]
    assert [found["llm"][0].resolved_by for found in (running, unresolved, resolved)] == [
        frozenset(),
        frozenset(),
        {item.runbook_id},
    ]
    assert resolved["llm"][0].question.causes[0][0] == "S04"


async def test_each_team_learns_by_itself() -> None:
    """Where twenty incidents say so the second runbook comes first; a team with few votes gets nothing of it."""
    section = Section(heading="", text="Requests wait, and nobody knows why")
    documents = [
        Document(doc_id=name, title="Waiting", sections=(section,), origin=Origin(sha256=name * 9))
        for name in ("cache", "queue")
    ]
    search = RunbookSearch(floor=0.0)
    await search.refresh(documents)

    def lesson(number: int) -> Lesson:
        question = Question(text="requests wait", alert=f"Slow{number % 5}")
        liked = Opinion(person="alice", runbook=second, verdict="helpful", at=NOW)
        return Lesson(incident=f"Q{number}", question=question, opinions=(liked,))

    first, second = (each.doc_id for each in await search.search(Question(text="requests wait", alert="Slow1")))
    history = {"llm": [lesson(number) for number in range(20)], "search": [lesson(number) for number in range(3)]}
    found = await learn_from(history, search, {each.doc_id: each.origin.sha256 for each in documents})
    known, measured = found.teams["llm"]
    before = await search.search(history["llm"][0].question)
    after = [
        [each.doc_id for each in reordered(before, history["llm"][0].question, experience)]
        for experience in (known, {})
    ]

    assert list(found.left_out) == ["search"]
    assert "it takes 20 of 5" in found.left_out["search"]
    assert (measured.recall_1.before, measured.recall_1.after) == (0.0, 1.0)
    assert after == [[second, first], [first, second]]
