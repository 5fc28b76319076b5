"""The story from the page to the verdict: each step writes down what it found, and none can be told twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.approvals import Approvals
from bot.config import Config
from bot.feedback import AdoptedExperience
from bot.incidents import Incident, PlanState, StaleError
from bot.pagerduty_client import PagerDutyError
from bot.policy import Policy
from bot.respond import ALERTS, Respond, alert_name, alerts_of, confined_to, diagnosis_of, question
from bot.store.audit import AuditLog
from bot.store.incidents import Run
from diagnostics.diagnosis import Diagnosis, Scope
from diagnostics.findings import Finding, Measure
from retrieval.documents import Hit
from runbooks.engine.actions.manual import Manual
from runbooks.engine.values import Runbook
from tests.bot.test_remediate import FakeAction, call
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in
from tests.stories import ALERT, FOUND, HARMLESS, HIT, RUNBOOK, FakeLook, FakePagerDuty, FakeSearch


class Scene:
    """A page, and everything that answers it."""

    def __init__(
        self,
        store: Store,
        *,
        found: Diagnosis | None = FOUND,
        hits: Sequence[Hit] = (HIT,),
        books: Sequence[Runbook] = (RUNBOOK,),
        config: Config | None = None,
    ) -> None:
        self.store = store
        self.trouble = ""
        self.pagerduty = FakePagerDuty()
        self.search = FakeSearch(*hits)
        self.look = FakeLook(found)
        self.action = FakeAction()
        self.approvals = Approvals(
            plans=store.plans,
            incidents=store.incidents,
            people=store.people,
            policy=Policy(config or store.config),
            record_trouble=self.record_trouble,
        )
        self.story = Respond(
            incidents=store.incidents,
            plans=store.plans,
            outbox=store.outbox,
            config=config or store.config,
            approvals=self.approvals,
            diagnosers={"chat": self.look},  # type: ignore[dict-item]  # a fake
            by_experience=AdoptedExperience(store.rankings, store.config).order,
            search=self.search,  # type: ignore[arg-type]  # a fake
            runbooks=lambda: {book.runbook_id: book for book in books},
            actions={"fake.set": self.action, "manual": Manual()},
            pagerduty=self.pagerduty,
        )

    async def record_trouble(self) -> str:
        """The record is sound unless a test says otherwise."""
        return self.trouble

    async def tell(self) -> None:
        await self.story.tell(INCIDENT, 1, call)

    async def run(self) -> Run:
        run = await self.store.incidents.run(INCIDENT, 1)
        assert run is not None
        return run

    async def plans(self) -> list[tuple[PlanState, str]]:
        """State and effect of every plan, best first."""
        rows = await self.store.plans.of_incident(INCIDENT)
        return [(row.state, row.plan.steps[0].effect) for row in rows]

    async def told(self, lane: str) -> list[str]:
        """What waits in a lane, in order."""
        kinds = []
        while parcels := await self.store.outbox.due(lane, now=NOW + timedelta(days=9000)):
            kinds.append(parcels[0].kind)
            await self.store.outbox.delivered(parcels[0].outbox_id)
        return kinds


@pytest.fixture
async def scene(store: Store) -> Scene:
    """The pager has just gone off, and the first card stands."""
    await store.page()
    await store.incidents.card_shown(INCIDENT, 1, "C0INC", "1700000000.000100", now=NOW, next_at=NOW)
    return Scene(store)


async def test_a_page_becomes_a_verdict_and_a_fix(scene: Scene) -> None:
    """Alerts, diagnosis, runbooks and plan are in the store; the thread and PagerDuty have something to be told."""
    await scene.tell()

    run = await scene.run()
    assert run.state == "done"
    assert alerts_of(run) == [ALERT]
    assert diagnosis_of(run) == FOUND
    assert not run.notes
    assert (await scene.plans())[0] == (PlanState.PROPOSED, "Set the thing from 8 to 7.")
    assert await scene.told("slack") == ["evidence", "picture", "signals"]
    assert await scene.told("pagerduty") == ["verdict"]


async def test_the_verdict_is_on_record(scene: Scene) -> None:
    """Cause and probability, once."""
    await scene.tell()

    made = [row for row in await AuditLog(scene.store.database).about(INCIDENT) if row.action == "diagnosis.made"]
    assert [row.details for row in made] == [{"run": 1, "cause": "S04", "probability": 0.91}]


async def test_the_proposed_plan_holds_what_its_approval_needs(scene: Scene) -> None:
    """The diagnosis' frame to verify against, the guilty change, and the policy under which it was made."""
    await scene.tell()

    [first, _] = await scene.store.plans.of_incident(INCIDENT)
    assert first.plan.suspect == FOUND.culprit_change
    assert first.plan.frame["baseline_end"] == FOUND.frame.baseline_end.isoformat().replace("+00:00", "Z")
    assert first.plan.policy_version == scene.store.config.policy_version
    assert first.digest == first.plan.digest


