"""The card says what is on record, in every state that an incident and its fix can be in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.card import Cards
from bot.incidents import NotFoundError, PlanState
from bot.policy import Policy
from bot.slack import blocks
from bot.slack.view import CardState, CardView, PlanLine, StepState
from bot.store.audit import AuditLog
from bot.store.past import PastIncidents
from diagnostics.findings import Status
from runbooks.engine.records import Probed, Record, Verified, record_json
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.bot.test_remediate import FRAME_JSON, SIGN, Scene
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event, step
from tests.stories import FOUND, HIT, RUNBOOK, diagnosed, fresh_plan, without


class Wall(Scene):
    """A story, and the card that shows it."""

    def __init__(self, store: Store, statuses: Sequence[Status] = (Status.OK,)) -> None:
        super().__init__(store, statuses)
        self.past = PastIncidents(store.database, lambda _: RUNBOOK.causes)
        self.cards = Cards(
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            outbox=store.outbox,
            switch=store.switch,
            record=AuditLog(store.database),
            past=self.past,
            votes=store.votes,
            config=store.config,
            policy=store.policy,
        )

    async def view(self) -> CardView:
        """The card now; whatever it is, Slack can be sent it."""
        view = await self.cards.view(INCIDENT)
        assert blocks.card(view).text
        return view

    async def plan_line(self) -> PlanLine:
        line = (await self.view()).plan
        assert line is not None
        return line

    async def diagnosed(self, **more: Any) -> None:
        await self.store.page()
        await diagnosed(self.store, **more)

    async def happens(self, kind: str, minute: int = 1) -> None:
        """PagerDuty says so."""
        await self.store.inbox.deliver(event(kind, at=NOW + timedelta(minutes=minute)), now=NOW)
        await self.store.inbox.fold(now=NOW)


@pytest.fixture
def wall(store: Store) -> Wall:
    """Checks say that fixes help."""
    return Wall(store)


async def test_nobody_draws_an_incident_that_is_not_known(wall: Wall) -> None:
    """There is no such card."""
    with pytest.raises(NotFoundError):
        await wall.cards.view("Q0NOWHERE")


async def test_the_first_card_says_what_the_page_says(wall: Wall) -> None:
    """Within two seconds there is only the webhook."""
    await wall.store.page()

    view = await wall.view()

    assert (view.state, view.service, view.number, view.environment) == (CardState.DIAGNOSING, "chat", 7, "prod")
    assert view.assignees == ("Alice Ahn",)
    assert view.paged_at == NOW
    assert (view.causes, view.plan, view.deeds, view.troubles) == ((), None, (), ())


async def test_an_unconfigured_service_is_shown_and_not_dropped(wall: Wall) -> None:
    """PagerDuty's own name has to do."""
    await wall.store.page(service_id="PX", service_name="Storage")

    view = await wall.view()

    assert (view.is_configured, view.service, view.environment) == (False, "Storage", "")


async def test_a_diagnosis_becomes_the_card(wall: Wall) -> None:
    """Causes, evidence with what is bad first, the suspect and the others, runbook, blind spots, what to check next."""
    await wall.diagnosed()

    view = await wall.view()

    assert view.state is CardState.OPEN
    assert [(cause.cause, cause.probability) for cause in view.causes] == [("S04", 0.91), ("S01", 0.05)]
    assert [line.status for line in view.evidence] == [Status.BAD, Status.OK]
    assert view.suspect is not None
    assert view.suspect.before_onset_s == 60
    assert len(view.other_suspects) == 1
    assert view.runbook is not None
    assert (view.runbook.title, view.other_runbooks) == (HIT.title, ())
    assert view.since == FOUND.since
    assert [spot.sentence for spot in view.blind_spots] == ["token cost (it is not exported)"]
    assert (view.asked, view.unanswered) == (len(FOUND.findings), 0)
    assert (view.next_check, view.diagnosis_s, view.user_impact) == ("the logs of the engine", 1.5, True)


async def test_a_diagnosis_without_causes_is_shown_too(wall: Wall) -> None:
    """Nothing found is a verdict."""
    await wall.diagnosed(found=without(FOUND, causes=(), findings=(), suspects=(), since=None), hits=())

    view = await wall.view()

    assert (view.causes, view.evidence, view.suspect, view.runbook, view.since) == ((), (), None, None, None)


