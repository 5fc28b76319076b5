"""The kill switch: while it is on no step starts, on any machine, and no plan from before it ever goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from bot.approvals import Approvals
from bot.incidents import IncidentState, NotAllowedError, PlanState, StoppedError
from bot.kill_switch import StopFile, SwitchWatch
from bot.pulse import Pulse
from bot.remediate import Remediate
from bot.slack.client import SlackError
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.journal import Journal
from bot.store.kill_switch import SUBJECT, KillSwitch
from bot.store.plans import Plans
from bot.store.workers import Duties
from bot.verify import Verifier
from runbooks.engine.values import Happened, OutcomeUnknownError, Plan
from tests.bot.test_desk import Room
from tests.bot.test_remediate import FRAME_JSON, FakeAction, call
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event, open_store, renamed, step
from tests.stories import FakeSlack, fresh_plan

STOP = {"by": "bob", "name": "Bob Brandt", "reason": "wrong cluster", "channel": "slack"}
GO = {"by": "paul", "name": "Paul Park", "channel": "slack"}


class Thing(BaseModel):
    """What the action below takes."""

    thing: str
    to: int


class Things(FakeAction):
    """Several systems with one number each; `meanwhile` happens while a call is on its way."""

    params: type[BaseModel] = Thing

    def __init__(self) -> None:
        super().__init__()
        self.values = {"one": 8, "two": 8}
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    def target(self, params: Any) -> str:
        return f"fake/thing/{params.thing}"

    async def read(self, params: Any) -> Any:
        return {"value": self.values[params.thing]}

    async def act(self, params: Any, before: Any, token: str) -> Any:
        if self.meanwhile is not None:
            await self.meanwhile()
        self.values[params.thing] = params.to
        return await super().act(params, before, token)

    def undo(self, params: Any, before: Any) -> Any:
        return {"thing": params.thing, "to": before["value"]}


TWO_STEPS = (
    step(params={"thing": "one", "to": 7}, target="fake/thing/one", undo={"thing": "one", "to": 8}),
    step(index=1, params={"thing": "two", "to": 7}, target="fake/thing/two", undo={"thing": "two", "to": 8}),
)


class Scene(Room):
    """A desk, a plan of two steps, and a second machine on the same database that carries it out."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.things = Things()
        self.things.probe = Happened.YES
        self.elsewhere = Database(store.database.url.render_as_string(hide_password=False))
        self.story = self.worker(StopFile(None))
        self.runner._actions = {"fake.set": self.things}

    def worker(self, stop_file: StopFile) -> Remediate:
        plans = Plans(self.elsewhere)
        return Remediate(
            plans=plans,
            journal=Journal(self.elsewhere),
            approvals=Approvals(
                plans=plans, incidents=self.store.incidents, people=self.store.people, policy=self.store.policy
            ),
            late_after_s=0.0,
            verifier=Verifier(config=self.store.config, diagnosers={"chat": self.diagnoser}),  # type: ignore[dict-item]
            actions={"fake.set": self.things},
            pulse=self.store.pulse,
            stop_file=stop_file,
        )

    async def stop(self) -> None:
        assert await self.store.switch.stop(**STOP, now=datetime.now(UTC))

    async def go(self) -> None:
        assert await self.store.switch.go(**GO, now=datetime.now(UTC))

    async def stop_and_go(self) -> None:
        await self.stop()
        await self.go()


@pytest.fixture
async def scene(store: Store) -> Any:
    scene = Scene(store)
    yield scene
    await scene.elsewhere.close()


@pytest.mark.parametrize("turn", ["stop", "stop_and_go"])
async def test_a_running_plan_halts_before_its_next_step(scene: Scene, turn: str) -> None:
    """The call on its way ends and is recorded, its verification too; step 2 never starts, however short the stop."""
    await scene.approved(steps=TWO_STEPS)
    scene.things.meanwhile = getattr(scene, turn)

    await scene.tell()

    assert await scene.end() == (PlanState.STOPPED, ["intent", "outcome", "verified"])
    assert scene.things.values == {"one": 7, "two": 8}
    row = await scene.store.plans.get("plan-1")
    assert row.why.startswith("Step 2 did not start. Everything ")
    assert await scene.told("slack") == ["outcome"]
    assert await scene.told("pagerduty") == ["outcome"]


