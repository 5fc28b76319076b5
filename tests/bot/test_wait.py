"""A step that only waits: for as long as it says, through restarts, and no longer than the fix may go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.incidents import PlanState
from bot.store.journal import JournalEntry
from bot.wait import wait_out
from diagnostics.findings import Status
from runbooks.engine.records import Finish, Intent, Outcome, Wait
from runbooks.engine.run import decide
from runbooks.engine.values import PlannedStep, Tier
from tests.bot.test_remediate import Scene
from tests.kit import INCIDENT, NOW, Store, event, plan, step


def waiting(duration: str = "5m", index: int = 0) -> PlannedStep:
    return step(
        index=index,
        title="Let the queue drain",
        action="wait",
        tier=Tier.R1,  # the policy of these tests has no rule for R0
        target=f"clock/wait/{INCIDENT}",
        params={"for": duration, "incident": INCIDENT},
        before={},
        effect=f"Waits {duration}, then goes on.",
        undo=None,
        verify=(),
    )


async def begun(scene: Scene) -> asyncio.Task[None]:
    """The story, once its first wait is on record."""
    story = asyncio.create_task(scene.tell())
    while not await scene.store.journal.read("plan-1"):
        await asyncio.sleep(0.05)
    return story


TWO_STEPS = (waiting(), step(index=1))


@pytest.fixture
def scene(store: Store) -> Scene:
    """Its telemetry's clock jumps ten minutes each time somebody looks."""
    return Scene(store, [Status.OK])


def test_a_wait_is_never_called_and_never_probed() -> None:
    """Its intent is when it began; with the outcome the next step has its turn, or the plan has failed."""
    item = plan("p", steps=TWO_STEPS)
    began = Intent(step=0, token="t")

    assert decide(item, []) == Wait(step=0)
    assert decide(item, [began]) == Wait(step=0)
    assert decide(item, [began, Outcome(step=0, ok=True)]) != Wait(step=0)
    ended = decide(item, [began, Outcome(step=0, ok=False, detail="ended early: resolved")])
    assert ended == Finish(result="failed", step=0, reason="ended early: resolved")


async def test_it_waits_by_the_telemetrys_clock_and_goes_on(scene: Scene) -> None:
    """In a drill, whose clock runs fast, five minutes pass quickly; then the next step acts."""
    await scene.approved(steps=TWO_STEPS)
    await scene.tell()

    state, kinds = await scene.end()
    assert (state, kinds) == (PlanState.VERIFIED, ["intent", "outcome", "intent", "outcome", "verified"])
    assert scene.action.acts == [7]
    outcome = (await scene.store.journal.read("plan-1"))[1]
    assert outcome.record["detail"] == "waited 5m"


async def test_without_telemetry_it_waits_by_our_own_clock(scene: Scene) -> None:
    """A Prometheus that is down holds nobody up."""
    scene.diagnoser.telemetry.broken = True
    await scene.approved(steps=(waiting("1s"),))
    started = datetime.now(UTC)
    await scene.tell()

    assert await scene.end() == (PlanState.DONE, ["intent", "outcome"])
    assert datetime.now(UTC) - started >= timedelta(seconds=1)


async def test_after_a_restart_it_waits_for_the_rest_only(scene: Scene) -> None:
    """It was cut off in mid-wait; who takes over counts from the intent, and writes no second one."""
    scene.diagnoser.telemetry.broken = True
    await scene.approved(steps=(waiting("2s"),))
    story = await begun(scene)
    story.cancel()
    await asyncio.wait([story])
    [began] = await scene.store.journal.read("plan-1")
    await scene.tell()

    assert await scene.end() == (PlanState.DONE, ["intent", "outcome"])
    outcome = (await scene.store.journal.read("plan-1"))[1]
    assert outcome.at - began.at >= timedelta(seconds=2)


async def test_a_resolved_incident_ends_the_wait(scene: Scene) -> None:
    """Nobody waits half an hour to find out that there is nothing left to do."""
    scene.diagnoser.telemetry.broken = True
    await scene.approved(steps=(waiting("30m"), step(index=1)))
    story = await begun(scene)
    resolved = event("incident.resolved", at=NOW + timedelta(minutes=1))
    await scene.store.inbox.deliver(resolved, now=NOW)
    await scene.store.inbox.fold(now=NOW)
    async with asyncio.timeout(20):
        await story

    state, kinds = await scene.end()
    assert (state, kinds) == (PlanState.FAILED, ["intent", "outcome"])
    assert scene.action.acts == []


async def test_a_stop_ends_the_wait(scene: Scene) -> None:
    """Within a second or two; the plan ends as stopped, and the next step never begins."""
    scene.diagnoser.telemetry.broken = True
    await scene.approved(steps=(waiting("30m"), step(index=1)))
    story = await begun(scene)
    await scene.store.switch.stop(by="dana", name="Dana", reason="wrong cluster", channel="cli", now=datetime.now(UTC))
    async with asyncio.timeout(20):
        await story

    assert await scene.end() == (PlanState.STOPPED, ["intent"])
    assert scene.action.acts == []


async def test_time_that_passed_is_taken_from_whichever_clock_is_further() -> None:
    """A clock that stands still, or that was not there when the wait began, does not count."""
    began = JournalEntry(position=1, step=0, kind="intent", at=datetime.now(UTC), record={}, telemetry_at=NOW)
    asked: list[str] = []

    class Clock:
        """The verifier's part that tells the telemetry's time."""

        def __init__(self, *times: datetime | None) -> None:
            self.times = list(times)

        async def now(self, service: str) -> Any:
            asked.append(service)
            return self.times.pop(0)

    async def go_on() -> str:
        return ""

    fast = Clock(NOW, None, NOW + timedelta(minutes=5))
    assert await wait_out(fast, "chat", began, 300, go_on, look_every_s=0.01) == ""  # type: ignore[arg-type]
    assert asked == ["chat"] * 3
    unknown = replace(began, telemetry_at=None, at=began.at - timedelta(minutes=6))
    assert await wait_out(Clock(NOW), "chat", unknown, 300, go_on) == ""  # type: ignore[arg-type]