async def test_the_state_follows_pagerduty(wall: Wall) -> None:
    """Acknowledged, then resolved; a click shows at once who it was, the state waits for PagerDuty."""
    await wall.diagnosed()
    await wall.store.incidents.asked(INCIDENT, "acknowledge", key="k", by=wall.store.person("bob"), now=NOW)
    assert ((await wall.view()).state, (await wall.view()).acknowledged_by) == (CardState.OPEN, "Bob Brandt")

    await wall.happens("incident.acknowledged")
    assert (await wall.view()).state is CardState.ACKNOWLEDGED
    await wall.happens("incident.resolved", minute=2)

    view = await wall.view()
    assert view.state is CardState.RESOLVED
    assert view.is_over
    assert view.deeds[-1].did == "acknowledged the incident"


async def test_a_second_diagnosis_is_diagnosing_again(wall: Wall) -> None:
    """The old run can still be looked at by its number."""
    await wall.diagnosed()
    await wall.store.incidents.ask_again(INCIDENT, by="bob", now=NOW)

    view = await wall.view()

    assert (view.state, view.run, view.causes) == (CardState.DIAGNOSING, 2, ())
    assert (view.deeds[-1].who, view.deeds[-1].did) == ("Bob Brandt", "asked for another diagnosis")
    assert (await wall.cards.view(INCIDENT, 1)).causes[0].cause == "S04"


async def test_a_proposed_fix_says_who_may_approve_it(wall: Wall) -> None:
    """Roles with the people who have them now, how many are needed, until when."""
    await wall.diagnosed()
    item = await wall.store.offer(fresh_plan(wall.store))

    line = await wall.plan_line()

    assert (line.state, line.tier, line.needed, line.expires_at) == (PlanState.PROPOSED, Tier.R1, 1, item.expires_at)
    assert line.may_approve == ("prompt-owner (Bob Brandt) or service-owner (Dana Diaz)",)
    assert (line.approved_by, line.requester, line.can_undo, line.is_undo) == ((), "", False, False)
    assert [(each.effect, each.state) for each in line.steps] == [("Set the thing from 8 to 7.", StepState.WAITING)]
    assert line.steps[0].undo == "fake.set to: 8"


async def test_half_of_the_approvals_are_shown(wall: Wall) -> None:
    """Two are needed; Dana's stands, and the fix still waits."""
    await wall.diagnosed()
    await wall.store.offer(fresh_plan(wall.store, steps=(step(tier=Tier.R2),)))
    await wall.approvals.approve("plan-1", by=wall.store.person("dana"), now=datetime.now(UTC))

    line = await wall.plan_line()

    assert (line.state, line.needed, line.approved_by) == (PlanState.PROPOSED, 2, ("Dana Diaz (service-owner)",))


async def test_a_requested_fix_names_who_asked_for_it(wall: Wall) -> None:
    """Alternatives are choices until somebody asks for one; then the others stay choices."""
    await wall.diagnosed()
    for number, rank in ((1, 0), (2, 1)):
        item = fresh_plan(wall.store, plan_id=f"plan-{number}")
        await wall.store.offer(item, rank=rank, state=PlanState.ALTERNATIVE)
    assert [choice.plan_id for choice in (await wall.view()).other_fixes] == ["plan-1", "plan-2"]

    await wall.approvals.request("plan-2", by=wall.store.person("bob"), now=datetime.now(UTC))

    view = await wall.view()
    assert view.plan is not None
    assert (view.plan.plan_id, view.plan.requester) == ("plan-2", "Bob Brandt")
    assert [choice.plan_id for choice in view.other_fixes] == ["plan-1"]
    assert view.deeds[-1].did == "requested another fix"


async def test_a_running_fix_offers_no_other(wall: Wall) -> None:
    """One at a time; the step that runs is seen running."""
    await wall.store.page()
    item = await wall.approved()
    await wall.store.offer(fresh_plan(wall.store, plan_id="plan-2"), rank=1, state=PlanState.ALTERNATIVE)
    assert (await wall.view()).other_fixes == ()
    await wall.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "t"}
    await wall.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)

    line = await wall.plan_line()

    assert (line.state, line.steps[0].state) == (PlanState.RUNNING, StepState.RUNNING)
    assert line.approved_by == ("Bob Brandt (prompt-owner)",)
    assert (await wall.view()).other_fixes == ()
    assert not line.can_undo