@pytest.mark.parametrize("turn", ["stop", "stop_and_go"])
async def test_an_approved_plan_does_not_begin(scene: Scene, turn: str) -> None:
    """Approved a moment before the stop, it ends, and nothing was called."""
    await scene.approved(steps=TWO_STEPS)
    await getattr(scene, turn)()

    await scene.tell()

    assert await scene.end() == (PlanState.STOPPED, [])
    assert scene.things.acts == []
    assert await scene.told("slack") == ["outcome"]


async def test_nothing_is_approved_while_stopped_but_denying_works(scene: Scene) -> None:
    """The refusal says who stopped it and why; a plan can still be taken off the table."""
    await scene.offered()
    await scene.stop()

    with pytest.raises(StoppedError, match=r"by Bob Brandt \(wrong cluster\)"):
        await scene.desk.approve("plan-1", scene.person("bob"))
    await scene.desk.deny("plan-1", scene.person("bob"))

    assert (await scene.store.plans.get("plan-1")).state is PlanState.DENIED


async def test_a_fix_from_before_the_stop_needs_a_fresh_diagnosis(scene: Scene) -> None:
    """Approvals and offers from before it count no more; a plan that is made afterwards runs."""
    await scene.offered(steps=TWO_STEPS)
    await scene.stop_and_go()

    with pytest.raises(StoppedError, match="Diagnose again"):
        await scene.desk.approve("plan-1", scene.person("bob"))
    fresh = renamed(fresh_plan(scene.store, steps=TWO_STEPS, frame=FRAME_JSON), "plan-2")
    await scene.store.offer(fresh, rank=1)
    await scene.desk.approve("plan-2", scene.person("bob"))
    await scene.story.tell("plan-2", 1, call)

    assert scene.things.values == {"one": 7, "two": 7}


async def test_a_stopped_fix_can_be_taken_back_after_the_stop(scene: Scene) -> None:
    """What its first step changed is undone by a plan of its own; while everything is stopped that is refused, too."""
    await scene.approved(steps=TWO_STEPS)
    scene.things.meanwhile = scene.stop
    await scene.tell()
    scene.things.meanwhile = None

    await scene.desk.undo("plan-1", scene.person("bob"))
    await scene.runner.sweep()
    [undo] = await scene.undone_by()
    assert undo.state is PlanState.PROPOSED
    await scene.go()
    await scene.desk.undo("plan-1", scene.person("bob"))
    await scene.runner.sweep()
    await scene.story.tell(undo.plan.plan_id, 1, call)

    assert scene.things.values == {"one": 8, "two": 8}
    assert (await scene.store.plans.get(undo.plan.plan_id)).state is PlanState.DONE


async def test_a_doubt_stays_a_doubt(scene: Scene) -> None:
    """A call whose answer was lost is looked for while stopped, and asked about: it is not called "stopped"."""
    await scene.approved(steps=TWO_STEPS)
    scene.things.fails, scene.things.probe = OutcomeUnknownError("connection reset"), Happened.CANNOT_TELL
    scene.things.meanwhile = scene.stop

    await scene.tell()
    assert await scene.end() == (PlanState.IN_DOUBT, ["intent", "probed"])

    await scene.desk.settle("plan-1", 0, "ran", scene.person("bob"))
    await scene.tell(chapter=2)
    assert await scene.end() == (PlanState.STOPPED, ["intent", "probed", "settled", "verified"])
    assert scene.things.acts == [7]


async def test_nothing_starts_when_the_switch_cannot_be_read(scene: Scene) -> None:
    """Somebody deleted its row: that is no permission, and nobody can turn what is not there."""
    await scene.approved(steps=TWO_STEPS)
    async with scene.store.database.write() as connection:
        await connection.execute(tables.kill_switch.delete())

    await scene.tell()

    assert await scene.end() == (PlanState.STOPPED, [])
    assert "cannot be read" in (await scene.store.plans.get("plan-1")).why
    assert (await scene.store.switch.read()).is_stopped
    with pytest.raises(StoppedError, match="cannot be read"):
        await scene.go()


