"""Other values for an offered fix: a new plan that its requester cannot approve, and the end of the old one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.incidents import AlreadyDecidedError, NotAllowedError, PlanState, StaleError
from bot.narrowing import WrongValuesError
from bot.respond import context_of
from bot.store.plan_rows import PlanRow
from runbooks.engine.declared import IntegerParameter, TextParameter
from runbooks.engine.plan import plan
from runbooks.engine.values import Plan
from tests.bot.test_desk import Room
from tests.bot.test_errands import told
from tests.kit import INCIDENT, Store, config_in, event, open_store
from tests.stories import FOUND, GUILTY, RUNBOOK, diagnosed

BOOK = replace(
    RUNBOOK,
    params={
        "to": IntegerParameter(type="integer", minimum=0, maximum=7, default=7, narrow="down"),
        "why": TextParameter(type="text", default="too slow"),
    },
    steps=(replace(RUNBOOK.steps[0], params={"to": "{params.to}"}),),
)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """An incident whose fix has two values to choose."""
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        yield await room_in(store)


async def room_in(store: Store) -> Room:
    room = Room(store)
    room.shelf[BOOK.runbook_id] = BOOK
    await store.page()
    await diagnosed(store)
    service = store.config.service("chat")
    assert service is not None
    context = context_of(
        await store.incidents.get(INCIDENT), service, FOUND, GUILTY, policy_version=store.policy.version
    )
    offered = await plan(BOOK, context, {"fake.set": room.action})
    await store.offer(replace(offered, plan_id="plan-1"))
    return room


async def narrowed(room: Room, name: str, **values: str) -> PlanRow:
    """Somebody chooses values, and whoever works makes the new plan."""
    await room.desk.narrow("plan-1", values, room.person(name))
    await room.runner.sweep()
    rows = await room.store.plans.of_incident(INCIDENT)
    return rows[-1]


async def test_other_values_make_another_plan(store: Store) -> None:
    """New id, digest and nonce; what is not named stays; the old one is void; the requester is who chose."""
    room = await room_in(store)
    old = (await room.store.plans.get("plan-1")).plan
    new = await narrowed(room, "bob", to="6")

    assert new.state is PlanState.PROPOSED
    assert new.plan.params == {"to": 6, "why": "too slow"}
    assert new.plan.steps[0].params == {"to": 6}
    assert new.plan.requester == "bob"
    assert len({each.plan_id for each in (old, new.plan)}) == len({old.digest, new.digest}) == 2
    assert old.nonce != new.plan.nonce
    assert (await room.store.plans.get("plan-1")).state is PlanState.SUPERSEDED
    assert ("bob", "narrow.asked") in await room.on_record()
    with pytest.raises(AlreadyDecidedError):
        await room.desk.approve("plan-1", room.person("dana"))
    with pytest.raises(NotAllowedError, match="somebody else"):
        await room.desk.approve(new.plan.plan_id, room.person("bob"))
    await room.desk.approve(new.plan.plan_id, room.person("dana"))


async def test_a_change_voids_the_approval(room: Room) -> None:
    """Approved, then narrowed before its start: nothing starts until somebody approves the new plan."""
    await room.desk.approve("plan-1", room.person("bob"))
    new = await narrowed(room, "dana", to="5")

    assert await room.store.plans.to_start() == []
    assert new.approvals == ()
    assert new.state is PlanState.PROPOSED


@pytest.mark.parametrize("values", [{"to": "8"}, {"why": "another reason"}])
async def test_an_approved_plan_is_only_narrowed(room: Room, values: dict[str, str]) -> None:
    """Wider, or a value whose author says nothing about it: the approval stands as it is."""
    room.shelf[BOOK.runbook_id] = replace(
        BOOK, params={**BOOK.params, "to": IntegerParameter(type="integer", default=7, narrow="down")}
    )
    await room.desk.approve("plan-1", room.person("bob"))

    with pytest.raises(WrongValuesError, match="approved as"):
        await room.desk.narrow("plan-1", values, room.person("dana"))

    assert (await room.store.plans.get("plan-1")).state is PlanState.APPROVED


async def test_who_may_not_approve_cannot_take_an_approval_back(room: Room) -> None:
    """Alice is on call and may ask for another fix, but this one is approved."""
    assert (await room.desk.choices("plan-1", room.person("alice"))).values == {"to": "7", "why": "too slow"}
    await room.desk.approve("plan-1", room.person("bob"))

    with pytest.raises(NotAllowedError):
        await room.desk.narrow("plan-1", {"to": "6"}, room.person("alice"))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"to": "9"}, "to must be at most 7"),
        ({"nobody": "1"}, "nobody is not a parameter"),
        ({"why": "AKIAIOSFODNN7EXAMPLE"}, "looks like a credential"),
    ],
)
async def test_wrong_values_are_refused_before_anything_is_kept(room: Room, values: dict[str, str], fault: str) -> None:
    """Least of all a credential: the errand, the record and the plan would keep it for good."""
    with pytest.raises(WrongValuesError, match=fault):
        await room.desk.narrow("plan-1", values, room.person("bob"))

    assert not [action for _, action in await room.on_record() if action == "narrow.asked"]


@pytest.mark.parametrize("broken", ["denied", "resolved", "runbook", "same", "digest"])
async def test_what_moved_on_cannot_be_changed(room: Room, broken: str) -> None:
    """Decided, over, another runbook, nothing to change, or not what the person read."""
    values, digest = {"to": "6"}, None
    if broken == "denied":
        await room.desk.deny("plan-1", room.person("dana"))
    elif broken == "resolved":
        await room.store.inbox.deliver(event("incident.resolved", at=datetime.now(UTC)), now=datetime.now(UTC))
        await room.store.inbox.fold(now=datetime.now(UTC))
    elif broken == "runbook":
        room.shelf[BOOK.runbook_id] = replace(BOOK, revision="1" * 64)
    elif broken == "same":
        values = {"to": "7"}
    else:
        digest = "0" * 64

    with pytest.raises(StaleError):
        await room.desk.narrow("plan-1", values, room.person("bob"), digest=digest)


async def test_a_race_with_the_approval_is_told(room: Room) -> None:
    """Approved between the form and the worker: a wider value comes too late, and the thread says so."""
    room.shelf[BOOK.runbook_id] = replace(
        BOOK, params={**BOOK.params, "to": IntegerParameter(type="integer", default=7, narrow="up")}
    )
    await room.desk.narrow("plan-1", {"to": "6"}, room.person("dana"))
    await room.desk.approve("plan-1", room.person("bob"))
    await room.runner.sweep()

    assert (await room.store.plans.get("plan-1")).state is PlanState.APPROVED
    assert await told(room) == ["to was approved as 7 and may only go up."]


async def test_a_repeated_errand_makes_one_plan(room: Room) -> None:
    """A crash after the plan was made: the errand is run again, and finds it."""
    await room.desk.narrow("plan-1", {"to": "6"}, room.person("bob"))
    [errand] = await room.runner._errands.claim(me="worker-1")
    for _ in range(2):
        await room.runner._run(errand, room.person("bob"))

    made: list[Plan] = [row.plan for row in await room.store.plans.of_incident(INCIDENT)]
    assert [each.params["to"] for each in made] == [7, 6]


async def test_a_value_that_the_action_refuses_is_told(room: Room) -> None:
    """The declared type let it through; the action's own arguments do not. The offered plan stays."""
    room.shelf[BOOK.runbook_id] = replace(BOOK, steps=(replace(BOOK.steps[0], params={"to": "{params.why}"}),))
    await narrowed(room, "bob", why="seven")

    assert (await room.store.plans.get("plan-1")).state is PlanState.PROPOSED
    [why] = await told(room)
    assert "valid integer" in why
