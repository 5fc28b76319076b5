"""Breaking the glass: one person, a reason and a code instead of the quorum; and past nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.break_glass import BreakGlass
from bot.config import ConfigError, load_config
from bot.incidents import (
    AlreadyDecidedError,
    NotAllowedError,
    PlanState,
    StaleError,
    StepUpNeededError,
    StepUpRefusedError,
    StoppedError,
    WatchkeeperError,
)
from bot.kill_switch import StopFile
from bot.operate_reviews import review, reviews
from bot.policy import Policy
from bot.settings import Settings
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.break_glass import BrokenGlass
from tests.bot.test_step_up import KEY, LATER, House, configuration
from tests.kit import INCIDENT, NOW, config_in, open_store
from tests.operator_house import operator_house, own_form

GLASS = """
[[break_glass]]
roles = ["platform", "on-call"]
service = "chat"
"""
RESTING = """
[[freeze]]
name = "holidays"
reason = "nobody is there"
start = 2026-11-22T00:00:00Z
end = 2026-11-23T00:00:00Z

[[limit]]
per_hour = 1
"""


class Room(House):
    """Paul is of the platform team, Alice is on call, and both have a phone; Dana owns the service and has one, too."""

    def __init__(self, store: Any, folder: Path) -> None:
        super().__init__(store)
        self.stop_file = folder / "stop"
        self.glass = BrokenGlass(store.database)
        self.break_glass = BreakGlass(
            glass=self.glass,
            approvals=self.approvals,
            plans=store.plans,
            incidents=store.incidents,
            policy=store.policy,
            proof=self.step_up,
            stop_file=StopFile(self.stop_file),
        )

    async def start(self, name: str, *, plan_id: str = "plan-1", **more: Any) -> int:
        now = more.pop("now", LATER)
        said = {"reason": "nobody else answers", "digest": None, "code": self.code(name, now), **more}
        return await self.break_glass.start(plan_id, by=self.store.person(name), now=now, **said)

    def code(self, name: str, now: datetime) -> str:
        return self.phones[name].at(now) if name in self.phones else "000000"


@pytest.fixture
async def room(tmp_path: Path, database_url: str) -> AsyncIterator[Room]:
    async with open_store(database_url, config_in(tmp_path, configuration() + GLASS)) as store:
        room = Room(store, tmp_path)
        await store.page()
        for name in ("dana", "paul", "alice"):
            await room.enrol(name)
        await room.offer()
        yield room


async def test_one_person_starts_what_needs_two(room: Room) -> None:
    """The plan is approved and holds; the channel and PagerDuty are told, a review is open, the record has its kind."""
    await room.store.incidents.card_shown(INCIDENT, 1, "C0INC", "1700000000.000100", now=NOW, next_at=NOW)
    opened = await room.start("paul")

    row = await room.store.plans.get("plan-1")
    await room.approvals.still_hold(row, now=LATER)
    assert await room.approvals.begin(row, now=LATER)
    assert (row.state, [(each.person_id, each.decision, each.step_up) for each in row.approvals]) == (
        PlanState.APPROVED,
        [("paul", "break_glass", "totp")],
    )
    for lane in ("slack", "pagerduty"):
        [parcel] = await room.store.outbox.due(lane, now=LATER)
        assert (parcel.kind, parcel.content["name"], parcel.content["reason"]) == (
            "break_glass",
            "Paul Park",
            "nobody else answers",
        )
    [owed] = await room.glass.reviews(open_only=True)
    [said] = [each for each in await AuditLog(room.store.database).about(INCIDENT) if each.action == "plan.break_glass"]
    assert (owed.review_id, owed.person_id, owed.role) == (opened, "paul", "platform")
    assert (said.actor, said.details["review"], said.details["step_up"]) == ("paul", opened, "totp")


async def test_who_approved_and_waits_in_vain_may_break_the_glass(room: Room) -> None:
    """Alone at 3 a.m.: the first approval becomes the only one."""
    await room.approve("paul", room.code("paul", LATER))
    later = LATER + timedelta(minutes=2)

    await room.start("paul", now=later)

    row = await room.store.plans.get("plan-1")
    assert [each.decision for each in row.approvals] == ["break_glass"]
    await room.approvals.still_hold(row, now=later)


@pytest.mark.parametrize(
    ("name", "more", "error", "why"),
    [
        ("dana", {}, NotAllowedError, "Only platform or on-call may break the glass"),
        ("bob", {}, NotAllowedError, "Only platform or on-call may break the glass"),
        ("paul", {"code": None}, StepUpNeededError, "watchkeeper break-glass plan-1"),
        ("paul", {"code": "000000"}, StepUpRefusedError, "does not count"),
        ("paul", {"reason": " \u200b "}, StaleError, "needs a reason"),
        ("paul", {"digest": "0" * 64}, StaleError, "not the fix that you read"),
        ("paul", {"now": NOW + timedelta(minutes=16)}, StaleError, "expired"),
    ],
)
async def test_it_goes_past_the_quorum_and_nothing_else(
    room: Room, name: str, more: dict[str, Any], error: type[Exception], why: str
) -> None:
    """No role, no code, no reason, another plan, too late: nothing happened, and nobody is told that it did."""
    with pytest.raises(error, match=why):
        await room.start(name, **more)

    assert (await room.store.plans.get("plan-1")).approvals == ()
    assert await room.glass.reviews() == []


async def test_neither_the_stop_nor_another_fix_gives_way(room: Room) -> None:
    """The kill switch, its file, and a fix that is under way for the same incident."""
    room.stop_file.touch()
    with pytest.raises(StoppedError):
        await room.start("paul")
    room.stop_file.unlink()
    await room.offer("plan-2", rank=1)
    await room.start("alice")
    with pytest.raises(AlreadyDecidedError, match="Another fix"):
        await room.start("paul", plan_id="plan-2")
    await room.store.switch.stop(by="dana", name="Dana", reason="", channel="slack", now=LATER)

    row = await room.store.plans.get("plan-1")
    with pytest.raises(StoppedError):
        await room.approvals.begin(row, now=LATER)


async def test_it_is_twice_a_day_at_most_however_many_try_at_once(room: Room) -> None:
    """What is done each night is no emergency: the policy is wrong then."""
    for number in range(2, 6):
        await room.store.page(incident_id=f"Q0INCIDENT{number}", event_id=f"other-{number}")
        await room.offer(f"plan-{number}", incident_id=f"Q0INCIDENT{number}")
    tries = [
        room.start(name, plan_id=f"plan-{number}", code=room.phones[name].at(LATER, counter_offset=offset))
        for number, (name, offset) in enumerate([("paul", 0), ("paul", 1), ("paul", -1), ("alice", 0)], start=1)
    ]

    ends = await asyncio.gather(*tries, return_exceptions=True)

    assert sorted(type(end).__name__ for end in ends) == ["NotAllowedError"] * 2 + ["int"] * 2
    assert len(await room.glass.reviews()) == 2


async def test_it_goes_past_a_freeze_and_a_limit(room: Room, tmp_path: Path) -> None:
    """Both hold everybody else up; to go past them on purpose is what it is for."""
    resting = Policy(config_in(tmp_path, configuration() + GLASS + RESTING))
    resting.version = room.store.policy.version
    room.approvals._policy = room.break_glass._policy = resting
    with pytest.raises(NotAllowedError, match="holidays"):
        await room.approve("dana", room.code("dana", LATER))

    await room.store.page(incident_id="Q0INCIDENT2", event_id="other")
    await room.offer("plan-2", incident_id="Q0INCIDENT2")
    for name, plan_id in (("alice", "plan-2"), ("paul", "plan-1")):
        await room.start(name, plan_id=plan_id)
        row = await room.store.plans.get(plan_id)
        await room.approvals.still_hold(row, now=LATER)
        assert await room.approvals.begin(row, now=LATER)
    assert resting.over_limit(row.plan, await room.store.plans.recent_acts(now=LATER, but="plan-1"), LATER)


async def test_a_reason_fits_the_notice_and_the_link(room: Room) -> None:
    """One that is too long is refused, with its length; one whose link would be too long leaves the link whole."""
    for reason, error, says in (
        ("x" * 301, StaleError, "has 301 characters, and 300 fit"),
        ("\u2603" * 300, None, "."),
    ):
        with pytest.raises(error or StepUpNeededError, match=says) as refusal:
            await room.break_glass.start(
                "plan-1", by=room.store.person("paul"), reason=reason, now=LATER, digest=None, code=None
            )
        assert len(getattr(refusal.value, "url", "") or "") < 1600
    assert (await room.store.plans.get("plan-1")).approvals == ()


async def test_it_holds_at_the_start_only_for_who_still_may(room: Room, tmp_path: Path) -> None:
    """The role is gone from the configuration; or a row has no code, whoever wrote it."""
    await room.start("paul")
    row = await room.store.plans.get("plan-1")
    without = Policy(config_in(tmp_path, configuration()))
    without.version = room.store.policy.version
    room.approvals._policy = without
    with pytest.raises(StaleError, match="may not break the glass any more"):
        await room.approvals.still_hold(row, now=LATER)

    room.approvals._policy = room.store.policy
    unproven = room.store.plans.seals.row("plan-1", replace(row.approvals[0], step_up=None))
    async with room.store.database.write() as connection:
        await connection.execute(tables.approval.update().values(unproven))
    with pytest.raises(StaleError, match="did not confirm it outside Slack"):
        await room.approvals.still_hold(await room.store.plans.get("plan-1"), now=LATER)


async def test_somebody_else_reviews_it(room: Room, tmp_path: Path) -> None:
    """Listed until then; whoever broke the glass cannot, nobody twice; and what was said is on record."""
    await room.start("paul")
    settings = Settings(database_url=room.store.database.url.render_as_string(hide_password=False))
    config = config_in(tmp_path, configuration() + GLASS)
    tomorrow = await reviews(settings, LATER + timedelta(hours=25))
    assert "OVERDUE  2026-11-22 03:05 UTC  paul as platform started plan-1 alone: nobody else" in tomorrow
    for by, says, why in (
        ("paul", "fine", "somebody else"),
        ("eve", "fine", "not in"),
        ("dana", " ", "--says is empty"),
    ):
        with pytest.raises(WatchkeeperError, match=why):
            await review(settings, config, 1, by=by, says=says, actor="unix:root")
    await review(settings, config, 1, by="dana", says="right; two more phones are needed", actor="unix:root")

    assert "closed" in await reviews(settings, LATER)
    assert await room.glass.reviews(open_only=True) == []
    last = (await AuditLog(room.store.database).about(INCIDENT))[-1]
    assert (last.actor, last.action, last.details["written_by"]) == ("dana", "break_glass.reviewed", "unix:root")
    with pytest.raises(AlreadyDecidedError):
        await review(settings, config, 1, by="alice", says="fine", actor="unix:root")


async def test_the_page_asks_for_reason_and_code(room: Room) -> None:
    """Whoever may finds it below the decision, with the reason from Slack; who may not does not see it."""
    now = datetime.now(UTC)
    await room.offer("plan-2", rank=1, made_at=now, expires_at=now + timedelta(minutes=9))
    async with operator_house(room.store, watchkeeper_step_up_key=KEY) as site, site.signed_in("paul") as browser:
        page = (await browser.get("/plans/plan-2?reason=alone+%22here%22")).text
        csrf = page.split('name="csrf" value="')[1][:64]
        digest = (await room.store.plans.get("plan-2")).digest
        form = {"csrf": csrf, "digest": digest, "decision": "break_glass", "reason": "alone here"}
        none = await browser.post("/plans/plan-2", data=form, headers=own_form())
        right = await browser.post(
            "/plans/plan-2", data=form | {"code": room.code("paul", datetime.now(UTC))}, headers=own_form()
        )
        after = (await browser.get("/plans/plan-2")).text
        async with site.signed_in("dana") as other:
            elsewhere = (await other.get("/plans/plan-1")).text

    assert '<details id="break-glass" open>' in page
    assert 'value="alone &#34;here&#34;"' in page
    assert (none.status_code, right.status_code) == (400, 303)
    assert "Broke the glass" in after
    assert "break-glass" not in elsewhere


def test_the_configuration_says_who(tmp_path: Path) -> None:
    """A role that does not exist, an unknown service, nobody at all: refused with the line."""
    for wrong in ("roles = []", 'roles = ["boss"]', 'roles = ["platform"]\nservice = "nosuch"'):
        (tmp_path / "wrong.toml").write_text(configuration() + f"\n[[break_glass]]\n{wrong}\n")
        with pytest.raises(ConfigError, match="break_glass"):
            load_config(tmp_path / "wrong.toml")
