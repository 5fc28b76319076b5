"""An approved plan is carried out step by step, written down first, verified, and never done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from bot.incidents import Person, PlanState, StaleError, StoreUnavailableError
from bot.remediate import Remediate
from bot.respond import FRAME
from bot.standing import Accounts
from bot.verify import Verifier
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Status
from diagnostics.telemetry.model import TelemetryError
from runbooks.engine.actions.manual import Manual
from runbooks.engine.actions.wait import Wait
from runbooks.engine.declared import CheckSays
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Plan, Tier
from tests.kit import INCIDENT, NOW, Store, event, plan, step

FRAME_JSON = FRAME.dump_python(
    Frame(at=NOW, baseline_start=NOW - timedelta(hours=1), baseline_end=NOW - timedelta(minutes=10)), mode="json"
)

SIGN = CheckSays.model_validate({"check": "sign"})


class Params(BaseModel):
    """What the fake action takes."""

    to: int


class FakeAction:
    """A system with one number; it remembers every change, and fails as it is told."""

    name = "fake.set"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = Params

    def __init__(self) -> None:
        self.value = 8
        self.acts: list[int] = []
        self.fails: Exception | None = None
        self.takes_effect = True
        self.probe = Happened.CANNOT_TELL

    def effect(self, params: Any, before: JsonObject) -> str:
        return f"Set the thing from {before['value']} to {params.to}."

    def target(self, params: Any) -> str:
        return "fake/thing/one"

    async def read(self, params: Any) -> JsonObject:
        return {"value": self.value}

    async def act(self, params: Any, before: JsonObject, token: str) -> JsonObject:
        self.acts.append(params.to)
        if self.takes_effect:
            self.value = params.to
        if self.fails is not None:
            raise self.fails
        return {"value": self.value}

    async def happened(self, params: Any, before: JsonObject, token: str) -> Happened:
        return self.probe

    def undo(self, params: Any, before: JsonObject) -> JsonObject | None:
        return {"to": before["value"]}


class FakeTelemetry:
    """A clock that jumps ten minutes whenever it is read."""

    def __init__(self) -> None:
        self.time = NOW
        self.broken = False

    async def now(self) -> datetime:
        if self.broken:
            raise TelemetryError("connection refused")
        self.time += timedelta(minutes=10)
        return self.time


class FakeDiagnoser:
    """Answers checks from a list of statuses; the last one is repeated."""

    def __init__(self, statuses: Sequence[Status]) -> None:
        self.telemetry = FakeTelemetry()
        self.statuses = list(statuses)
        self.asked: list[Frame] = []
        self.signs: list[Status] = []

    async def check(self, names: Sequence[str], target: Any, frame: Frame) -> list[Finding]:
        if names == [SIGN.check]:
            return [Finding(check=SIGN.check, status=self.signs.pop(0), summary="a sign")]
        self.asked.append(frame)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return [Finding(check=name, status=status, summary=f"is {status}") for name in names]


class Scene:
    """A plan that Bob approved, and all that carries it out."""

    def __init__(self, store: Store, statuses: Sequence[Status], accounts: Accounts | None = None) -> None:
        self.store = store
        self.action = FakeAction()
        self.diagnoser = FakeDiagnoser(statuses)
        self.approvals = store.approvals(accounts=accounts)
        self.story = Remediate(
            plans=store.plans,
            journal=store.journal,
            approvals=self.approvals,
            late_after_s=0.0,
            verifier=Verifier(
                config=store.config,
                diagnosers={"chat": self.diagnoser},  # type: ignore[dict-item]  # a fake
            ),
            actions={"fake.set": self.action, "manual": Manual(), "wait": Wait()},
            pulse=store.pulse,
        )

    async def approved(self, *, by: Person | None = None, **more: Any) -> Plan:
        """Bob has just said yes."""
        now = datetime.now(UTC)
        await self.store.page()
        await self.store.incidents.card_shown(INCIDENT, 1, "C0INC", "1700000000.000100", now=NOW, next_at=NOW)
        item = plan(
            self.store.policy.version,
            frame=FRAME_JSON,
            made_at=now,
            expires_at=now + timedelta(minutes=15),
            **more,
        )
        await self.store.offer(item)
        await self.approvals.approve(item.plan_id, by=by or self.store.person("bob"), now=now)
        return item

    async def tell(self, chapter: int = 1) -> None:
        await self.story.tell("plan-1", chapter, call)

    async def end(self) -> tuple[PlanState, list[str]]:
        """The plan's state and the kinds of its records."""
        row = await self.store.plans.get("plan-1")
        return row.state, [entry.kind for entry in await self.store.journal.read("plan-1")]

    async def told(self, lane: str) -> list[str]:
        """What waits in a lane, in order."""
        kinds = []
        while parcels := await self.store.outbox.due(lane, now=datetime.now(UTC) + timedelta(days=1)):
            kinds.append(parcels[0].kind)
            await self.store.outbox.delivered(parcels[0].outbox_id)
        return kinds


