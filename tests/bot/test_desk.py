"""What people may do: each deed commits, rings the bell, and is refused on record to whoever may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.approvals import Approvals
from bot.break_glass import BreakGlass
from bot.desk import Desk
from bot.errands import ErrandRunner
from bot.incidents import AlreadyDecidedError, NotAllowedError, NotFoundError, PlanState, StaleError
from bot.kill_switch import StopFile
from bot.library import document
from bot.narrowing import Narrowing
from bot.step_up import Unproven
from bot.store.audit import AuditLog, AuditRow
from bot.store.break_glass import BrokenGlass
from bot.store.errands import Errands
from bot.store.plan_rows import PlanRow
from diagnostics.findings import Status
from retrieval.ranking import RunbookSearch
from runbooks.engine.values import Happened, OutcomeUnknownError, Plan, Runbook, Tier
from tests.bot.test_remediate import Scene
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event, open_store, step
from tests.stories import FOUND, RUNBOOK, diagnosed, fresh_plan


class Room(Scene):
    """A desk, beside a plan and what carries it out."""

    def __init__(self, store: Store, status: Status = Status.OK) -> None:
        super().__init__(store, [status])
        self.action.probe = Happened.YES
        self.rings = 0
        self.runbooks = RunbookSearch()
        self.shelf: dict[str, Runbook] = {}
        narrowing = Narrowing(
            incidents=store.incidents, plans=store.plans, policy=store.policy, runbooks=lambda: self.shelf
        )
        self.desk = Desk(
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            approvals=self.approvals,
            glass=BreakGlass(
                glass=BrokenGlass(store.database),
                approvals=self.approvals,
                plans=store.plans,
                incidents=store.incidents,
                policy=store.policy,
                proof=Unproven(),
                stop_file=StopFile(None),
            ),
            policy=store.policy,
            search=self.runbooks,
            errands=Errands(store.database),
            switch=store.switch,
            stop_file=StopFile(None),
            narrowing=narrowing,
            votes=store.votes,
            ring=self._ring,
        )
        self.runner = ErrandRunner(
            me="worker-1",
            errands=Errands(store.database),
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            approvals=self.approvals,
            people=store.people,
            policy=store.policy,
            config=store.config,
            narrowing=narrowing,
            actions={"fake.set": self.action},
        )

    def _ring(self) -> None:
        self.rings += 1

    def person(self, name: str) -> Any:
        return self.store.person(name)

    async def offered(self, **more: Any) -> Plan:
        """Paged, and a plan lies on the table."""
        await self.store.page()
        return await self.store.offer(fresh_plan(self.store, **more))

    async def tried(self, **more: Any) -> None:
        """A fix was approved and carried out to its end."""
        await self.approved(**more)
        await self.tell()

    async def undone_by(self) -> list[PlanRow]:
        rows = await self.store.plans.of_incident(INCIDENT)
        return [row for row in rows if row.plan.undoes == "plan-1"]

    async def refusals(self) -> list[AuditRow]:
        rows = await AuditLog(self.store.database).about(INCIDENT)
        return [row for row in rows if row.action == "refused"]

    async def on_record(self) -> list[tuple[str, str]]:
        rows = await AuditLog(self.store.database).about(INCIDENT)
        return [(row.actor, row.action) for row in rows]


@pytest.fixture
def room(store: Store) -> Room:
    """Checks say that fixes help."""
    return Room(store)


async def test_an_acknowledgement_goes_to_pagerduty_in_the_persons_name(room: Room) -> None:
    """Who did it is on record at once; the state follows when PagerDuty says so."""
    await room.store.page()

    await room.desk.acknowledge(INCIDENT, room.person("bob"))

    [parcel] = await room.store.outbox.due("pagerduty", now=datetime.now(UTC))
    incident = await room.store.incidents.get(INCIDENT)
    assert (parcel.kind, dict(parcel.content)) == ("acknowledge", {"by": "bob", "email": "bob@example.com"})
    assert (incident.acknowledged_by, incident.state) == ("bob", "triggered")
    assert ("bob", "incident.acknowledge") in await room.on_record()
    assert room.rings == 1


@pytest.mark.parametrize("name", ["acknowledge", "resolve"])
async def test_a_second_click_adds_no_parcel(room: Room, name: str) -> None:
    """Two impatient clicks, by two people, are one message and one line in the record."""
    await room.store.page()

    for person in ("bob", "dana"):
        await getattr(room.desk, name)(INCIDENT, room.person(person))

    [parcel] = await room.store.outbox.due("pagerduty", now=datetime.now(UTC))
    assert parcel.content["by"] == "bob"
    assert [row for row in await room.on_record() if row[1] == f"incident.{name}"] == [("bob", f"incident.{name}")]


async def test_an_incident_that_was_reopened_can_be_acknowledged_again(room: Room) -> None:
    """The key of the parcel holds the moment of the state, so a new life is a new message."""
    await room.store.page()
    await room.desk.acknowledge(INCIDENT, room.person("bob"))
    for minute, kind in enumerate(("incident.acknowledged", "incident.resolved", "incident.reopened"), start=1):
        await room.store.inbox.deliver(event(kind, at=NOW + timedelta(minutes=minute)), now=NOW)
    await room.store.inbox.fold(now=NOW)

    await room.desk.acknowledge(INCIDENT, room.person("dana"))

    [first] = await room.store.outbox.due("pagerduty", now=datetime.now(UTC))
    await room.store.outbox.delivered(first.outbox_id)
    [second] = await room.store.outbox.due("pagerduty", now=datetime.now(UTC))
    assert (first.content["by"], second.content["by"]) == ("bob", "dana")


@pytest.mark.parametrize("name", ["acknowledge", "resolve", "rediagnose"])
async def test_a_resolved_incident_takes_no_more_deeds(room: Room, name: str) -> None:
    """PagerDuty would re-open a resolved incident that it is told to acknowledge."""
    await _resolved(room)

    with pytest.raises(StaleError, match="resolved"):
        await getattr(room.desk, name)(INCIDENT, room.person("bob"))

    assert await room.store.outbox.due("pagerduty", now=datetime.now(UTC)) == []
    assert (await room.store.incidents.get(INCIDENT)).run == 1


async def _resolved(room: Room) -> None:
    await room.store.page()
    await room.store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(minutes=1)), now=NOW)
    await room.store.inbox.fold(now=NOW)


@pytest.mark.parametrize("name", ["acknowledge", "resolve", "rediagnose"])
async def test_whoever_has_no_role_here_is_refused_on_record(store: Store, tmp_path: Path, name: str) -> None:
    """Mallory is configured, and has no role for this service nor for this incident."""
    room = Room(store)
    await store.page()
    mallory = replace(room.person("paul"), person_id="mallory", name="Mallory", roles=frozenset())

    with pytest.raises(NotAllowedError, match="no role"):
        await getattr(room.desk, name)(INCIDENT, mallory)

    [refusal] = await room.refusals()
    assert refusal.actor == "mallory"
    assert (refusal.details["what"], refusal.details["about"]) == (name, INCIDENT)
    assert await store.outbox.due("pagerduty", now=datetime.now(UTC)) == []
    assert (await store.incidents.get(INCIDENT)).run == 1


@pytest.mark.parametrize("name", ["approve", "deny", "undo"])
async def test_a_refused_decision_is_put_on_record_under_its_incident(room: Room, name: str) -> None:
    """Alice is on call, which the rule does not list; the click changes nothing and shows on the card."""
    await room.offered()
    revision = (await room.store.incidents.get(INCIDENT)).revision

    with pytest.raises(NotAllowedError, match="Bob Brandt"):
        await getattr(room.desk, name)("plan-1", room.person("alice"))

    [refusal] = await room.refusals()
    assert (refusal.actor, refusal.details["what"], refusal.details["about"]) == ("alice", name, "plan-1")
    assert "Bob Brandt" in refusal.details["why"]
    assert (await room.store.plans.get("plan-1")).state is PlanState.PROPOSED
    assert (await room.store.incidents.get(INCIDENT)).revision > revision
    assert room.rings == 1


async def test_a_strangers_click_is_put_on_record(room: Room) -> None:
    """A button's value may be a plan, a plan with a step, or an incident; each finds its incident."""
    await room.offered()

    for subject in ("plan-1", "plan-1:0", INCIDENT):
        await room.desk.refused(who="T1/UMALLORY", what="approve", why="nobody knows them", subject=subject)

    refusals = await room.refusals()
    assert [row.details["about"] for row in refusals] == ["plan-1", "plan-1:0", INCIDENT]
    assert {row.actor for row in refusals} == {"T1/UMALLORY"}


