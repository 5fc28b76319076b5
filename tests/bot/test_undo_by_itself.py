"""A fix that did not verify is taken back without a click, where the service says so and the approval said so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.card import may_be_undone
from bot.errands import RUN_WITHIN
from bot.incidents import PlanState
from bot.policy import accounts
from bot.slack.blocks import card
from bot.store.errands import Errands
from bot.store.plan_rows import PlanRow
from bot.store.tables import approval, errand
from diagnostics.findings import Status
from runbooks.engine.plan import without_a_click
from runbooks.engine.values import Happened, Tier
from tests.bot.test_desk import Room
from tests.bot.test_errands import told
from tests.bot.test_remediate import call
from tests.kit import INCIDENT, Store, config_in, open_store, plan, step
from tests.stories import fresh_plan, texts


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """No fix helps, and what an action did can be seen."""
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        yield Room(store, Status.BAD)


async def failed(room: Room, **more: Any) -> None:
    await room.tried(**{"undoes_itself": True, **more})
    assert (await room.end())[0] is PlanState.NOT_VERIFIED


async def undone(room: Room) -> PlanRow:
    """Whoever works runs the errand, and the plan that comes of it."""
    await room.runner.sweep()
    [undo] = await room.undone_by()
    await room.story.tell(undo.plan.plan_id, 1, call)
    return await room.store.plans.get(undo.plan.plan_id)


async def test_good_checks_that_were_good_before_prove_nothing(store: Store) -> None:
    """Nothing that this fix mends was wrong: done, the incident stays open, the card says why, and it may be undone."""
    room = Room(store, Status.OK)
    await room.tried(mends=())

    row = await store.plans.get("plan-1")
    assert row.state is PlanState.DONE
    assert "cannot show that it helped" in row.why
    assert may_be_undone(row)
    assert "resolve" not in await room.told("pagerduty")


async def test_it_is_taken_back_on_the_word_of_the_approval(store: Store) -> None:
    """A plan of its own with a hash of its own; approved by who approved the fix, on record as in advance."""
    room = Room(store, Status.BAD)
    await failed(room)
    undo = await undone(room)

    assert undo.state is PlanState.DONE
    assert room.action.value == 8
    assert [(each.person_id, each.digest) for each in undo.approvals] == [("bob", undo.plan.digest)]
    assert ("watchkeeper", "plan.approved_in_advance") in await room.on_record()
    await room.runner.sweep()
    assert len(await room.undone_by()) == 1


async def test_a_fix_whose_plan_does_not_say_so_is_only_offered(room: Room) -> None:
    """The approval did not cover it, so no errand is left."""
    await failed(room, undoes_itself=False)

    assert await room.runner.sweep() == 0
    assert await room.undone_by() == []


async def test_a_fix_that_helped_stays(tmp_path: Path) -> None:
    """Nothing to take back."""
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        room = Room(store, Status.OK)
        await room.tried(undoes_itself=True)

        assert (await room.end())[0] is PlanState.VERIFIED
        assert await room.runner.sweep() == 0


@pytest.mark.parametrize("broken", ["stop", "released", "left", "moved"])
async def test_what_holds_a_fix_holds_its_undo(room: Room, broken: str) -> None:
    """The kill switch, also one that was released since; a person who left; a state that somebody changed."""
    await failed(room)
    if broken in ("stop", "released"):
        await room.desk.stop("", room.person("dana"))
    if broken == "released":
        await room.desk.go(room.person("dana"))
    if broken == "left":
        others = [each for each in accounts(room.store.config) if each[0].person_id != "bob"]
        await room.store.people.replace(others)
    if broken == "moved":
        await room.runner.sweep()
        room.action.value = 5
    undo = await undone(room)

    assert undo.state is (PlanState.STOPPED if broken in ("stop", "released") else PlanState.STALE)
    assert room.action.acts == [7]


async def test_what_cannot_be_taken_back_is_told(room: Room) -> None:
    """Somebody changed it before the worker looked: no undo is made, and the thread says why."""
    await failed(room)
    room.action.probe = Happened.CANNOT_TELL
    await room.runner.sweep()

    assert await room.undone_by() == []
    assert "undo it by hand" in (await told(room))[0]


@pytest.mark.parametrize("alone", [{"person_id": "policy"}, {"decision": "break_glass"}])
async def test_nobody_is_promised_an_undo_that_could_not_start(room: Room, alone: dict[str, str]) -> None:
    """What the policy or one person alone started has no approval that would carry its undo: the thread says so."""
    await failed(room)
    async with room.store.database.write() as connection:
        await connection.execute(approval.update().values(**alone))
    await room.runner.sweep()

    assert await room.undone_by() == []
    assert "Undo it on the card" in (await told(room))[0]


async def test_late_is_not_taken_back(room: Room) -> None:
    """Whoever works was away, and people may have gone on from there."""
    await failed(room)
    async with room.store.database.write() as connection:
        await connection.execute(
            errand.update().values(created_at=datetime.now(UTC) - RUN_WITHIN - timedelta(minutes=1))
        )
    await room.runner.sweep()

    assert await room.undone_by() == []
    assert "waited too long" in (await told(room))[0]


async def test_one_that_breaks_does_not_keep_the_others(room: Room) -> None:
    """An action that answers as nobody expected holds up its own errand alone."""
    await failed(room)
    await Errands(room.store.database).ask(
        "undo", "plan-unknown", incident_id=INCIDENT, by=room.person("bob"), now=datetime.now(UTC)
    )
    room.action.happened = _broken  # type: ignore[assignment,method-assign]
    with pytest.raises(KeyError):
        await room.runner.sweep()

    assert "plan-unknown" in (await told(room))[0]


async def _broken(*_: Any) -> Happened:
    raise KeyError("state")


def test_it_stops_at_what_has_no_undo() -> None:
    """In reverse order; what changes nothing is no obstacle."""
    steps = (
        step(index=0, target="a"),
        step(index=1, target="b", undo=None, tier=Tier.R2, title="Delete"),
        step(index=2, target="c"),
        step(index=3, target="d", undo=None, tier=Tier.R0),
        step(index=4, target="e"),
        step(index=5, target="f"),
    )
    item = plan("p", steps=steps)

    assert without_a_click(item, (0, 1, 2, 3, 4)) == ((4, 2), "step 2, Delete, cannot be undone")
    assert without_a_click(item, (0, 3)) == ((0,), "")


ITSELF = "If it does not verify, Watchkeeper takes it back by itself"
LASTING = "; once step 1 has run, that and what came before it stay"
WITHOUT = " Where it starts without a person, its undo is only offered."


TOLD = [
    ("approve", True, False, f"{ITSELF}."),
    ("approve", True, True, f"{ITSELF}{LASTING}."),
    ("auto", True, False, f"{ITSELF}.{WITHOUT}"),
    ("auto", True, True, f"{ITSELF}{LASTING}.{WITHOUT}"),
    ("suggest", True, False, ""),
    ("approve", False, True, ""),
    ("auto", False, False, ""),
]


async def test_whoever_approves_is_told_what_is_so(room: Room) -> None:
    """On the card and where the click is confirmed, by mode, by what the plan says, and by whether a step lasts."""
    service = room.store.config.services[0]
    for number, (mode, undoes_itself, lasts, words) in enumerate(TOLD):
        incident_id = f"Q0TOLD{number}"
        await room.store.page(incident_id=incident_id, event_id=incident_id)
        steps = (step(undo=None, title="Delete") if lasts else step(), step(index=1, target="b"))
        about = {"plan_id": f"plan-{number}", "incident_id": incident_id}
        await room.store.offer(fresh_plan(room.store, **about, undoes_itself=undoes_itself, steps=steps))
        room.store.config = room.store.config.model_copy(
            update={"services": (service.model_copy(update={"mode": mode}),)}
        )
        view = await _cards(room).view(incident_id)

        assert view.plan is not None
        assert view.plan.on_failure == words
        assert texts(card(view).blocks).count(words or ITSELF) == (2 if words else 0)


def _cards(room: Room) -> Any:
    from tests.bot.test_keeper import Desk

    return Desk(room.store).cards