async def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A step without an engine."""
    return await function(*arguments)


@pytest.fixture
def scene(store: Store) -> Scene:
    """The checks say bad once, then good twice."""
    return Scene(store, [Status.BAD, Status.OK, Status.OK])


async def test_a_verified_fix_resolves_the_incident(scene: Scene) -> None:
    """Intent before the act, outcome after it, two good samples in a row, then PagerDuty is told."""
    await scene.approved()

    await scene.tell()

    assert await scene.end() == (PlanState.VERIFIED, ["intent", "outcome", "verified"])
    assert scene.action.acts == [7]
    assert len(scene.diagnoser.asked) == 3
    assert await scene.told("pagerduty") == ["outcome", "resolve"]
    assert await scene.told("slack") == ["outcome"]


async def test_verification_looks_only_at_what_came_after_the_change(scene: Scene) -> None:
    """The window of the first sample begins after the change has settled, and the baseline stays the diagnosis' own."""
    item = await scene.approved()

    await scene.tell()

    [_, outcome, _] = await scene.store.journal.read("plan-1")
    first = scene.diagnoser.asked[0]
    assert outcome.telemetry_at is not None
    assert first.at - first.recent == outcome.telemetry_at + timedelta(seconds=item.steps[0].settle_s)
    assert first.baseline_end == NOW - timedelta(minutes=10)
    assert first.events_from == first.at - first.recent


@pytest.mark.parametrize("status", [Status.BAD, Status.UNKNOWN])
async def test_a_fix_that_does_not_help_is_not_called_one(store: Store, status: Status) -> None:
    """Bad stays bad, and unknown is not good; the incident is not resolved."""
    scene = Scene(store, [status])
    await scene.approved()

    await scene.tell()

    assert (await scene.end())[0] is PlanState.NOT_VERIFIED
    assert await scene.told("pagerduty") == ["outcome"]


async def test_one_good_sample_is_not_enough(store: Store) -> None:
    """A flapping check never gives two good samples in a row."""
    scene = Scene(store, [Status.OK, Status.BAD] * 20)
    await scene.approved()

    await scene.tell()

    assert (await scene.end())[0] is PlanState.NOT_VERIFIED


async def test_a_refused_action_ends_the_plan(scene: Scene) -> None:
    """A 403 certainly changed nothing."""
    await scene.approved()
    scene.action.fails, scene.action.takes_effect = ActionError("403 forbidden"), False

    await scene.tell()

    assert await scene.end() == (PlanState.FAILED, ["intent", "outcome"])
    assert await scene.told("pagerduty") == ["outcome"]


@pytest.mark.parametrize("error", [OutcomeUnknownError("connection reset"), TimeoutError()])
async def test_a_lost_answer_is_probed_and_never_repeated(scene: Scene, error: Exception) -> None:
    """The change took place, the answer was lost, the probe sees it."""
    await scene.approved()
    scene.action.fails, scene.action.probe = error, Happened.YES

    await scene.tell()

    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "verified"])
    assert scene.action.acts == [7]


async def test_a_step_that_nobody_can_prove_waits_for_a_person(scene: Scene) -> None:
    """In doubt, shown, and settled by a person's word; then the story goes on where it stopped."""
    item = await scene.approved()
    scene.action.fails = OutcomeUnknownError("connection reset")

    await scene.tell()
    assert await scene.end() == (PlanState.IN_DOUBT, ["intent", "probed"])

    said = {"kind": "settled", "step": 0, "answer": "ran", "person": "bob"}
    await scene.store.journal.settle(item, position=3, step=0, record=said, by="bob", now=NOW)
    assert ("plan-1", 2) in await scene.store.plans.to_start()
    await scene.tell(chapter=2)

    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "settled", "verified"])
    assert scene.action.acts == [7]