async def test_a_rediagnosis_takes_the_next_number_once(room: Room) -> None:
    """While one waits or runs, another click changes nothing."""
    await room.store.page()
    await diagnosed(room.store)

    for _ in range(3):
        await room.desk.rediagnose(INCIDENT, room.person("bob"))

    assert (await room.store.incidents.get(INCIDENT)).run == 2
    assert (INCIDENT, 2) in await room.store.incidents.runs_to_start()
    assert [action for _, action in await room.on_record()].count("diagnosis.requested") == 1


async def test_an_approval_is_ready_to_start(room: Room) -> None:
    """Committed when the call returns; the sweep does the rest."""
    await room.offered()

    await room.desk.approve("plan-1", room.person("bob"))

    assert await room.store.plans.to_start() == [("plan-1", 1)]
    assert room.rings == 1


async def test_a_denial_is_final(room: Room) -> None:
    """Nobody can approve it afterwards."""
    await room.offered()

    await room.desk.deny("plan-1", room.person("dana"))

    with pytest.raises(AlreadyDecidedError):
        await room.desk.approve("plan-1", room.person("bob"))
    assert await room.store.plans.to_start() == []


async def test_whoever_requests_a_fix_leaves_the_approval_to_another(room: Room) -> None:
    """Bob would be allowed to approve it, had he not asked for it; the refusal is on record."""
    await room.store.page()
    await room.store.offer(fresh_plan(room.store), state=PlanState.ALTERNATIVE)

    await room.desk.request("plan-1", room.person("bob"))
    with pytest.raises(NotAllowedError, match="somebody else"):
        await room.desk.approve("plan-1", room.person("bob"))
    await room.desk.approve("plan-1", room.person("dana"))

    row = await room.store.plans.get("plan-1")
    assert (row.state, row.plan.requester) == (PlanState.APPROVED, "bob")
    assert [(each.actor, each.details["what"]) for each in await room.refusals()] == [("bob", "approve")]


