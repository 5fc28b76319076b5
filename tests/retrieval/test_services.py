"""Runbooks of other teams' services: never found, and they take no place among the neighbours of ours."""

from __future__ import annotations

import random

from retrieval.corpus import NEIGHBOURS
from retrieval.documents import Question
from retrieval.ranking import RunbookSearch
from tests.retrieval.conftest import GPU, runbook
from tests.retrieval.hashing_embedder import HashingEmbedder

TEAMS = {"chat": ("chat-api", "chat-batch"), "search": ("search-api",), "voice": ("voice-api", "voice-eval")}
WORDS = (
    "queue",
    "cache",
    "prefill",
    "decode",
    "replica",
    "node",
    "token",
    "prompt",
    "latency",
    "memory",
    "driver",
    "gateway",
)


async def test_no_question_finds_another_teams_runbook() -> None:
    """Whatever a question says, links and is diagnosed as: 200 questions over 80 runbooks, 60 of them a team's."""
    dice = random.Random(6)
    owners = {f"{team or 'all'}-{at}": team for at in range(20) for team in (*TEAMS, "")}
    documents = [
        runbook(
            name, dice.choice(WORDS), " ".join(dice.choices(WORDS, k=8)), causes=("S01",), services=TEAMS.get(team, ())
        )
        for name, team in owners.items()
    ]
    search = RunbookSearch(HashingEmbedder(), floor=0.0)
    await search.refresh(documents)
    seen: set[str] = set()
    for _ in range(200):
        team = dice.choice(list(TEAMS))
        other = dice.choice([each for each in documents if owners[each.doc_id] != team])
        question = Question(
            text=f"{other.title} {other.sections[0].text}",
            alert=other.title,
            service=dice.choice(TEAMS[team]),
            runbook_url=other.url,
            causes=(("S01", 1.0),),
        )
        found = {owners[hit.doc_id] for hit in await search.search(question, limit=10)}
        assert found <= {team, ""}, question
        seen |= found

    assert seen == {*TEAMS, ""}, "each team's own were found, so that the filter is what kept the others out"


async def test_others_do_not_crowd_ours_out() -> None:
    """More copies of the question than there are neighbours, all another service's: ours keeps its own cosine."""
    question = Question(text=GPU.sections[0].text, service="chat-api")
    crowd = [
        runbook(f"crowd-{at}", "Crowd", GPU.sections[0].text, services=("voice-api",)) for at in range(NEIGHBOURS + 10)
    ]
    far = runbook("far", "Noodles", "Cook the noodles until they are soft.", services=("chat-api",))
    search = RunbookSearch(HashingEmbedder(), floor=0.0)
    await search.refresh([*crowd, GPU, far])

    comparison = await search.compare(question)

    assert comparison is not None
    assert comparison.meaning is not None
    ours, theirs = comparison.meaning.cosines[-2:]
    assert (ours > 0.6, theirs < 0.2) == (True, True)
    assert [hit.doc_id for hit in await search.search(question)] == [GPU.doc_id, "far"]
