"""What people forget is told where they look: a stop that nobody ended, and a review that nobody wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from bot import narrate
from bot.doctor import database as examiner
from bot.doctor.advice import Advice, State
from bot.settings import Settings
from bot.slack import answers
from bot.store.trust_tables import break_glass
from bot.vitals import Vitals
from tests.kit import INCIDENT, Store


async def doctor(store: Store) -> dict[str, Advice]:
    url = store.database.url.render_as_string(hide_password=False)
    return {each.about: each for each in await examiner.examine(Settings.load({"DATABASE_URL": url}), store.config)}


async def test_a_stop_that_has_stood_for_long_is_asked_about(store: Store) -> None:
    """By the metric of every process, the doctor, and the sentence of cards, `/oncall status` and `/statusz`."""
    registry, now = CollectorRegistry(), datetime.now(UTC)
    vitals = Vitals(store.database, registry)
    await vitals.sweep()
    assert registry.get_sample_value("watchkeeper_stopped_seconds") == 0
    assert (await doctor(store))["kill switch"].state is State.OK

    since = now - timedelta(hours=2)
    await store.switch.stop(by="bob", name="Bob Brandt", reason="wrong cluster", channel="slack", now=since)
    await vitals.sweep()
    advice = (await doctor(store))["kill switch"]
    said = narrate.stopped("Bob Brandt", "wrong cluster", since, now)
    young = narrate.stopped("Bob Brandt", "wrong cluster", now, now + timedelta(minutes=59))
    shown = answers.status([], said)

    assert registry.get_sample_value("watchkeeper_stopped_seconds") == pytest.approx(7200, abs=120)
    assert (advice.state, "is it still needed?" in advice.says, "/oncall go" in advice.remedy) == (
        State.BAD,
        True,
        True,
    )
    assert ("is it still needed?" in said, "still needed" in young) == (True, False)
    assert "Bob Brandt" in str(shown.blocks[0])
    assert narrate.NO_OPEN_INCIDENTS in str(shown.blocks[1])


async def test_an_overdue_review_is_told(store: Store) -> None:
    """From the 24th hour on, until somebody writes it; before that it is only open."""
    registry, now = CollectorRegistry(), datetime.now(UTC)
    vitals = Vitals(store.database, registry)
    facts = {"incident_id": INCIDENT, "person_id": "paul", "role": "platform", "reason": "nobody else was awake"}

    found = []
    for hours, plan_id in ((23, "plan-1"), (25, "plan-2")):
        async with store.database.write() as connection:
            broken = break_glass.insert().values(plan_id=plan_id, at=now - timedelta(hours=hours), **facts)
            await connection.execute(broken)
        await vitals.sweep()
        advice = (await doctor(store))["reviews"]
        late = registry.get_sample_value("watchkeeper_reviews_overdue")
        found.append((advice.state, late, vitals.counts["reviews_open"], bool(vitals.overdue())))

    assert found == [(State.UNKNOWN, 0, 1, False), (State.BAD, 1, 2, True)]
    assert "plan-2, which paul started alone" in advice.says
    assert "audit reviews" in vitals.overdue()