@pytest.mark.parametrize("deed", ["approve", "deny", "request", "undo"])
async def test_an_unknown_plan_is_not_found(room: Room, deed: str) -> None:
    """A button of another installation."""
    with pytest.raises(NotFoundError):
        await getattr(room.desk, deed)("plan-nowhere", room.person("bob"))


async def _in_doubt(room: Room, **more: Any) -> None:
    await room.approved(**more)
    room.action.fails, room.action.probe = OutcomeUnknownError("connection reset"), Happened.CANNOT_TELL
    await room.tell()
    assert (await room.end())[0] is PlanState.IN_DOUBT


@pytest.mark.parametrize(
    ("answer", "end", "acts"),
    [
        ("ran", PlanState.VERIFIED, [7]),
        ("did_not_run", PlanState.VERIFIED, [7, 7]),
        ("stop", PlanState.FAILED, [7]),
    ],
)
async def test_a_persons_answer_settles_a_doubt(room: Room, answer: str, end: PlanState, acts: list[int]) -> None:
    """It ran: verify. It did not: do it. Stop: end it. The answer and the name are on record."""
    await _in_doubt(room)
    room.action.value, room.action.fails = 8, None

    await room.desk.settle("plan-1", 0, answer, room.person("bob"))
    assert await room.store.plans.to_start() == [("plan-1", 2)]
    await room.tell(chapter=2)

    assert (await room.end())[0] is end
    assert room.action.acts == acts
    assert ("bob", "step.settled") in await room.on_record()


async def test_a_doubt_is_settled_once(room: Room) -> None:
    """Two people answer at the same time; the second is told so."""
    await _in_doubt(room)
    await room.desk.settle("plan-1", 0, "ran", room.person("bob"))

    with pytest.raises((AlreadyDecidedError, StaleError)):
        await room.desk.settle("plan-1", 0, "did_not_run", room.person("dana"))

    assert [entry.kind for entry in await room.store.journal.read("plan-1")].count("settled") == 1


async def test_only_the_step_in_doubt_can_be_answered_for(room: Room) -> None:
    """A click on an older card names a step that is done; it must not spoil the journal."""
    await _in_doubt(room)

    for number in (1, 99):
        with pytest.raises(StaleError):
            await room.desk.settle("plan-1", number, "ran", room.person("bob"))

    assert [entry.kind for entry in await room.store.journal.read("plan-1")] == ["intent", "probed"]
    assert (await room.end())[0] is PlanState.IN_DOUBT