async def test_what_started_is_on_record_before_the_stop_and_nothing_after_it(store: Store) -> None:
    """Forty starts race with one stop: the record shows no intent after it, and each refusal left nothing behind."""
    await store.page()
    names = [f"plan-{number}" for number in range(40)]
    items = [renamed(fresh_plan(store), name) for name in names]
    for rank, item in enumerate(items):
        await store.offer(item, rank=rank)

    async def start(item: Plan, pause: float) -> bool:
        await asyncio.sleep(pause)
        record = {"kind": "intent", "step": 0, "token": item.plan_id}
        try:
            await store.journal.append(
                item, position=1, step=0, kind="intent", record=record, now=NOW, unless_stopped=True
            )
        except StoppedError:
            return False
        return True

    async def stop() -> bool:
        await asyncio.sleep(0.05)
        return await store.switch.stop(**STOP, now=NOW)

    *started, stopped = await asyncio.gather(*(start(item, 0.003 * n) for n, item in enumerate(items)), stop())

    log = AuditLog(store.database)
    [turn] = await log.about(SUBJECT)
    intents = [row for row in await log.about(INCIDENT) if row.action == "step.intent"]
    assert stopped
    assert 0 < len(intents) == sum(started) < len(items)
    assert max(row.seq for row in intents) < turn.seq


async def test_turning_it_is_on_record_and_turning_it_twice_changes_nothing(store: Store) -> None:
    """Who, why, by which way; of two who stop at the same time one did it."""
    first = await asyncio.gather(*(store.switch.stop(**STOP, now=NOW) for _ in range(5)))
    await store.switch.go(**GO, now=NOW)

    assert sorted(first) == [False] * 4 + [True]
    assert not await store.switch.go(**GO, now=NOW)
    rows = await AuditLog(store.database).about(SUBJECT)
    assert [(row.actor, row.action, dict(row.details)) for row in rows] == [
        ("bob", "switch.stopped", {"channel": "slack", "reason": "wrong cluster"}),
        ("paul", "switch.released", {"channel": "slack"}),
    ]


OWNER_OF_ALL = CONFIG + '\n[[person]]\nid = "eve"\nname = "Eve"\nslack = ["T0LAB00001/U0EVE"]\n'


@pytest.mark.parametrize(
    ("who", "may_stop", "may_release"),
    [
        ("alice", True, False),  # on call for the open incident
        ("bob", True, False),  # owns a prompt
        ("dana", True, True),  # owns the service
        ("paul", True, True),  # platform
        ("eve", False, False),  # no role
    ],
)
async def test_who_may_turn_it(tmp_path: Path, who: str, *, may_stop: bool, may_release: bool) -> None:
    """Anybody with a role stops; only who may approve R2 fixes releases; refusals are on record."""
    async with open_store(f"sqlite:///{tmp_path}/s.sqlite", config_in(tmp_path, OWNER_OF_ALL)) as store:
        room = Room(store)
        await store.page()
        person = store.person(who)

        assert await turned(room.desk.stop("", person)) is may_stop
        await store.switch.stop(**STOP, now=NOW)
        assert await turned(room.desk.go(person)) is may_release

        assert (await store.switch.read()).is_stopped is not may_release
        refused = [row for row in await AuditLog(store.database).about(SUBJECT) if row.action == "refused"]
        assert len(refused) == (not may_stop) + (not may_release)


async def turned(deed: Awaitable[str]) -> bool:
    try:
        await deed
    except NotAllowedError:
        return False
    return True


async def test_without_a_rule_for_r2_owners_and_platform_release(tmp_path: Path) -> None:
    """A policy that names no R2 would otherwise keep everything stopped for ever."""
    text = CONFIG.replace('tier = "R2"', 'tier = "R0"')
    async with open_store(f"sqlite:///{tmp_path}/s.sqlite", config_in(tmp_path, text)) as store:
        store.policy.may_release(store.person("paul"))
        store.policy.may_release(store.person("dana"))
        with pytest.raises(NotAllowedError, match="platform or service-owner"):
            store.policy.may_release(store.person("bob"))


async def test_the_file_stops_what_runs_here(scene: Scene, tmp_path: Path) -> None:
    """It appears while a call is on its way; the next step does not start, and nothing here can be approved."""
    path = tmp_path / "STOP"
    scene.story = scene.worker(StopFile(path))
    await scene.approved(steps=TWO_STEPS)

    async def touch() -> None:
        path.touch()

    scene.things.meanwhile = touch
    await scene.tell()

    assert await scene.end() == (PlanState.STOPPED, ["intent", "outcome", "verified"])
    assert scene.things.values == {"one": 7, "two": 8}
    assert str(path) in (await scene.store.plans.get("plan-1")).why
    store = scene.store
    here = Approvals(
        plans=store.plans,
        incidents=store.incidents,
        people=store.people,
        policy=store.policy,
        stop_file=StopFile(path),
    )
    with pytest.raises(StoppedError):
        await here.approve("plan-1", by=store.person("bob"), now=NOW)


