"""What the desk is asked and only whoever holds the credentials can do: done once, or told why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from bot.errands import RUN_WITHIN
from bot.incidents import Incident, NotAllowedError, Person, PlanState, StaleError
from bot.policy import Grant, Policy, accounts
from bot.store.errands import Errands
from bot.store.tables import outbox
from bot.store.workers import Workers
from diagnostics.findings import Status
from runbooks.engine.values import ActionError, Happened, Plan, Tier
from tests.bot.test_desk import Room
from tests.bot.test_remediate import FRAME_JSON, call
from tests.kit import INCIDENT, NOW, Store, event, step
from tests.stories import fresh_plan


class NobodyMay(Policy):
    """A policy that was changed meanwhile."""

    def grant(self, person: Person, plan: Plan, incident: Incident) -> Grant:
        raise NotAllowedError("This is no longer allowed.")


@pytest.fixture
def room(store: Store) -> Room:
    """Checks say that fixes help."""
    return Room(store)


async def undo(room: Room, name: str) -> None:
    """A click, and whoever works runs what it left."""
    await room.desk.undo("plan-1", room.person(name))
    await room.runner.sweep()


async def told(room: Room) -> list[str]:
    """What the thread will say about errands that could not be run."""
    query = sa.select(outbox.c.content).where(outbox.c.kind == "refusal").order_by(outbox.c.outbox_id)
    async with room.store.database.read() as connection:
        return [content["why"] for content in (await connection.execute(query)).scalars()]


@pytest.mark.parametrize(("status", "end"), [(Status.OK, PlanState.VERIFIED), (Status.BAD, PlanState.NOT_VERIFIED)])
async def test_a_click_on_undo_takes_the_fix_back(store: Store, status: Status, end: PlanState) -> None:
    """A plan of its own, made from the state now, approved by the click, and run by the same story."""
    room = Room(store, status)
    await room.tried()
    assert (await room.end())[0] is end

    await undo(room, "bob")

    [made] = await room.undone_by()
    assert made.state is PlanState.APPROVED
    assert [dict(each.params) for each in made.plan.steps] == [{"to": 8}]
    assert [each.person_id for each in made.approvals] == ["bob"]
    await room.story.tell(made.plan.plan_id, 1, call)
    assert room.action.acts == [7, 8]
    assert [row.state for row in await room.undone_by()] == [PlanState.DONE]


async def test_the_click_itself_reads_nothing(room: Room) -> None:
    """The desk holds no credentials: it leaves an errand, on record, and rings."""
    await room.tried()
    rings = room.rings

    await room.desk.undo("plan-1", room.person("bob"))

    assert await room.undone_by() == []
    assert room.rings == rings + 1
    assert ("bob", "undo.asked") in await room.on_record()


async def test_an_impatient_second_click_is_the_same_errand(room: Room) -> None:
    """One undo, one line on record."""
    await room.tried()
    for _ in range(2):
        await room.desk.undo("plan-1", room.person("bob"))

    assert await room.runner.sweep() == 1

    assert len(await room.undone_by()) == 1
    assert (await room.on_record()).count(("bob", "undo.asked")) == 1


@pytest.mark.parametrize("is_over", [False, True])
async def test_nothing_is_taken_back_twice(room: Room, *, is_over: bool) -> None:
    """Neither while the undo waits to run nor after it ran; the click says so at once."""
    await room.tried()
    await undo(room, "bob")
    if is_over:
        [made] = await room.undone_by()
        await room.story.tell(made.plan.plan_id, 1, call)

    with pytest.raises(StaleError, match="taken back"):
        await room.desk.undo("plan-1", room.person("dana"))

    assert len(await room.undone_by()) == 1


@pytest.mark.parametrize("state", [PlanState.PROPOSED, PlanState.APPROVED, PlanState.RUNNING, PlanState.DENIED])
async def test_what_was_not_done_cannot_be_undone(room: Room, state: PlanState) -> None:
    """A click on a card that is older than the plan's state."""
    await room.store.page()
    await room.store.offer(fresh_plan(room.store), state=state)

    with pytest.raises(StaleError, match="nothing to take back"):
        await room.desk.undo("plan-1", room.person("bob"))


async def test_a_failed_plan_that_changed_nothing_has_no_undo(room: Room) -> None:
    """The action was refused, so there is nothing to take back; the thread says so, and the record."""
    await room.approved()
    room.action.fails, room.action.takes_effect = ActionError("403 forbidden"), False
    await room.tell()
    assert (await room.end())[0] is PlanState.FAILED

    await undo(room, "bob")

    [why] = await told(room)
    assert "cannot be taken back" in why
    assert [(row.actor, row.details["what"]) for row in await room.refusals()] == [("bob", "undo")]


