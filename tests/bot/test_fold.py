"""The state of an incident does not depend on the order of its events, nor on how often each one comes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.fold import begins_anew, fold
from bot.incidents import Delivery
from tests.kit import NOW, event

PEOPLE = [{"PALICE1": "Alice Ahn"}, {"PBOB001": "Bob Brandt"}, {}]
KINDS = ["acknowledged", "unacknowledged", "escalated", "reassigned", "delegated", "priority_updated", "resolved"]

step = st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.sampled_from(PEOPLE), st.booleans())


def stream(steps: Sequence[tuple[str, int, dict[str, str], bool]]) -> list[Delivery]:
    """What PagerDuty would send: after a resolution comes a re-opening, and events may fall into one second."""
    at, status = NOW, "triggered"
    events = [event("incident.triggered", at=at, event_id="01E00")]
    for number, (kind, seconds, assignees, is_merge) in enumerate(steps, 1):
        at += timedelta(seconds=seconds, milliseconds=1)
        name = "reopened" if status == "resolved" else kind
        into = "Q0TARGET" if name == "resolved" and is_merge else None
        status = {"acknowledged": "acknowledged", "resolved": "resolved"}.get(name, "triggered")
        facts: dict[str, Any] = {"status": status, "assignees": assignees, "title": f"title {number}"}
        events.append(event(f"incident.{name}", at=at, event_id=f"01E{number:02}", merged_into=into, **facts))
    return events


def end_of(events: Sequence[Delivery]) -> tuple[dict[str, Any], int]:
    """The incident after these events, and how many diagnoses they began."""
    values: dict[str, Any] | None = None
    runs = 0
    for item in events:
        before, values = values, fold(values, item)
        runs += begins_anew(before, values)
    assert values is not None
    return values, runs


@settings(max_examples=1000, deadline=None)
@given(st.lists(step, max_size=12), st.randoms(use_true_random=False))
def test_shuffled_and_repeated_events_end_in_the_same_state(steps: list[Any], dice: random.Random) -> None:
    """Each stream three times over, shuffled: every column as in order, and an open incident is diagnosed."""
    events = stream(steps)
    expected, in_order = end_of(events)
    for _ in range(5):
        shuffled = dice.sample(events * 3, len(events) * 3)
        found, runs = end_of(shuffled)
        assert found == expected
        assert runs <= in_order
        assert runs or found["state"] == "resolved"


@settings(max_examples=200, deadline=None)
@given(st.lists(step, max_size=12))
def test_in_order_each_reopening_begins_one_diagnosis(steps: list[Any]) -> None:
    """Copies, escalations, acknowledgements and the like begin none."""
    events = stream(steps)
    reopened = sum(item.kind == "incident.reopened" for item in events)

    assert end_of([copy for item in events for copy in (item, item)])[1] == 1 + reopened


def test_a_merge_is_remembered_until_the_incident_is_resolved_anew() -> None:
    """The newest resolution says where it went; one without a merge went nowhere."""
    merged = event("incident.resolved", at=NOW + timedelta(seconds=1), merged_into="Q0TARGET")
    reopened = event("incident.reopened", at=NOW + timedelta(seconds=2))
    resolved = event("incident.resolved", at=NOW + timedelta(seconds=3))
    events = [event("incident.triggered"), merged, reopened, resolved]

    ends = [end_of(events[: count + 1])[0] for count in range(4)]

    assert [(end["state"], end["merged_into"]) for end in ends] == [
        ("triggered", None), ("resolved", "Q0TARGET"), ("triggered", "Q0TARGET"), ("resolved", None),
    ]  # fmt: skip


def test_a_second_word_of_the_same_reopening_begins_nothing() -> None:
    """PagerDuty's list told us first, and the webhook came later with an id of its own."""
    at = NOW + timedelta(seconds=9)
    events = [
        event("incident.triggered"),
        event("incident.resolved", at=NOW + timedelta(seconds=3)),
        event("incident.reopened", at=at, event_id="reconcile-1"),
        event("incident.reopened", at=at + timedelta(milliseconds=700), event_id="01LATE"),
    ]

    assert end_of(events)[1] == 2


@pytest.mark.parametrize("status", ["triggered", "acknowledged", "resolved"])
def test_two_events_of_one_moment_have_one_order(status: str) -> None:
    """The further state wins, then the id; PagerDuty's times have milliseconds at best."""
    same = [event(f"incident.{kind}", at=NOW, event_id=kind) for kind in ("triggered", "acknowledged", "resolved")]
    dice = random.Random(status)

    assert end_of(dice.sample(same, 3))[0]["state"] == "resolved"