def test_a_file_that_cannot_be_looked_at_counts_as_there(tmp_path: Path) -> None:
    """A name that the system refuses is no proof of absence; a folder that is not there is one."""
    assert StopFile(None).why_stopped() == ""
    assert StopFile(tmp_path / "STOP").why_stopped() == ""
    assert StopFile(tmp_path / "nowhere" / "STOP").why_stopped() == ""
    assert "cannot be looked at" in StopFile(tmp_path / ("x" * 5000)).why_stopped()


class Watch:
    """The watches of two workers over one database, and a channel."""

    def __init__(self, store: Store, file: Path | None = None) -> None:
        self.slack = FakeSlack()
        self.watches = [
            SwitchWatch(
                switch=KillSwitch(store.database),
                file=StopFile(file),
                duties=Duties(store.database, pulse.me),
                slack=self.slack,  # type: ignore[arg-type]  # a fake
                channel="C1",
                pulse=pulse,
                registry=CollectorRegistry(),
            )
            for pulse in (store.pulse, Pulse(store.workers, "other"))
        ]

    async def sweep(self) -> None:
        for watch in self.watches:
            watch._again_at = 0.0
            await watch.sweep()

    @property
    def said(self) -> list[str]:
        return [message.text for _, _, _, message in self.slack.posts]


async def revision(store: Store) -> int:
    return (await store.incidents.get(INCIDENT)).revision


async def test_the_channel_is_told_once_and_open_cards_are_redrawn(store: Store) -> None:
    """Of each turn, by one of two processes, also when the first answer was lost; resolved incidents rest."""
    await store.page()
    await store.page(incident_id="Q0OVER")
    await store.inbox.deliver(event("incident.resolved", incident_id="Q0OVER", at=datetime.now(UTC)), now=NOW)
    await store.inbox.fold(now=NOW)
    over = await store.incidents.get("Q0OVER")
    before, watch = await revision(store), Watch(store)
    await watch.sweep()
    assert watch.said == []

    await store.switch.stop(**STOP, now=NOW)
    watch.slack.loses_answers = True
    await watch.sweep()
    watch.slack.loses_answers = False
    await watch.sweep()
    await watch.sweep()

    [said] = watch.said
    assert said.startswith("Everything is stopped since 03:00 UTC, by Bob Brandt (wrong cluster)")
    assert await revision(store) == before + 1
    assert over.state is IncidentState.RESOLVED
    assert (await store.incidents.get("Q0OVER")).revision == over.revision
    assert watch.watches[0].trouble() == f"{said} That was more than an hour ago: is it still needed?"

    await store.switch.go(**GO, now=NOW)
    await watch.sweep()
    assert watch.said[1].startswith("Paul Park ended the stop at 03:00 UTC.")
    assert watch.watches[0].trouble() == ""


async def test_what_slack_refuses_for_good_is_not_tried_for_ever(store: Store) -> None:
    """The cards are redrawn all the same."""
    await store.page()
    before, watch = await revision(store), Watch(store)
    await store.switch.stop(**STOP, now=NOW)
    watch.slack.troubles = [SlackError("channel_not_found", permanent=True)]

    await watch.sweep()

    assert watch.said == []
    assert await revision(store) == before + 1


async def test_the_file_turns_the_switch_for_everybody_and_its_removal_does_not(store: Store, tmp_path: Path) -> None:
    """On record with its machine; to turn it back while the file is there would last a second, so it is refused."""
    path = tmp_path / "STOP"
    watch = Watch(store, path)
    path.touch()
    await watch.sweep()
    path.unlink()
    await watch.sweep()

    state = await store.switch.read()
    [row] = await AuditLog(store.database).about(SUBJECT)
    assert (state.is_stopped, row.actor, str(path) in state.reason) == (True, "stop-file", True)
    assert len(watch.said) == 1


async def test_a_card_says_that_everything_is_stopped(store: Store) -> None:
    """Above the verdict while the incident is open; not any more when it is resolved."""
    from tests.bot.test_keeper import Desk

    await store.page()
    await store.switch.stop(**STOP, now=NOW)
    cards = Desk(store).cards
    shown = await cards.view(INCIDENT)
    await store.inbox.deliver(event("incident.resolved", at=datetime.now(UTC)), now=NOW)
    await store.inbox.fold(now=NOW)

    assert shown.stopped.startswith("Everything is stopped since 03:00 UTC, by Bob Brandt")
    assert (await cards.view(INCIDENT)).stopped == ""
