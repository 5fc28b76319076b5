"""Votes and fixes as a bounded push on the order: what it may do, what it may never do, and what it is worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.documents import Hit, Origin, Question
from retrieval.feedback import CAP, MOST_FIXES, Lesson, Opinion, Prior, keys_of, learned, reordered
from retrieval.feedback_gain import TooLittleError, Trial, gain
from retrieval.ranking import FLOOR, RunbookSearch
from tests.retrieval.conftest import RUNBOOKS

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ASKED = Question(text="requests wait", alert="LLMSlow", causes=(("S01", 0.8), ("other", 0.1)))
BOOKS = ("a", "b", "c", "d")
CONTENTS = {name: name * 64 for name in BOOKS}


def hit(name: str, score: float, standing: int = 0) -> Hit:
    origin = Origin(sha256=CONTENTS[name])
    return Hit(doc_id=name, title=name, heading="", score=score, standing=standing, origin=origin)


def said(person: str, runbook: str, verdict: Literal["helpful", "wrong"] = "helpful", minute: int = 0) -> Opinion:
    return Opinion(person=person, runbook=runbook, verdict=verdict, at=NOON + timedelta(minutes=minute))


def lesson(number: int, *opinions: Opinion, question: Question = ASKED, resolved_by: str = "") -> Lesson:
    return Lesson(
        incident=f"Q{number}", question=question, opinions=opinions, resolved_by=frozenset(filter(None, [resolved_by]))
    )


def names(hits: list[Hit]) -> str:
    return "".join(each.doc_id for each in hits)


def test_a_hundred_votes_of_one_person_are_one() -> None:
    """For one alert a person has one voice: the latest one, however many incidents they voted in."""
    hundred = [lesson(number, said("mallory", "b", "wrong" if number else "helpful", number)) for number in range(100)]

    prior = learned(hundred, CONTENTS)["alert LLMSlow"]["b"]

    assert (prior.helpful, prior.wrong) == (0, 1)
    assert learned(hundred[:1] * 100, CONTENTS) == learned(hundred[:1], CONTENTS)


def test_three_votes_lift_a_runbook_and_say_so() -> None:
    """Beside the runbook that they passed: the reason counts them, and the fix that worked."""
    known = learned(
        [lesson(1, said("alice", "b"), said("bob", "b"), resolved_by="b"), lesson(2, said("carol", "b"))], CONTENTS
    )
    found = reordered([hit("a", 0.6), hit("b", 0.5)], ASKED, known)

    assert names(found) == "ba"
    assert found[0].reasons == ("3 of your team found it helpful for this alert, its steps resolved 1 incident",)
    assert found[1].reasons == ()


def test_the_cause_speaks_where_the_alert_is_new() -> None:
    """Another alert with the same likeliest cause; another cause has no say."""
    known = learned([lesson(1, said("alice", "b"), said("bob", "b"))], CONTENTS)
    hits = [hit("a", 0.55), hit("b", 0.5)]

    assert names(reordered(hits, replace(ASKED, alert="LLMOther"), known)) == "ba"
    assert names(reordered(hits, replace(ASKED, alert="LLMOther", causes=(("S02", 0.9),)), known)) == "ab"
    assert keys_of(Question(text="x", causes=(("other", 0.9), ("S01", 0.2)))) == ()


def test_votes_on_another_text_do_not_count() -> None:
    """Whoever swaps the file, or edits it, begins anew until somebody reviewed that text."""
    known = learned([lesson(1, said("alice", "b"), said("bob", "b"))], CONTENTS)
    swapped = replace(hit("b", 0.5), origin=Origin(sha256="e" * 64))

    for other in (swapped, replace(swapped, origin=Origin())):
        assert names(reordered([hit("a", 0.55), other], ASKED, known)) == "ab"
    assert "gone" not in learned([lesson(1, said("alice", "gone"))], CONTENTS).get("alert LLMSlow", {})


priors = st.dictionaries(
    st.sampled_from(BOOKS), st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500)), max_size=4
)
found_hits = st.lists(st.tuples(st.floats(FLOOR, 1), st.integers(0, 2)), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(priors, found_hits)
def test_no_votes_do_what_votes_may_not(
    votes: dict[str, tuple[int, int, int]], scores: list[tuple[float, int]]
) -> None:
    """
    Nothing appears or vanishes, nothing passes what stands higher, and no push is larger than the cap.

    Two hits change places only if their log-odds were within twice the cap.
    """
    ordered = sorted(scores, key=lambda pair: -pair[0])
    hits = [hit(name, score, standing) for name, (score, standing) in zip(BOOKS, ordered, strict=False)]
    known = {
        "alert LLMSlow": {
            name: Prior(runbook=name, sha256=CONTENTS[name], helpful=good, wrong=bad, resolved=fixed)
            for name, (good, bad, fixed) in votes.items()
        }
    }
    place = {each.doc_id: at for at, each in enumerate(reordered(hits, ASKED, known))}

    assert set(place) == {each.doc_id for each in hits}
    assert all(abs(prior.log_odds) <= CAP for prior in known["alert LLMSlow"].values())
    for at, above in enumerate(hits):
        for below in hits[at + 1 :]:
            if place[below.doc_id] < place[above.doc_id]:
                assert above.standing <= below.standing
                odds = [min(max(each.score, 0.001), 0.999) for each in (above, below)]
                ratio = odds[0] / (1 - odds[0]) / (odds[1] / (1 - odds[1]))
                assert ratio <= 2.7182818285 ** (2 * CAP) + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(("helpful", "wrong"))), max_size=12), st.randoms())
def test_no_person_moves_more_than_the_cap(
    votes: list[tuple[int, Literal["helpful", "wrong"]]], random: object
) -> None:
    """Whatever the others said, one more person changes a push by less than half of what all may; order is nothing."""
    before = [lesson(at, said(f"p{who}", "b", what, at)) for at, (who, what) in enumerate(votes)]
    shuffled = list(before)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' random.Random
    assert learned(shuffled, CONTENTS) == learned(before, CONTENTS)

    pushes = []
    for lessons in (before, [*before, *(lesson(100 + at, said("new", "b", "wrong", at)) for at in range(50))]):
        prior = learned(lessons, CONTENTS).get("alert LLMSlow", {}).get("b")
        pushes.append(prior.log_odds if prior else 0.0)
    assert abs(pushes[1] - pushes[0]) < 0.5 * CAP


def test_fixes_are_counted_to_three() -> None:
    """A policy that acts by itself makes hundreds of them."""
    three, many = (Prior(runbook="b", sha256="", resolved=n) for n in (MOST_FIXES, 900))
    assert three.log_odds == many.log_odds <= CAP


async def test_the_search_moves_what_it_found_and_nothing_else(search: RunbookSearch) -> None:
    """A declared alert stays before what is only voted for; what is below the floor or of another service stays out."""
    documents = [replace(each, origin=Origin(sha256=each.doc_id)) for each in RUNBOOKS]
    await search.refresh(documents)
    question = Question(text="time is longer; GPU missing", alert="LLMHighTTFT", service="chat")
    key = keys_of(question)[0]
    votes = {
        each.doc_id: Prior(runbook=each.doc_id, sha256=each.doc_id, helpful=50)
        for each in documents
        if each.doc_id in ("gpu-fell-off", "token-budget")
    }
    plain = await search.search(question, limit=10)
    voted = reordered(plain, question, {key: votes})
    second = Prior(runbook=plain[1].doc_id, sha256=plain[1].doc_id, helpful=9)
    lifted = reordered(plain, question, {key: {second.runbook: second}})

    assert [each.doc_id for each in voted] == [each.doc_id for each in plain]
    assert [each.standing for each in plain[:2]] == [1, 1]
    assert lifted[0].doc_id == second.runbook
    assert lifted[0].reasons[0] == "9 of your team found it helpful for this alert"
    assert lifted[0].score == lifted[1].score == plain[1].score  # never surer than it is


def _history(alerts: int, times: int) -> tuple[list[Lesson], list[Trial]]:
    """Each alert comes several times, is answered with `b` in the second place, and somebody says that `b` was it."""
    lessons = [
        lesson(number, said(f"p{number}", "b"), question=Question(text="x", alert=f"Alert{number % alerts}"))
        for number in range(alerts * times)
    ]
    return lessons, [Trial(lesson=each, hits=[hit("a", 0.6), hit("b", 0.5)]) for each in lessons]


def test_the_gain_leaves_the_incident_out() -> None:
    """What came four times is first the next time; what came once taught nothing about itself."""
    measured = gain(*_history(5, 4), CONTENTS)
    once = gain(*_history(20, 1), CONTENTS)

    assert (measured.incidents, measured.alerts) == (20, 5)
    assert (measured.recall_1.before, measured.recall_1.after) == (0.0, 1.0)
    assert (measured.mrr_10.low, measured.mrr_10.high) == (0.5, 0.5)
    assert once.mrr_10.before == once.mrr_10.after == 0.5


@pytest.mark.parametrize(("alerts", "times"), [(4, 10), (5, 3), (1, 0)])
def test_too_little_is_not_measured(alerts: int, times: int) -> None:
    """Neither too few incidents nor too few alerts."""
    with pytest.raises(TooLittleError, match="it takes 20 of 5"):
        gain(*_history(alerts, times), CONTENTS)