async def test_another_suspect_is_an_alternative_only(scene: Scene) -> None:
    """The harmless change could be rolled back too, but a person has to ask for it."""
    await scene.tell()

    assert await scene.plans() == [
        (PlanState.PROPOSED, "Set the thing from 8 to 7."),
        (PlanState.ALTERNATIVE, "Set the thing from 8 to 3."),
    ]


async def test_without_a_culprit_nothing_is_proposed(store: Store) -> None:
    """Suspects that nobody could tell apart are choices for a person."""
    await store.page()
    scene = Scene(store, found=replace(FOUND, culprit_change=None))

    await scene.tell()

    assert {state for state, _ in await scene.plans()} == {PlanState.ALTERNATIVE}


@pytest.mark.parametrize(
    ("probability", "state"), [(0.30, PlanState.PROPOSED), (0.29, PlanState.ALTERNATIVE), (0.0, PlanState.ALTERNATIVE)]
)
async def test_a_fix_is_proposed_for_a_likely_cause_only(store: Store, probability: float, state: PlanState) -> None:
    """From 30 % on; below it waits to be asked for."""
    await store.page()
    scene = Scene(store, found=replace(FOUND, causes=(replace(FOUND.causes[0], probability=probability),)))

    await scene.tell()

    assert (await scene.plans())[0][0] is state


async def test_a_runbook_for_another_cause_is_not_proposed(store: Store) -> None:
    """Search found it by its words, but it treats what nobody has."""
    await store.page()
    scene = Scene(store, books=(replace(RUNBOOK, causes=("S11",)),))

    await scene.tell()

    assert {state for state, _ in await scene.plans()} == {PlanState.ALTERNATIVE}


async def test_a_better_fitting_runbook_further_down_is_proposed_first(store: Store) -> None:
    """What treats the cause goes before what merely reads alike."""
    await store.page()
    other = replace(
        RUNBOOK, runbook_id="other", title="Other", causes=(), steps=(replace(RUNBOOK.steps[0], params={"to": "1"}),)
    )
    scene = Scene(store, books=(other, RUNBOOK), hits=(replace(HIT, doc_id="other"), HIT))

    await scene.tell()

    assert (await scene.plans())[0] == (PlanState.PROPOSED, "Set the thing from 8 to 7.")
    assert (PlanState.ALTERNATIVE, "Set the thing from 8 to 1.") in await scene.plans()


async def test_what_we_can_carry_out_goes_before_what_asks_a_person(store: Store) -> None:
    """For the same cause; search may have found the page that asks a person first."""
    await store.page()
    by_hand = replace(RUNBOOK.steps[0], action="manual", params={"instruction": "Set the thing back."}, undo="")
    asks = replace(RUNBOOK, runbook_id="asks", title="By hand", steps=(by_hand,))
    scene = Scene(store, books=(asks, RUNBOOK), hits=(replace(HIT, doc_id="asks"), HIT))

    await scene.tell()

    assert [state for state, _ in await scene.plans()] == [PlanState.PROPOSED, *[PlanState.ALTERNATIVE] * 2]
    assert [effect for _, effect in await scene.plans()][:2] == [
        "Set the thing from 8 to 7.",
        "A person does this by hand: Set the thing back.",
    ]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_cannot_be_planned_for_the_guilty_one_asks_a_person(store: Store, *, is_known: bool) -> None:
    """Otherwise the harmless change's fix would be all there is; whoever is guilty, a person has the page's words."""
    await store.page()
    culprit = FOUND.suspects[0]
    undo = culprit.change.undo if is_known else {}
    suspects = (replace(culprit, change=replace(culprit.change, undo=undo)), *FOUND.suspects[1:])
    book = replace(RUNBOOK, steps=(replace(RUNBOOK.steps[0], otherwise="Set the thing of {service} back."),))
    scene = Scene(store, found=replace(FOUND, suspects=suspects), books=(book,))

    await scene.tell()

    by_hand = (PlanState.PROPOSED, "A person does this by hand: Set the thing of chat back.")
    first = (PlanState.PROPOSED, "Set the thing from 8 to 7.") if is_known else by_hand
    assert await scene.plans() == [first, (PlanState.ALTERNATIVE, "Set the thing from 8 to 3.")]
    assert not (await scene.run()).notes


