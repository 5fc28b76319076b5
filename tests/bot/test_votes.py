"""What people think of suggested runbooks: one live vote each, whatever the order; the record keeps them all."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from bot.incidents import NotFoundError
from bot.slack import buttons, thread
from bot.store.audit import AuditLog
from bot.store.votes import Ballot, Tally, Verdict
from tests.bot.test_card import Wall
from tests.bot.test_desk import Room
from tests.kit import INCIDENT, NOW, Store
from tests.stories import HIT

VERDICTS: tuple[Verdict, Verdict] = ("helpful", "wrong")


async def test_one_live_vote_whatever_the_order(store: Store) -> None:
    """Another answer replaces the former one and the same again withdraws it: all 16 ways to click twice."""
    await store.page()
    clicks = list(itertools.product(("alice", "bob"), VERDICTS))
    live: dict[tuple[str, str], str] = {}
    cast = 0
    for number, order in enumerate(itertools.product(clicks, repeat=2)):
        for person, verdict in order:
            key = (f"book-{number}", person)
            stays = live.get(key) != verdict
            live = {other: said for other, said in live.items() if other != key} | ({key: verdict} if stays else {})
            ballot = Ballot(incident_id=INCIDENT, runbook=key[0], person_id=person, verdict=verdict, run=1, at=NOW)

            counts, tally = await store.votes.cast(ballot, channel="slack")
            cast += 1

            said = Counter(told for (book, _), told in live.items() if book == key[0])
            assert (counts, tally) == (stays, Tally(helpful=said["helpful"], wrong=said["wrong"]))

    assert sum(each.helpful + each.wrong for each in (await store.votes.tallies(INCIDENT)).values()) == len(live)
    record = [row for row in await AuditLog(store.database).about(INCIDENT) if row.action.startswith("runbook.vote")]
    assert len(record) == cast == 32


async def test_a_vote_is_on_the_card_and_on_record(store: Store) -> None:
    """Anybody of the configuration may, without any role; the person hears the tally."""
    room, wall = Room(store), Wall(store)
    await wall.diagnosed(hits=[HIT])

    said = [
        await room.desk.vote(INCIDENT, 1, HIT.doc_id, "helpful", room.person("alice")),
        await room.desk.vote(INCIDENT, 1, HIT.doc_id, "wrong", room.person("bob")),
        await room.desk.vote(INCIDENT, 1, HIT.doc_id, "wrong", room.person("bob")),
    ]

    assert said == [
        "Recorded: helpful. The same click takes it back. In this incident 1 found it helpful.",
        "Recorded: wrong runbook. The same click takes it back. In this incident 1 found it helpful, 1 wrong.",
        "Your vote is taken back. In this incident 1 found it helpful.",
    ]
    book = (await wall.view()).runbook
    assert book is not None
    assert (book.helpful, book.wrong) == (1, 0)
    assert [deed for deed in await room.on_record() if deed[1].startswith("runbook.")] == [
        ("alice", "runbook.voted"),
        ("bob", "runbook.voted"),
        ("bob", "runbook.vote_withdrawn"),
    ]


@pytest.mark.parametrize(("run", "runbook"), [(1, "another"), (2, HIT.doc_id)])
async def test_only_what_was_suggested_is_voted_on(store: Store, run: int, runbook: str) -> None:
    """Not any runbook, and not that of a diagnosis that never was."""
    room, wall = Room(store), Wall(store)
    await wall.diagnosed(hits=[HIT])

    with pytest.raises(NotFoundError, match="did not suggest"):
        await room.desk.vote(INCIDENT, run, runbook, "helpful", room.person("alice"))
    assert await store.votes.tallies(INCIDENT) == {}


async def test_the_thread_has_two_buttons_under_each_runbook(store: Store) -> None:
    """They name the incident, the diagnosis and the runbook; the card keeps its one screen and has none."""
    wall = Wall(store)
    await wall.diagnosed(hits=[HIT])

    rows = [block for block in thread.evidence(await wall.view()).blocks if block["type"] == "actions"]

    value = f"{INCIDENT}:1:{HIT.doc_id}"
    assert [[(each["action_id"], each["value"]) for each in row["elements"]] for row in rows] == [
        [(buttons.VOTE_HELPFUL, value), (buttons.VOTE_WRONG, value)]
    ]