async def test_a_fix_that_was_made_is_being_verified(wall: Wall) -> None:
    """The act has ended, the telemetry has not answered yet."""
    await wall.approved()
    await wall.story.begin("plan-1", 1)
    await wall.story.move_on("plan-1")

    assert [each.state for each in (await wall.plan_line()).steps] == [StepState.VERIFYING]


async def test_what_had_happened_already_is_said_and_not_taken_back(wall: Wall) -> None:
    """Nobody acted, so there is nothing of ours to undo; also after the telemetry said that all is well."""
    item = await wall.approved(steps=(step(check=SIGN),))
    await wall.story.begin("plan-1", 1)
    already = Probed(step=0, happened=Happened.YES, already=True)
    well = Verified(step=0, status="ok", summary="The first token is in time.")
    records: list[Record] = [already, well]
    for position, record in enumerate(records, start=1):
        told = record_json(record)
        await wall.store.journal.append(item, position=position, step=0, kind=record.kind, record=told, now=NOW)

    line = await wall.plan_line()

    assert line.steps[0].state is StepState.VERIFIED
    assert line.steps[0].note == "had happened already; The first token is in time."
    assert not line.can_undo


async def test_a_verified_fix_says_what_the_telemetry_said(wall: Wall) -> None:
    """It may be undone all the same."""
    await wall.approved()
    await wall.tell()

    line = await wall.plan_line()

    assert (line.state, line.steps[0].state, line.can_undo) == (PlanState.VERIFIED, StepState.VERIFIED, True)
    assert "is ok" in line.steps[0].note
    assert (await wall.view()).deeds[-1].did == "approved the fix"


async def test_a_fix_that_did_not_help_is_offered_for_undo(store: Store) -> None:
    """The button is there, and so is what the checks said."""
    wall = Wall(store, [Status.BAD])
    await wall.approved()
    await wall.tell()

    line = await wall.plan_line()

    assert (line.state, line.steps[0].state, line.can_undo) == (PlanState.NOT_VERIFIED, StepState.NOT_VERIFIED, True)
    assert "is bad" in line.why


async def test_a_refused_action_has_nothing_to_undo(wall: Wall) -> None:
    """It failed, and why."""
    await wall.approved()
    wall.action.fails, wall.action.takes_effect = ActionError("403 forbidden"), False
    await wall.tell()

    line = await wall.plan_line()

    assert (line.state, line.steps[0].state, line.steps[0].note) == (
        PlanState.FAILED,
        StepState.FAILED,
        "403 forbidden",
    )
    assert not line.can_undo


async def test_a_doubt_names_its_step(wall: Wall) -> None:
    """The buttons that settle it carry the step that is in doubt."""
    await wall.approved()
    wall.action.fails, wall.action.probe = OutcomeUnknownError("connection reset"), Happened.CANNOT_TELL
    await wall.tell()

    line = await wall.plan_line()

    assert (line.state, line.doubt_step, line.steps[0].state) == (PlanState.IN_DOUBT, 0, StepState.IN_DOUBT)
    assert not line.can_undo


async def test_a_stopped_doubt_offers_no_undo_that_would_be_refused(wall: Wall) -> None:
    """Nobody knows that it took place, so there is nothing that could be taken back."""
    await wall.approved()
    wall.action.fails, wall.action.probe = OutcomeUnknownError("connection reset"), Happened.CANNOT_TELL
    await wall.tell()
    item = (await wall.store.plans.get("plan-1")).plan
    said = {"kind": "settled", "step": 0, "answer": "stop", "person": "bob"}
    await wall.store.journal.settle(item, position=3, step=0, record=said, by="bob", now=NOW)
    await wall.tell(chapter=2)

    line = await wall.plan_line()

    assert (line.state, line.steps[0].state, line.can_undo) == (PlanState.FAILED, StepState.SKIPPED, False)
    assert (await wall.view()).deeds[-1].did == "answered for a step in doubt"