async def test_plans_with_the_same_effect_are_one(store: Store) -> None:
    """A runbook that names no suspect would give one plan per suspect."""
    await store.page()
    book = replace(RUNBOOK, steps=(replace(RUNBOOK.steps[0], params={"to": "5"}),))
    scene = Scene(store, books=(book,))

    await scene.tell()

    assert await scene.plans() == [(PlanState.PROPOSED, "Set the thing from 8 to 5.")]


@pytest.mark.parametrize(
    ("pods", "nodes"),
    [
        (("engine-1",), ("gpu-1",)),
        (("engine-2",), ("gpu-2", "gpu-3")),
        (("engine-9",), ()),
        (("engine-1", "engine-2"), None),
    ],
)
def test_a_single_pods_node_is_known_where_a_check_names_it(
    pods: tuple[str, ...], nodes: tuple[str, ...] | None
) -> None:
    """A plan for a node can be made of trouble on one pod; a pod that moved meanwhile leaves the choice to a person."""
    places = [("engine-1", "gpu-1"), ("engine-1", "gpu-1"), ("engine-2", "gpu-2"), ("engine-2", "gpu-3")]
    measures = [Measure(signal="itl", value=0.03, scope=(("pod", pod), ("node", node))) for pod, node in places]
    measures.append(Measure(signal="queue", value=2.0, scope=(("pod", "engine-1"),)))
    found = replace(
        FOUND, findings=(Finding.bad("queue", "It waits.", *measures),), scope=Scope(dimension="pod", values=pods)
    )

    assert confined_to(found) == {"pod": pods} | ({} if nodes is None else {"node": nodes})


@pytest.mark.parametrize("scope", [None, Scope(dimension="rack", values=("r1",)), Scope(dimension="fleet")])
def test_other_trouble_is_confined_to_what_the_diagnosis_says(scope: Scope | None) -> None:
    """Nothing is added to a rack, to the fleet, or to nothing."""
    assert confined_to(replace(FOUND, scope=scope)) == ({scope.dimension: scope.values} if scope else {})


async def test_pagerduty_may_be_down(scene: Scene) -> None:
    """Without the alert's details the title has to do, and the card says so."""
    scene.pagerduty.refuses = PagerDutyError("PagerDuty answered 503", permanent=False)

    await scene.tell()

    run = await scene.run()
    assert run.notes == ["PagerDuty did not give the alert's details: PagerDuty answered 503"]
    assert scene.look.alerts == ["LLMHighTTFT"]
    assert (await scene.plans())[0][0] is PlanState.PROPOSED


async def test_a_service_that_nobody_configured_still_gets_its_answer(store: Store) -> None:
    """Nothing is measured, nothing is offered, and the story ends."""
    await store.page(service_id="PUNKNOWN")
    scene = Scene(store)

    await scene.tell()

    run = await scene.run()
    assert run.state == "done"
    assert run.notes == ["The service is not in the configuration, so nothing could be measured."]
    assert await scene.plans() == []
    assert await scene.told("slack") == []
    assert scene.look.alerts == []


async def test_silent_telemetry_ends_in_a_note(store: Store) -> None:
    """Nobody guesses a cause that nobody measured; runbooks are still searched for."""
    await store.page()
    scene = Scene(store, found=None)

    await scene.tell()

    run = await scene.run()
    assert run.state == "done"
    assert run.notes == ["The telemetry cannot be asked: connection refused"]
    assert await scene.plans() == []
    assert run.hits