async def test_whoever_may_not_approve_may_not_settle(room: Room) -> None:
    """And the attempt is on record."""
    await _in_doubt(room)

    with pytest.raises(NotAllowedError):
        await room.desk.settle("plan-1", 0, "ran", room.person("alice"))

    assert [(row.actor, row.details["what"]) for row in await room.refusals()] == [("alice", "settle")]


async def test_an_answer_is_one_of_three(room: Room) -> None:
    """The value of a button comes from outside."""
    await _in_doubt(room)

    with pytest.raises(StaleError, match="maybe"):
        await room.desk.settle("plan-1", 0, "maybe", room.person("bob"))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "somebody to look"),
        (PlanState.PROPOSED, "an approval"),
        (PlanState.RUNNING, "a fix that is running"),
        (PlanState.IN_DOUBT, "a person's answer about a step in doubt"),
    ],
)
async def test_the_status_says_what_each_incident_waits_for(room: Room, state: PlanState | None, words: str) -> None:
    """One line for every open incident, with the cause as far as it is known."""
    await room.store.page()
    if state is not None:
        await room.store.offer(fresh_plan(room.store), state=state)
    await diagnosed(room.store, FOUND)

    [line] = await room.desk.status()

    assert (line.incident_id, line.service, line.state, line.waiting_for) == (INCIDENT, "chat", "triggered", words)
    assert line.cause == "A prompt change broke the prefix cache (91%)"


async def test_the_status_leaves_resolved_incidents_out(room: Room) -> None:
    """And one that is not diagnosed yet is in it."""
    await _resolved(room)
    await room.store.page(incident_id="Q0OTHER", event_id="other", service_id="PX", service_name="Storage")

    [line] = await room.desk.status()

    assert (line.incident_id, line.service, line.cause) == ("Q0OTHER", "Storage", "not known yet")


async def test_search_finds_runbooks_by_a_persons_words(room: Room) -> None:
    """By words alone, before the model is loaded."""
    await room.runbooks.refresh([document(replace(RUNBOOK, sections=(("Symptoms", "The prefix cache is cold."),)))])

    hits = await room.desk.search("prefix cache cold")

    assert [hit.doc_id for hit in hits] == [RUNBOOK.runbook_id]


async def test_a_person_who_left_the_configuration_does_not_count(tmp_path: Path) -> None:
    """Bob approved; then he is taken out, the product restarts, and the plan must not start."""
    url = f"sqlite:///{tmp_path}/store.sqlite"
    async with open_store(url, config_in(tmp_path)) as store:
        room = Room(store)
        await room.approved()
        digest_policy = store.policy.version
    text = CONFIG.replace('prompt-owner = ["bob"]', 'prompt-owner = ["dana"]').replace('id = "bob"', 'id = "robert"')
    async with open_store(url, config_in(tmp_path, text)) as later:
        later.policy.version = digest_policy
        approvals = Approvals(plans=later.plans, incidents=later.incidents, people=later.people, policy=later.policy)

        with pytest.raises(StaleError, match="bob approved it and is not in the configuration any more"):
            await approvals.still_hold(await later.plans.get("plan-1"), now=datetime.now(UTC))


async def test_the_secondary_is_paged_once_and_only_for_who_waits(room: Room) -> None:
    """One of two people has approved: anybody with a role may ask for another one, and the count stays."""
    await room.offered(steps=(step(tier=Tier.R2),))
    with pytest.raises(StaleError, match="Nobody waits"):
        await room.desk.escalate("plan-1", room.person("dana"))
    await room.desk.approve("plan-1", room.person("dana"))

    await room.desk.escalate("plan-1", room.person("dana"))

    with pytest.raises(AlreadyDecidedError, match="paged for this already"):
        await room.desk.escalate("plan-1", room.person("paul"))
    [parcel] = await room.store.outbox.due("pagerduty", now=datetime.now(UTC))
    assert (parcel.kind, parcel.content["name"]) == ("escalate", "Dana Diaz")
    assert ("dana", "plan.escalated") in await room.on_record()
    assert (await room.store.plans.get("plan-1")).state is PlanState.PROPOSED