async def test_an_undo_never_overwrites_somebody_elses_change(room: Room) -> None:
    """Since the fix, a person changed the thing by hand. After a refusal the same click may be tried again."""
    await room.tried()
    room.action.probe = Happened.CANNOT_TELL

    await undo(room, "bob")

    [why] = await told(room)
    assert "by hand" in why
    assert await room.undone_by() == []
    room.action.probe = Happened.YES
    await undo(room, "bob")
    assert len(await room.undone_by()) == 1


async def test_an_undo_of_a_risky_fix_needs_as_many_people(room: Room) -> None:
    """The first click puts it on the table, the second person's starts it; it is one plan."""
    await room.store.page()
    risky = await room.store.offer(fresh_plan(room.store, frame=FRAME_JSON, steps=(step(tier=Tier.R2),)))
    room.action.tier = Tier.R2
    for name in ("dana", "paul"):
        await room.desk.approve(risky.plan_id, room.person(name))
    await room.story.tell("plan-1", 1, call)

    await undo(room, "dana")
    assert [row.state for row in await room.undone_by()] == [PlanState.PROPOSED]
    await undo(room, "dana")
    assert await told(room) == ["You have decided on this fix already."]
    await undo(room, "paul")

    [made] = await room.undone_by()
    assert made.state is PlanState.APPROVED
    assert {each.person_id for each in made.approvals} == {"dana", "paul"}


async def test_a_resolved_incident_may_still_be_undone(room: Room) -> None:
    """The fix helped, the incident is over, and it has a side effect that somebody wants rid of."""
    await room.tried()
    await room.store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(minutes=1)), now=NOW)
    await room.store.inbox.fold(now=NOW)

    await undo(room, "bob")

    [made] = await room.undone_by()
    await room.story.tell(made.plan.plan_id, 1, call)
    assert room.action.value == 8


@pytest.mark.parametrize("is_gone", [False, True])
async def test_the_right_to_undo_is_checked_again_when_it_is_run(room: Room, *, is_gone: bool) -> None:
    """Between the click and its run Bob lost his role, or left the configuration."""
    await room.tried()
    await room.desk.undo("plan-1", room.person("bob"))
    people = accounts(room.store.config)
    if is_gone:
        await room.store.people.replace([each for each in people if each[0].person_id != "bob"])
    else:
        room.runner._policy = NobodyMay(room.store.config)

    await room.runner.sweep()

    [why] = await told(room)
    assert ("not in the configuration" if is_gone else "no longer") in why
    assert await room.undone_by() == []


async def test_a_click_that_waited_too_long_for_a_worker_changes_nothing(room: Room) -> None:
    """Whoever starts a worker hours later does not want to see an old wish come true."""
    await room.tried()
    asked_at = datetime.now(UTC) - RUN_WITHIN - timedelta(seconds=1)
    errands = Errands(room.store.database)
    await errands.ask("undo", "plan-1", incident_id=INCIDENT, by=room.person("bob"), now=asked_at)

    await room.runner.sweep()

    [why] = await told(room)
    assert "waited too long" in why
    assert await room.undone_by() == []
    await undo(room, "bob")
    assert len(await room.undone_by()) == 1


async def test_an_errand_that_another_process_runs_is_not_run_here(room: Room) -> None:
    """Until that one is dead; then it is taken over, and run once."""
    await room.tried()
    workers, errands = Workers(room.store.database), Errands(room.store.database)
    await workers.register(executor_id="worker-2", host="h", place="p", pid=1, role="worker")
    await room.desk.undo("plan-1", room.person("bob"))
    assert len(await errands.claim(me="worker-2")) == 1

    assert await room.runner.sweep() == 0
    await workers.end("worker-2")
    assert await room.runner.sweep() == 1

    assert len(await room.undone_by()) == 1


async def test_an_errand_that_a_crash_cut_off_after_the_approval_is_no_refusal(room: Room) -> None:
    """The undo is approved; nobody is told that it was taken back already."""
    await room.tried()
    await room.desk.undo("plan-1", room.person("bob"))
    [errand] = await Errands(room.store.database).claim(me="worker-1")
    await room.runner._undo(errand, room.person("bob"))

    assert await room.runner.sweep() == 1

    assert await told(room) == []
    assert len(await room.undone_by()) == 1
    assert await room.runner.sweep() == 0


async def test_the_record_says_how_the_person_came(room: Room) -> None:
    """An operator who signed in outside Slack stays one, however long the errand waits."""
    await room.tried()
    await room.desk.undo("plan-1", replace(room.person("bob"), channel="operator"))

    [errand] = await Errands(room.store.database).claim(me="worker-1")

    assert (errand.person_id, errand.channel, errand.incident_id) == ("bob", "operator", INCIDENT)
