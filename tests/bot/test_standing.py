"""Whoever approved is asked about again when the plan starts and before each act: would Slack still let them click?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.incidents import Person, PlanState, StaleError
from bot.slack.authorise import Authoriser, NobodyError
from bot.slack.client import SlackError
from bot.standing import HOLDS_FOR, CannotAskError, refuse_lost
from bot.store.plan_rows import Approval
from diagnostics.findings import Status
from runbooks.engine.values import Tier
from tests.bot.test_remediate import Scene
from tests.kit import NOW, config_in, open_store, step

TEAM = "T0LAB00001"
BOB = Person(person_id="bob", name="Bob Brandt")
AWAY = SlackError("Slack cannot be reached: TimeoutError", permanent=False, unreachable=True)


class Workspace:
    """Slack's users.info: members of one team, changed as the test says; `fault` is raised instead."""

    def __init__(self, **flags: Any) -> None:
        self.flags = flags
        self.fault: SlackError | None = None
        self.closes_after: Sequence[int] = ()

    async def users_info(self, user: str) -> Mapping[str, Any]:
        if self.fault is not None:
            raise self.fault
        return {"id": user, "team_id": TEAM, "deleted": bool(self.closes_after), **self.flags}


class People:
    """Bob has an account, Dana has none."""

    async def by_slack(self, team: str, user: str) -> Person | None:
        return BOB if (team, user) == (TEAM, "U0BOB") else None

    async def accounts(self, person_id: str) -> list[tuple[str, str]]:
        return [(TEAM, "U0BOB")] if person_id == "bob" else []


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({}, ""),
        ({"deleted": True}, "the Slack account is deactivated (deleted)"),
        ({"is_restricted": True}, "the Slack account is a guest's (is_restricted)"),
        ({"is_bot": True}, "the Slack account is a bot's (is_bot)"),
        ({"team_id": "T0OTHER"}, "the Slack account belongs to another team, T0OTHER"),
    ],
    ids=str,
)
async def test_the_start_asks_what_the_click_asks(flags: dict[str, Any], why: str) -> None:
    """The same account is refused at both, for the same reason."""
    authoriser = Authoriser(people=People(), directory=Workspace(**flags))

    assert await authoriser.lost("bob", now=NOW) == why
    click = authoriser.person({"team": {"id": TEAM}, "user": {"id": "U0BOB"}})
    if not why:
        assert await click == BOB
        return
    with pytest.raises(NobodyError) as refusal:
        await click
    assert refusal.value.why == why


async def test_silence_is_no_answer_and_a_yes_is_remembered() -> None:
    """An account that Slack does not know is one; and nobody asks about somebody without an account."""
    workspace = Workspace()
    authoriser = Authoriser(people=People(), directory=workspace)
    assert await authoriser.lost("bob", now=NOW) == ""
    workspace.fault = AWAY
    with pytest.raises(CannotAskError) as silence:
        await authoriser.lost("bob", now=NOW + timedelta(hours=1))
    assert silence.value.said_at == NOW

    workspace.fault = SlackError("Slack answered user_not_found", permanent=True, missing=True)
    assert await authoriser.lost("bob", now=NOW) == "Slack answered user_not_found"
    assert await authoriser.lost("dana", now=NOW) == ""


@pytest.mark.parametrize("channel", ["slack", "operator"])
async def test_whom_slack_disowns_started_nothing(tmp_path: Path, channel: str) -> None:
    """Bob approved a minute ago, in whatever way; at the start his account is closed, and the card says so."""
    workspace = Workspace(deleted=True)
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        scene = Scene(store, [Status.OK], Authoriser(people=store.people, directory=workspace))
        await scene.approved(by=replace(store.person("bob"), channel=channel))
        await scene.tell()

        row = await store.plans.get("plan-1")
        assert (row.state, row.approvals[0].channel) == (PlanState.STALE, channel)
        assert row.why.startswith("Not started: Bob Brandt may not approve it any more: the Slack account is deactiv")
        assert scene.action.acts == []


async def test_it_is_asked_before_each_act(tmp_path: Path) -> None:
    """Bob's account is closed while the first step runs; the second does not begin."""
    workspace = Workspace()
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        scene = Scene(store, [Status.OK], Authoriser(people=store.people, directory=workspace))
        scene.action.takes_effect = False  # what the second step finds is what its plan was made from
        workspace.closes_after = scene.action.acts
        await scene.approved(steps=(step(verify=()), step(index=1, target="fake/thing/two", verify=())))
        await scene.tell()

        assert (await scene.end())[0] is PlanState.FAILED
        assert "is deactivated" in (await store.plans.get("plan-1")).why
        assert scene.action.acts == [7]


class Silent:
    """Slack does not say; it said yes at `said_at`."""

    def __init__(self, minutes: float | None) -> None:
        self.said_at = None if minutes is None else NOW + timedelta(minutes=minutes)

    async def lost(self, person_id: str, *, now: object) -> str:
        raise CannotAskError("Slack cannot be reached", said_at=self.said_at)


@pytest.mark.parametrize(
    ("channel", "tier", "said_at", "after", "why"),
    [
        ("slack", Tier.R2, None, HOLDS_FOR, ""),
        ("slack", Tier.R2, None, HOLDS_FOR + timedelta(seconds=1), "15 min"),
        ("slack", Tier.R3, -30, HOLDS_FOR + timedelta(seconds=1), "15 min"),
        ("slack", Tier.R2, 10, HOLDS_FOR + timedelta(minutes=10), ""),
        ("slack", Tier.R2, 10, HOLDS_FOR + timedelta(minutes=11), "16 min"),
        ("slack", Tier.R1, None, timedelta(minutes=59), ""),
        ("operator", Tier.R3, None, timedelta(minutes=59), ""),
    ],
)
async def test_silence_closes_what_is_dangerous(
    channel: str, tier: Tier, said_at: float | None, after: timedelta, why: str
) -> None:
    """From R2 on Slack's last yes is worth fifteen minutes: the click itself, or what was heard since."""
    given = Approval(person_id="bob", decision="approve", role="platform", digest="d", at=NOW, channel=channel)
    asking = refuse_lost(Silent(said_at), BOB, given, tier, NOW + after)

    if not why:
        await asking
        return
    with pytest.raises(StaleError, match=f"^for {why} Slack could not confirm that Bob Brandt"):
        await asking