async def test_a_persons_own_step_waits_for_their_answer(wall: Wall) -> None:
    """A manual step has no intent and is asked about all the same."""
    await wall.store.page()
    item = fresh_plan(wall.store, frame=FRAME_JSON, steps=(step(), step(index=1, target="fake/thing/two")))
    await wall.store.offer(item, state=PlanState.WAITING)
    records: list[Mapping[str, Any]] = [
        {"kind": "intent", "step": 0, "token": "t"},
        {"kind": "outcome", "step": 0, "ok": True},
        {"kind": "verified", "step": 0, "status": "ok"},
    ]
    for position, record in enumerate(records, start=1):
        await wall.store.journal.append(
            item, position=position, step=0, kind=str(record["kind"]), record=record, now=NOW
        )

    assert (await wall.plan_line()).doubt_step == 1


async def test_a_denied_fix_names_who_denied_it(wall: Wall) -> None:
    """It stays on the card as what ended last."""
    await wall.diagnosed()
    await wall.store.offer(fresh_plan(wall.store))
    await wall.approvals.deny("plan-1", by=wall.store.person("dana"), now=datetime.now(UTC))

    line = await wall.plan_line()

    assert (line.state, line.decided_by, line.approved_by) == (PlanState.DENIED, "Dana Diaz", ())
    assert (await wall.view()).deeds[-1].did == "denied the fix"


@pytest.mark.parametrize("state", [PlanState.EXPIRED, PlanState.STALE])
async def test_a_fix_whose_time_is_over_says_why(wall: Wall, state: PlanState) -> None:
    """Expired or stale."""
    await wall.diagnosed()
    item = await wall.store.offer(fresh_plan(wall.store))
    await wall.store.plans.end(item, state, "because", now=NOW, expected=[PlanState.PROPOSED])

    line = await wall.plan_line()

    assert (line.state, line.why, line.can_undo) == (state, "because", False)


async def test_a_superseded_offer_is_not_shown(wall: Wall) -> None:
    """It never ran and nobody decided on it; the newer one stands in its place."""
    await wall.diagnosed()
    await wall.store.offer(fresh_plan(wall.store))
    await wall.store.incidents.ask_again(INCIDENT, by="bob", now=NOW)
    newer = fresh_plan(wall.store, plan_id="plan-2")
    await wall.store.plans.save(newer, run=2, rank=0, state=PlanState.PROPOSED, now=NOW)

    view = await wall.view()

    assert view.plan is not None
    assert (view.plan.plan_id, view.earlier_plans) == ("plan-2", ())


async def test_what_runs_goes_before_what_waits(wall: Wall) -> None:
    """And what is over is kept beneath it."""
    await wall.diagnosed()
    for rank, state in enumerate((PlanState.DENIED, PlanState.PROPOSED, PlanState.RUNNING)):
        await wall.store.offer(fresh_plan(wall.store, plan_id=f"plan-{state}"), rank=rank, state=state)

    view = await wall.view()

    assert view.plan is not None
    assert view.plan.plan_id == "plan-running"
    assert [line.plan_id for line in view.earlier_plans] == ["plan-denied"]


async def test_an_undo_is_shown_as_one_and_the_fix_cannot_be_undone_again(wall: Wall) -> None:
    """While it runs and after it is done."""
    await wall.approved()
    await wall.tell()
    undo = fresh_plan(wall.store, plan_id="plan-2", undoes="plan-1", title="Undo: Prefix cache collapsed")
    await wall.store.offer(undo, rank=1, state=PlanState.RUNNING)
    assert (await wall.plan_line()).is_undo

    await wall.store.plans.end(undo, PlanState.DONE, "", now=datetime.now(UTC), expected=[PlanState.RUNNING])

    view = await wall.view()
    assert {line.plan_id: line.can_undo for line in (view.plan, *view.earlier_plans) if line} == {
        "plan-1": False,
        "plan-2": False,
    }


async def test_a_refused_click_is_a_deed_on_the_card(wall: Wall) -> None:
    """Everybody sees that somebody tried, and what; a stranger by their account, a colleague by name."""
    await wall.diagnosed()
    for who in ("T1/UMALLORY", "alice"):
        await wall.store.incidents.refused(INCIDENT, who=who, what="approve", why="no", about="plan-1", now=NOW)

    deeds = (await wall.view()).deeds

    assert [(deed.who, deed.did) for deed in deeds] == [
        ("T1/UMALLORY", "was refused: approve"),
        ("Alice Ahn", "was refused: approve"),
    ]