async def test_observe_mode_never_offers_a_fix(store: Store, tmp_path: Path) -> None:
    """It diagnoses and says why there is no button."""
    await store.page()
    scene = Scene(store, config=config_in(tmp_path, CONFIG.replace('mode = "approve"', 'mode = "observe"')))

    await scene.tell()

    assert await scene.plans() == []
    run = await scene.run()
    assert run.notes == ["This service is in mode observe: no fix is offered."]
    assert diagnosis_of(run) == FOUND


async def test_why_no_fix_can_be_offered_is_said(store: Store) -> None:
    """A runbook that needs a guilty change, and none is known; or no runbook at all."""
    await store.page()
    scene = Scene(store, found=replace(FOUND, suspects=(), culprit_change=None))

    await scene.tell()

    [note] = (await scene.run()).notes or []
    assert note.startswith("No fix can be offered: ")
    assert "holds no change guilty" in note


async def test_no_runbook_fits(store: Store) -> None:
    """That, too, is an answer."""
    await store.page()
    scene = Scene(store, hits=())

    await scene.tell()

    assert (await scene.run()).notes == ["No fix can be offered: no runbook fits."]


async def test_a_story_told_twice_is_told_once(scene: Scene) -> None:
    """A crash repeats steps: plans, notes, parcels and the record stay as after the first time."""
    scene.pagerduty.refuses = PagerDutyError("PagerDuty answered 503", permanent=False)
    await scene.tell()
    before = (await scene.run(), await scene.store.plans.of_incident(INCIDENT), await _record(scene))

    await scene.tell()

    assert (await scene.run(), await scene.store.plans.of_incident(INCIDENT), await _record(scene)) == before
    assert await scene.told("slack") == ["evidence", "picture", "signals"]
    assert await scene.told("pagerduty") == ["verdict"]


async def test_a_new_diagnosis_takes_the_place_of_the_old_offer(scene: Scene) -> None:
    """After a re-diagnosis the older plans cannot be approved any more."""
    await scene.tell()
    assert await scene.store.incidents.ask_again(INCIDENT, by="alice", now=NOW) == 2

    await scene.story.tell(INCIDENT, 2, call)

    rows = await scene.store.plans.of_incident(INCIDENT)
    assert [(row.run, row.state) for row in rows] == [
        (2, PlanState.PROPOSED),
        (2, PlanState.ALTERNATIVE),
        (1, PlanState.SUPERSEDED),
        (1, PlanState.SUPERSEDED),
    ]


async def _record(scene: Scene) -> list[str]:
    return [row.action for row in await AuditLog(scene.store.database).about(INCIDENT)]


async def _paged(store: Store, title: str) -> Incident:
    await store.page(title=title)
    return await store.incidents.get(INCIDENT)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("[FIRING:1] LLMHighTTFT chat (prod)", "LLMHighTTFT"),
        ("[FIRING] LLMHighTTFT", "LLMHighTTFT"),
        ("LLMHighTTFT", "LLMHighTTFT"),
        ("", ""),
        ("12 errors", ""),
        ("a b", ""),
    ],
)
async def test_the_title_names_the_alert_where_nothing_else_does(store: Store, title: str, name: str) -> None:
    """Alertmanager's prefix is not a name."""
    assert alert_name(await _paged(store, title), None) == name


async def test_a_label_beats_the_title(store: Store) -> None:
    """People rename incidents; the label is the rule's own."""
    incident = await _paged(store, "Slow chat, please look")
    await store.incidents.record(INCIDENT, 1, alerts=ALERTS.dump_python([ALERT], mode="json"))

    assert alert_name(incident, await store.incidents.run(INCIDENT, 1)) == "LLMHighTTFT"