async def test_a_crash_after_the_intent_never_acts_twice(scene: Scene) -> None:
    """The process died between the intent and the outcome; the restarted story probes first."""
    item = await scene.approved()
    assert await scene.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "t"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)

    await scene.tell()

    assert scene.action.acts == []
    assert await scene.end() == (PlanState.IN_DOUBT, ["intent", "probed"])


async def test_a_proven_no_lets_the_step_run(scene: Scene) -> None:
    """The crash came before the call: the probe says so, and the step runs under a new intent."""
    item = await scene.approved()
    assert await scene.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "t"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)
    scene.action.probe = Happened.NO

    await scene.tell()

    assert scene.action.acts == [7]
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "intent", "outcome", "verified"])


async def test_a_no_counts_only_when_it_stands(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """However old the intent is: its last call may have been sent a moment before the process died."""
    item = await scene.approved()
    assert await scene.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "t"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)
    answers = [Happened.NO, Happened.YES]

    async def happened(*_: Any) -> Happened:
        return answers.pop(0)

    monkeypatch.setattr(scene.action, "happened", happened)
    await scene.tell()

    assert scene.action.acts == []
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "verified"])


async def test_what_has_happened_already_is_not_done_again(scene: Scene) -> None:
    """Two good samples of the step's check, even over a target that moved meanwhile; it is verified like any other."""
    await scene.approved(steps=(step(check=SIGN),))
    assert await scene.story.begin("plan-1", 1)
    scene.action.value, scene.diagnoser.signs = 7, [Status.OK, Status.OK]

    await scene.tell()

    assert await scene.end() == (PlanState.VERIFIED, ["probed", "verified"])
    assert scene.action.acts == []
    [probed, _] = await scene.store.journal.read("plan-1")
    assert probed.record["already"] is True


@pytest.mark.parametrize("signs", [[Status.BAD], [Status.OK, Status.UNKNOWN]])
async def test_a_step_that_has_not_happened_for_sure_is_done(scene: Scene, signs: list[Status]) -> None:
    """Somebody approved it, so one good sample, or none, does not stop it."""
    await scene.approved(steps=(step(check=SIGN),))
    scene.diagnoser.signs = [*signs]

    await scene.tell()

    assert scene.action.acts == [7]
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "outcome", "verified"])


async def test_the_approval_counts_after_the_look(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check's samples take a while; who left meanwhile approved nothing."""
    await scene.approved(steps=(step(check=SIGN),))

    async def meanwhile(*_: Any) -> bool:
        await scene.store.people.replace([])
        return False

    monkeypatch.setattr(Verifier, "had_happened", meanwhile)
    await scene.tell()

    assert scene.action.acts == []


async def test_a_person_is_not_asked_for_what_is_done(scene: Scene) -> None:
    """A manual step whose check shows that somebody did it."""
    params = {"instruction": "Mend it."}
    await scene.approved(steps=(step(action="manual", params=params, before={}, undo=None, check=SIGN),))
    scene.diagnoser.signs = [Status.OK, Status.OK]

    await scene.tell()

    assert await scene.end() == (PlanState.VERIFIED, ["probed", "verified"])


@pytest.mark.parametrize(
    ("probe", "signs", "happened"),
    [
        (Happened.CANNOT_TELL, [Status.OK, Status.OK], "yes"),
        (Happened.CANNOT_TELL, [Status.OK, Status.BAD], "cannot_tell"),
        (Happened.YES, [Status.BAD, Status.BAD], "cannot_tell"),
        (Happened.YES, [Status.UNKNOWN], "yes"),
        (Happened.NO, [Status.OK, Status.OK], "cannot_tell"),
    ],
)
async def test_a_lost_answer_is_settled_by_the_check(
    scene: Scene, probe: Happened, signs: list[Status], happened: str
) -> None:
    """Beside the action's own probe: two samples that agree, and no contradiction; else a person is asked."""
    await scene.approved(steps=(step(check=SIGN),))
    scene.action.fails, scene.action.probe = OutcomeUnknownError("connection reset"), probe
    scene.diagnoser.signs = [Status.BAD, *signs]

    await scene.tell()

    [_, probed, *_] = await scene.store.journal.read("plan-1")
    assert probed.record["happened"] == happened
    state = PlanState.VERIFIED if happened == "yes" else PlanState.IN_DOUBT
    assert ((await scene.end())[0], scene.action.acts, scene.diagnoser.signs) == (state, [7], [])


async def test_a_check_that_says_no_twice_lets_the_step_run(scene: Scene) -> None:
    """An action that cannot tell, and a check that can: the call was lost on its way, so it is made again."""
    item = await scene.approved(steps=(step(check=SIGN),))
    assert await scene.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "t"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)
    scene.diagnoser.signs = [Status.BAD, Status.BAD, Status.BAD]

    await scene.tell()

    assert scene.action.acts == [7]
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "intent", "outcome", "verified"])