async def test_what_could_not_be_told_is_a_trouble(wall: Wall) -> None:
    """Beside the notes of the diagnosis itself."""
    await wall.diagnosed()
    await wall.store.incidents.record(INCIDENT, 1, notes=["PagerDuty did not give the alert's details: 503"])
    await wall.store.outbox.post(key="k", incident_id=INCIDENT, lane="pagerduty", kind="verdict", now=NOW)
    [parcel] = await wall.store.outbox.due("pagerduty", now=NOW)
    await wall.store.outbox.give_up(parcel.outbox_id, why="403", incident_id=INCIDENT)

    assert (await wall.view()).troubles == (
        "PagerDuty did not give the alert's details: 503",
        "pagerduty did not take verdict: 403",
    )


async def test_why_there_is_no_fix_stands_in_its_place(wall: Wall) -> None:
    """And not among the troubles, too."""
    await wall.diagnosed()
    await wall.store.incidents.record(INCIDENT, 1, notes=["No fix can be offered: no runbook fits."])

    view = await wall.view()

    assert (view.plan, view.no_plan_because, view.troubles) == (None, "No fix can be offered: no runbook fits.", ())


async def test_a_resolved_incident_offers_nothing_new(wall: Wall) -> None:
    """No choices; what was done stays."""
    await wall.approved()
    await wall.tell()
    await wall.store.offer(fresh_plan(wall.store, plan_id="plan-2"), rank=1, state=PlanState.ALTERNATIVE)
    assert (await wall.view()).other_fixes
    await wall.happens("incident.resolved")

    view = await wall.view()

    assert (view.state, view.other_fixes) == (CardState.RESOLVED, ())
    assert view.plan is not None
    assert view.plan.state is PlanState.VERIFIED
    assert view.resolved_by == "Watchkeeper"


async def test_observe_mode_offers_no_fixes(wall: Wall, tmp_path: Any) -> None:
    """The card knows it from the configuration."""
    await wall.diagnosed()
    config = config_in(tmp_path, CONFIG.replace('mode = "approve"', 'mode = "observe"'))
    store = wall.store
    cards = Cards(
        incidents=store.incidents,
        plans=store.plans,
        journal=store.journal,
        outbox=store.outbox,
        switch=store.switch,
        record=AuditLog(store.database),
        past=PastIncidents(store.database, lambda _: ()),
        votes=store.votes,
        config=config,
        policy=Policy(config),
    )

    assert not (await cards.view(INCIDENT)).offers_fixes


FREEZE = """
[[freeze]]
name = "always"
start = 2020-01-01T00:00:00Z
end = 2120-01-01T00:00:00Z
reason = "the year's accounts"
"""


@pytest.mark.parametrize(
    ("text", "offers", "hold"),
    [
        (CONFIG.replace('mode = "approve"', 'mode = "suggest"'), False, "nothing runs from here"),
        (CONFIG + FREEZE, True, "rest until Mon 01 Jan 2120, 00:00 UTC (always: the year's accounts)"),
    ],
)
async def test_what_holds_a_fix_up_is_said_instead_of_who_may_approve(
    wall: Wall,
    tmp_path: Any,
    text: str,
    offers: bool,  # noqa: FBT001 - a parameter of the test
    hold: str,
) -> None:
    """The fix is shown to be read; in mode suggest without buttons."""
    await wall.diagnosed()
    await wall.store.offer(fresh_plan(wall.store))
    config = config_in(tmp_path, text)
    store = wall.store
    cards = Cards(
        incidents=store.incidents,
        plans=store.plans,
        journal=store.journal,
        outbox=store.outbox,
        switch=store.switch,
        record=AuditLog(store.database),
        past=PastIncidents(store.database, lambda _: ()),
        votes=store.votes,
        config=config,
        policy=Policy(config),
    )

    view = await cards.view(INCIDENT)
    shown = json.dumps(blocks.card(view).blocks, ensure_ascii=False)

    assert view.plan is not None
    assert (view.offers_fixes, hold in view.plan.hold) == (offers, True)
    assert hold in shown
    assert ("May approve" in shown, "Approve fix" in shown) == (False, offers)


async def test_a_person_who_left_is_named_by_their_id(wall: Wall, tmp_path: Any) -> None:
    """The record outlives the configuration."""
    await wall.diagnosed()
    gone = replace(wall.store.person("bob"), person_id="former", name="Former Colleague")
    await wall.store.incidents.asked(INCIDENT, "acknowledge", key="k", by=gone, now=NOW)

    assert (await wall.view()).acknowledged_by == "former"