async def test_the_question_holds_the_authors_words_and_the_finding(scene: Scene) -> None:
    """What the alert's author wrote, the expression, the linked runbook, and the causes with their probabilities."""
    await scene.tell()

    asked = scene.search.asked[0]
    assert asked.alert == "LLMHighTTFT"
    assert asked.service == "chat"
    assert asked.expr == "ttft > 1.4 * baseline"
    assert asked.runbook_url.endswith("prefix-cache-collapse.md")
    assert asked.causes == (("S04", 0.91), ("S01", 0.05))
    assert "The first token takes 740 ms" in asked.text
    assert "A prompt change broke the prefix cache" in asked.text


async def test_a_question_without_a_diagnosis_is_the_title(store: Store) -> None:
    """Search goes on by words."""
    incident = await _paged(store, "LLMHighTTFT chat")
    run = await store.incidents.run(INCIDENT, 1)
    assert run is not None

    asked = question(incident, run)

    assert (asked.text, asked.alert, asked.causes) == ("LLMHighTTFT chat", "LLMHighTTFT", ())
    assert HARMLESS.change.id not in asked.text


AUTO_CONFIG = CONFIG.replace('mode = "approve"', 'mode = "auto"\nauto = ["kubernetes.scale"]') + (
    '\n[[limit]]\naction = "kubernetes.scale"\nper_hour = 2\n'
)


def by_itself(folder: Path, action: str = "fake.set") -> Config:
    """Mode auto, for an action of the tests; loading it would refuse that name."""
    config = config_in(folder, AUTO_CONFIG)
    [service] = config.services
    [limit] = config.limits
    return config.model_copy(
        update={
            "services": (service.model_copy(update={"auto": (action,)}),),
            "limits": (limit.model_copy(update={"action": action}),),
        }
    )


async def test_in_mode_auto_the_policy_approves_what_it_may(store: Store, tmp_path: Path) -> None:
    """It is an approval like any other: of this hash, on record, checked again at the start. A repeat adds nothing."""
    await store.page()
    told = Scene(store, config=by_itself(tmp_path))
    await told.tell()
    await told.story.make_plans(INCIDENT, 1)

    [row] = [row for row in await store.plans.of_incident(INCIDENT) if row.state is PlanState.APPROVED]
    [approval] = row.approvals
    assert (approval.person_id, approval.role, approval.digest) == ("policy", "auto", row.plan.digest)
    await told.approvals.still_hold(row, now=datetime.now(UTC))
    told.trouble = "The record is broken."
    with pytest.raises(StaleError, match="broken"):
        await told.approvals.still_hold(row, now=datetime.now(UTC))
    on_record = [each for each in await AuditLog(store.database).about(INCIDENT) if each.action == "plan.approve"]
    assert [each.actor for each in on_record] == ["policy"]


@pytest.mark.parametrize(
    ("action", "trouble", "why"),
    [
        ("kubernetes.scale", "", "not among the actions that chat takes by itself"),
        ("fake.set", "The record is broken.", "The record is broken"),
    ],
)
async def test_what_the_policy_may_not_waits_for_people(
    store: Store, tmp_path: Path, action: str, trouble: str, why: str
) -> None:
    """The card says why nothing ran, and the buttons are there."""
    await store.page()
    told = Scene(store, config=by_itself(tmp_path, action))
    told.trouble = trouble

    await told.tell()

    assert PlanState.PROPOSED in {state for state, _ in await told.plans()}
    assert any(why in note for note in (await told.run()).notes or ())


@pytest.mark.parametrize("end", [PlanState.DENIED, PlanState.NOT_VERIFIED])
async def test_the_policy_acts_once_for_an_incident(store: Store, tmp_path: Path, end: PlanState) -> None:
    """It does not start again what did not help, and overrules nobody who denied, undid or stopped a fix."""
    await store.page()
    told = Scene(store, config=by_itself(tmp_path))
    await told.tell()
    [row] = [row for row in await store.plans.of_incident(INCIDENT) if row.state is PlanState.APPROVED]
    now = datetime.now(UTC)
    await store.plans.end(row.plan, end, "", now=now, expected=[PlanState.APPROVED])
    await store.incidents.ask_again(INCIDENT, by="bob", now=now)
    await told.story.tell(INCIDENT, 2, call)

    assert PlanState.APPROVED not in {state for state, _ in await told.plans()}
    again = await store.incidents.run(INCIDENT, 2)
    assert again is not None
    assert any("people decide" in note for note in again.notes or ())