async def test_a_world_that_moved_is_not_touched(scene: Scene) -> None:
    """Somebody changed the target after the plan was made: the approval was for another change."""
    await scene.approved()
    scene.action.value = 9

    await scene.tell()

    row = await scene.store.plans.get("plan-1")
    assert row.state is PlanState.STALE
    assert "value was 8 and is 9 now" in row.why
    assert scene.action.acts == []


async def test_a_fenced_worker_stops(scene: Scene) -> None:
    """Somebody else wrote the next record while this worker was frozen; it writes nothing more."""
    item = await scene.approved()
    await scene.story.begin("plan-1", 1)
    row = await scene.store.plans.get("plan-1")
    intent = {"kind": "intent", "step": 0, "token": "other"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)

    with pytest.raises(StaleError):
        await scene.story._act(row, item.steps[0], [])  # what the thawed worker does next

    assert scene.action.acts == []


async def test_an_outcome_that_comes_while_it_is_probed_carries_the_story_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thawed process still wrote what its call had answered; whoever took over goes on from there."""
    item = await scene.approved(steps=(step(),))
    await scene.story.begin("plan-1", 1)
    intent = {"kind": "intent", "step": 0, "token": "other"}
    await scene.store.journal.append(item, position=1, step=0, kind="intent", record=intent, now=NOW)
    outcome = {"kind": "outcome", "step": 0, "ok": True, "detail": "late"}

    async def happened(*_: Any) -> Happened:
        await scene.store.journal.append(
            item, position=2, step=0, kind="outcome", record=outcome, now=NOW, telemetry_at=NOW
        )
        return Happened.YES

    monkeypatch.setattr(scene.action, "happened", happened)
    await scene.tell()

    assert scene.action.acts == []
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "outcome", "verified"])


async def test_silent_telemetry_is_not_a_verification(scene: Scene) -> None:
    """The change is made, and then nobody can say whether it helped."""
    await scene.approved(steps=(step(),))
    await scene.story.begin("plan-1", 1)
    await scene.story.move_on("plan-1")
    scene.diagnoser.telemetry.broken = True

    await scene.tell()

    row = await scene.store.plans.get("plan-1")
    assert row.state is PlanState.NOT_VERIFIED
    assert "stopped answering" in row.why
    assert row.plan.incident_id == INCIDENT


async def test_the_end_and_its_news_are_one_transaction(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fails while the end is told leaves the plan running, so that the step tells it again."""
    await scene.approved()
    real = scene.store.plans.end
    failures = [StoreUnavailableError("away")]

    async def flaky(*args: Any, **more: Any) -> bool:
        if failures:
            raise failures.pop()
        return await real(*args, **more)

    monkeypatch.setattr(scene.store.plans, "end", flaky)
    with pytest.raises(StoreUnavailableError):
        await scene.tell()
    await scene.tell()

    assert (await scene.end())[0] is PlanState.VERIFIED
    assert await scene.told("pagerduty") == ["outcome", "resolve"]


async def test_an_answer_does_not_revive_a_dead_approval(scene: Scene) -> None:
    """In doubt, then the incident is resolved; "it did not run" does not make it run."""
    item = await scene.approved()
    scene.action.fails, scene.action.takes_effect = OutcomeUnknownError("reset"), False
    await scene.tell()
    assert scene.action.acts == [7]
    await scene.store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(days=9)), now=NOW)
    await scene.store.inbox.fold(now=NOW)

    said = {"kind": "settled", "step": 0, "answer": "did_not_run", "person": "bob"}
    await scene.store.journal.settle(item, position=3, step=0, record=said, by="bob", now=datetime.now(UTC))
    scene.action.fails = None
    await scene.tell(chapter=2)

    row = await scene.store.plans.get("plan-1")
    assert scene.action.acts == [7]
    assert row.state is PlanState.FAILED
    assert "resolved" in row.why


