"""What must be told is told once, in order, and later when it has to be."""

from __future__ import annotations

from datetime import timedelta

from tests.kit import INCIDENT, NOW, Store

FACTS = {"incident_id": INCIDENT, "lane": "pagerduty", "kind": "note", "now": NOW}


async def test_the_same_fact_is_put_in_once(store: Store) -> None:
    """A repeated workflow step posts again under the same key."""
    await store.page()
    for _ in range(2):
        await store.outbox.post(key="k", **FACTS)  # type: ignore[arg-type]  # a dict of keywords

    assert len(await store.outbox.due("pagerduty", now=NOW)) == 1


async def test_an_incident_is_told_in_order(store: Store) -> None:
    """The second parcel waits until the first is delivered or given up."""
    await store.page()
    await store.outbox.post(key="first", **FACTS)  # type: ignore[arg-type]
    await store.outbox.post(key="second", **FACTS)  # type: ignore[arg-type]

    [head] = await store.outbox.due("pagerduty", now=NOW)
    assert head.key == "first"
    await store.outbox.again(head, due=NOW + timedelta(minutes=1), why="slow down", untouched=True)
    assert await store.outbox.due("pagerduty", now=NOW) == []
    await store.outbox.give_up(head.outbox_id, why="channel_not_found", incident_id=INCIDENT)
    assert [parcel.key for parcel in await store.outbox.due("pagerduty", now=NOW)] == ["second"]
    assert await store.outbox.undeliverable(INCIDENT) == ["pagerduty did not take note: channel_not_found"]


async def test_a_crash_in_the_middle_of_a_call_is_seen(store: Store) -> None:
    """What was being sent when the process died must be looked up before it is sent again."""
    await store.page()
    await store.outbox.post(key="k", **FACTS)  # type: ignore[arg-type]
    [parcel] = await store.outbox.due("pagerduty", now=NOW)
    assert await store.outbox.claim(parcel, now=NOW)

    [again] = await store.outbox.due("pagerduty", now=NOW)

    assert not parcel.uncertain
    assert again.uncertain
    assert again.attempts == 1