async def test_a_late_effect_of_our_own_call_is_taken_for_what_it_is(scene: Scene) -> None:
    """Time-out, probe says no, then the change lands after all: it is verified, not called somebody else's."""
    item = await scene.approved()
    assert await scene.story.begin("plan-1", 1)
    for position, record in enumerate(
        [{"kind": "intent", "step": 0, "token": "t"}, {"kind": "probed", "step": 0, "happened": "no"}], start=1
    ):
        kind = str(record["kind"])
        await scene.store.journal.append(item, position=position, step=0, kind=kind, record=record, now=NOW)
    scene.action.value, scene.action.probe = 7, Happened.YES

    await scene.tell()

    assert scene.action.acts == []
    assert await scene.end() == (PlanState.VERIFIED, ["intent", "probed", "outcome", "verified"])


async def test_a_persons_own_step_waits_and_is_no_doubt(scene: Scene) -> None:
    """Nothing was cut off: the plan waits for hands, holds its targets, and goes on when they say that it is done."""
    by_hand = step(action="manual", params={"instruction": "reseat the card"}, before={}, undo=None, verify=())
    await scene.approved(steps=(by_hand, step(index=1, target="fake/thing/two")))

    await scene.tell()

    row = await scene.store.plans.get("plan-1")
    assert (row.state, row.why, scene.action.acts) == (PlanState.WAITING, "step 1 is for a person to do", [])
    said = {"kind": "settled", "step": 0, "answer": "ran", "person": "bob"}
    await scene.store.journal.settle(row.plan, position=1, step=0, record=said, by="bob", now=datetime.now(UTC))
    await scene.tell(chapter=2)
    assert (await scene.end())[0] is PlanState.VERIFIED
    assert scene.action.acts == [7]


async def test_a_moved_target_after_our_own_call_is_a_persons_question(scene: Scene) -> None:
    """After an intent nobody can say whose change it was."""
    item = await scene.approved()
    assert await scene.story.begin("plan-1", 1)
    for position, record in enumerate(
        [{"kind": "intent", "step": 0, "token": "t"}, {"kind": "probed", "step": 0, "happened": "no"}], start=1
    ):
        kind = str(record["kind"])
        await scene.store.journal.append(item, position=position, step=0, kind=kind, record=record, now=NOW)
    scene.action.value = 9

    await scene.tell()

    assert scene.action.acts == []
    assert (await scene.end())[0] is PlanState.IN_DOUBT


async def test_a_defect_in_an_action_leaves_a_question_that_can_be_answered(scene: Scene) -> None:
    """The call was made and an error of ours came back: in doubt, and a person's answer settles it."""
    item = await scene.approved()
    scene.action.fails = LookupError("a defect")
    with pytest.raises(LookupError):
        await scene.tell()

    await scene.story.broke_off("plan-1", "LookupError")
    assert await scene.end() == (PlanState.IN_DOUBT, ["intent", "probed"])
    said = {"kind": "settled", "step": 0, "answer": "ran", "person": "bob"}
    later = scene.diagnoser.telemetry.time + timedelta(hours=1)
    scene.diagnoser.telemetry.time = later
    await scene.store.journal.settle(item, position=3, step=0, record=said, by="bob", now=datetime.now(UTC))
    await scene.tell(chapter=2)

    assert (await scene.end())[0] is PlanState.VERIFIED
    assert all(frame.at - frame.recent >= later for frame in scene.diagnoser.asked)


class PatientFake(FakeAction):
    """Takes longer than a call may, and says so."""

    waited = False

    def patience_s(self, params: Any) -> float:
        return 60.0

    async def act(self, params: Any, before: JsonObject, token: str) -> JsonObject:
        await asyncio.sleep(0.2)
        self.waited = True
        return await super().act(params, before, token)


async def test_an_action_that_needs_longer_gets_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has its own time limit; others end with the one for calls."""
    monkeypatch.setattr("bot.remediate.ACT_TIMEOUT_S", 0.05)
    scene = Scene(store, [Status.OK])
    scene.action = PatientFake()
    scene.story._actions = {"fake.set": scene.action}
    await scene.approved()
    await scene.tell()

    assert scene.action.waited
    assert (await scene.end())[0] is PlanState.VERIFIED
