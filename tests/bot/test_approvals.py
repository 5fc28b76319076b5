"""Who may approve what: the cast tries, the policy answers, and the decision falls once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.approvals import Approvals
from bot.incidents import AlreadyDecidedError, NotAllowedError, PlanState, StaleError, StoppedError
from bot.policy import Policy
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.kill_switch import KillSwitch
from runbooks.engine.values import Tier, plan_json
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, event, plan, renamed, step, unbound


@pytest.fixture
async def approvals(store: Store) -> Approvals:
    """Approvals over an incident that was just paged."""
    await store.page()
    return Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy)


async def test_the_prompt_owner_approves_alone(store: Store, approvals: Approvals) -> None:
    """R1 in prod needs one of two roles, once."""
    await store.offer(plan(store.policy.version))

    settled = await approvals.approve("plan-1", by=store.person("bob"), now=NOW)

    row = await store.plans.get("plan-1")
    assert settled
    assert row.state is PlanState.APPROVED
    assert [(each.person_id, each.role, each.digest) for each in row.approvals] == [
        ("bob", "prompt-owner", row.plan.digest)
    ]


async def test_on_call_alone_is_not_enough_where_the_policy_says_so(store: Store, approvals: Approvals) -> None:
    """Alice is on call for the incident, which the rule does not list; she is told who may."""
    await store.offer(plan(store.policy.version))

    with pytest.raises(NotAllowedError, match="Bob Brandt"):
        await approvals.approve("plan-1", by=store.person("alice"), now=NOW)

    assert (await store.plans.get("plan-1")).state is PlanState.PROPOSED


async def test_two_different_people_are_needed_for_a_riskier_action(store: Store, approvals: Approvals) -> None:
    """The first approval does not settle it, the same person's second does not count, the second person's does."""
    await store.offer(plan(store.policy.version, steps=(step(tier=Tier.R2),)))

    first = await approvals.approve("plan-1", by=store.person("dana"), now=NOW)
    with pytest.raises(AlreadyDecidedError):
        await approvals.approve("plan-1", by=store.person("dana"), now=NOW)
    second = await approvals.approve("plan-1", by=store.person("paul"), now=NOW)

    assert (first, second) == (False, True)


async def test_nobody_may_where_no_rule_matches(store: Store, approvals: Approvals) -> None:
    """Deny by default: the configuration has no rule for irreversible actions."""
    await store.offer(plan(store.policy.version, steps=(step(tier=Tier.R3),)))

    with pytest.raises(NotAllowedError, match="No policy rule"):
        await approvals.approve("plan-1", by=store.person("dana"), now=NOW)


async def test_the_tier_of_a_plan_is_its_most_dangerous_step(store: Store, approvals: Approvals) -> None:
    """A harmless first step does not lower what the second one needs."""
    steps = (step(), step(index=1, tier=Tier.R2, target="fake/thing/two"))
    await store.offer(plan(store.policy.version, steps=steps))

    with pytest.raises(NotAllowedError):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_whoever_requested_a_fix_cannot_approve_it(store: Store, approvals: Approvals) -> None:
    """Bob asks for the alternative; Dana has to approve it."""
    await store.offer(plan(store.policy.version), state=PlanState.ALTERNATIVE)

    await approvals.request("plan-1", by=store.person("bob"), now=NOW)

    with pytest.raises(NotAllowedError, match="somebody else"):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    assert await approvals.approve("plan-1", by=store.person("dana"), now=NOW)


async def test_a_request_takes_the_place_of_what_was_proposed(store: Store, approvals: Approvals) -> None:
    """One fix is on the table at a time, and the old one cannot be approved any more."""
    await store.offer(plan(store.policy.version))
    other = renamed(plan(store.policy.version), "plan-2")
    await store.offer(other, rank=1, state=PlanState.ALTERNATIVE)

    await approvals.request("plan-2", by=store.person("alice"), now=NOW)

    assert (await store.plans.get("plan-1")).state is PlanState.SUPERSEDED
    with pytest.raises(AlreadyDecidedError):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    requested = await store.plans.get("plan-2")
    assert requested.state is PlanState.PROPOSED
    assert requested.plan.requester == "alice"
    assert requested.digest == requested.plan.digest != other.digest


async def test_the_decision_falls_once(store: Store, approvals: Approvals) -> None:
    """Two people race for the button of a plan that needs one; it starts once, and one of them hears so."""
    await store.offer(plan(store.policy.version))

    clicks = [approvals.approve("plan-1", by=store.person(name), now=NOW) for name in ("bob", "dana") * 5]
    results = await asyncio.gather(*clicks, return_exceptions=True)

    assert [result for result in results if result is True] == [True]
    assert sum(isinstance(result, AlreadyDecidedError) for result in results) == 9
    assert await store.plans.to_start() == [("plan-1", 1)]


async def test_a_denied_plan_is_over(store: Store, approvals: Approvals) -> None:
    """Whoever may approve may deny, for good."""
    await store.offer(plan(store.policy.version))

    await approvals.deny("plan-1", by=store.person("dana"), now=NOW)

    assert (await store.plans.get("plan-1")).state is PlanState.DENIED
    with pytest.raises(AlreadyDecidedError):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_an_offer_expires(store: Store, approvals: Approvals) -> None:
    """Fifteen minutes after it was made, the world may be another."""
    await store.offer(plan(store.policy.version))

    with pytest.raises(StaleError, match="expired"):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW + timedelta(minutes=16))


async def test_a_resolved_incident_needs_no_fix(store: Store, approvals: Approvals) -> None:
    """A click on a card that Slack has not redrawn yet."""
    await store.offer(plan(store.policy.version))
    await store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(minutes=1)), now=NOW)
    await store.inbox.fold(now=NOW)

    with pytest.raises(StaleError, match="resolved"):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_a_plan_of_another_policy_cannot_be_approved(store: Store, approvals: Approvals) -> None:
    """The configuration changed between the plan and the click."""
    await store.offer(plan("older-policy"))

    with pytest.raises(StaleError, match="policy changed"):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_a_plan_changed_in_the_database_does_not_match_its_hash(store: Store, approvals: Approvals) -> None:
    """Whoever edits a row cannot make an approval count for something else."""
    item = plan(store.policy.version)
    await store.offer(item)
    changed = replace(item, steps=(step(params={"to": 1}),))
    async with store.database.write() as connection:
        await connection.execute(tables.plan.update().values(frozen=plan_json(changed)))

    with pytest.raises(StaleError, match="own hash"):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_an_approval_does_not_survive_the_loss_of_the_role(
    store: Store, approvals: Approvals, tmp_path: Path
) -> None:
    """Bob approves, then the configuration drops him as approver before the plan starts."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    without = Policy(config_in(tmp_path, CONFIG.replace('prompt-owner = ["bob"]', 'prompt-owner = ["dana"]')))
    without.version = store.policy.version
    later = Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=without)

    with pytest.raises(StaleError, match="Bob Brandt may not approve it any more"):
        await later.still_hold(await store.plans.get("plan-1"), now=NOW)


async def test_an_approved_plan_starts_once_and_in_time(store: Store, approvals: Approvals) -> None:
    """The second clock: ten minutes after the approval it is too late."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    row = await store.plans.get("plan-1")

    with pytest.raises(StaleError, match="too long ago"):
        await store.plans.begin(row, now=NOW + timedelta(minutes=11), bound=unbound)
    assert await store.plans.begin(row, now=NOW + timedelta(minutes=9), bound=unbound)
    assert not await store.plans.begin(row, now=NOW + timedelta(minutes=9), bound=unbound)


async def test_one_plan_at_a_time_works_on_a_target(store: Store, approvals: Approvals) -> None:
    """Two incidents, one prompt: the second plan does not start while the first runs."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    await store.plans.begin(await store.plans.get("plan-1"), now=NOW, bound=unbound)
    await store.page(incident_id="Q0INCIDENT2", event_id="other")
    await store.offer(plan(store.policy.version, plan_id="plan-2", incident_id="Q0INCIDENT2"))
    await approvals.approve("plan-2", by=store.person("bob"), now=NOW)

    with pytest.raises(StaleError, match="fake/thing/one"):
        await store.plans.begin(await store.plans.get("plan-2"), now=NOW, bound=unbound)


async def test_every_decision_is_on_record(store: Store, approvals: Approvals) -> None:
    """Plan, approval and start are links of one unbroken chain."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    await store.plans.begin(await store.plans.get("plan-1"), now=NOW, bound=unbound)

    log = AuditLog(store.database)
    rows = await log.about(INCIDENT)
    assert [row.action for row in rows] == ["incident.seen", "plan.proposed", "plan.approve", "plan.started"]
    assert rows[2].actor == "bob"
    assert (await log.verify()).broken_at is None


async def test_two_plans_that_begin_together_do_not_share_a_target(store: Store, approvals: Approvals) -> None:
    """Two incidents of one service, approved at once: one fix works on the prompt, the other is refused."""
    await store.page(incident_id="Q0INCIDENT2", event_id="other")
    await store.offer(plan(store.policy.version))
    await store.offer(plan(store.policy.version, plan_id="plan-2", incident_id="Q0INCIDENT2"))
    for name in ("plan-1", "plan-2"):
        await approvals.approve(name, by=store.person("bob"), now=NOW)
    rows = [await store.plans.get(name) for name in ("plan-1", "plan-2")]

    ends = await asyncio.gather(
        *(store.plans.begin(row, now=NOW, bound=unbound) for row in rows), return_exceptions=True
    )

    assert sorted(str(end) for end in ends) == ["True", "another plan is working on fake/thing/one"]


async def test_one_fix_at_a_time_is_approved_for_an_incident(store: Store, approvals: Approvals) -> None:
    """A second proposal beside an approved one cannot be approved."""
    await store.offer(plan(store.policy.version))
    await store.offer(renamed(plan(store.policy.version), "plan-2"), rank=1)
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)

    with pytest.raises(AlreadyDecidedError, match="Another fix"):
        await approvals.approve("plan-2", by=store.person("bob"), now=NOW)


async def test_asking_again_withdraws_what_is_on_the_table(store: Store, approvals: Approvals) -> None:
    """Whoever wants another look does not want the fix of the first one to be approved meanwhile."""
    await store.offer(plan(store.policy.version))
    await store.incidents.finish(INCIDENT, 1, now=NOW, cause="S04", probability=0.9)

    await store.incidents.ask_again(INCIDENT, by="alice", now=NOW)

    assert (await store.plans.get("plan-1")).state is PlanState.SUPERSEDED
    with pytest.raises(AlreadyDecidedError):
        await approvals.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_many_who_ask_again_at_once_make_one_diagnosis(store: Store, approvals: Approvals) -> None:
    """The incident's row is locked, so nobody takes a number twice."""
    await store.incidents.finish(INCIDENT, 1, now=NOW, cause="S04", probability=0.9)

    numbers = await asyncio.gather(*(store.incidents.ask_again(INCIDENT, by="alice", now=NOW) for _ in range(8)))

    assert set(numbers) == {2}


async def test_observe_means_that_nothing_is_changed(store: Store, approvals: Approvals, tmp_path: Path) -> None:
    """A service that went back to mode observe has no approvers, whatever was on the table."""
    await store.offer(plan(store.policy.version))
    watching = Policy(config_in(tmp_path, CONFIG.replace('mode = "approve"', 'mode = "observe"')))
    later = Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=watching)

    with pytest.raises(NotAllowedError, match="observe"):
        await later.approve("plan-1", by=store.person("bob"), now=NOW)


def deciding(store: Store, folder: Path, text: str) -> Approvals:
    """Approvals under another configuration, which calls itself the same version."""
    policy = Policy(config_in(folder, text))
    policy.version = store.policy.version
    return Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=policy)


FREEZE = """
[[freeze]]
name = "weekend"
timezone = "UTC"
start = "Sat 00:00"
end = "Mon 08:00"
reason = "nobody is here"
"""


async def test_a_freeze_lets_nothing_be_approved_or_started(store: Store, approvals: Approvals, tmp_path: Path) -> None:
    """A Sunday night: refused at the click, and at the start for what was approved before; a refusal stays possible."""
    await store.offer(plan(store.policy.version))
    frozen = deciding(store, tmp_path, CONFIG + FREEZE)

    with pytest.raises(NotAllowedError, match=r"rest until Mon 23 Nov 2026, 08:00 UTC \(weekend: nobody is here\)"):
        await frozen.approve("plan-1", by=store.person("bob"), now=NOW)
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    with pytest.raises(StaleError, match="break-glass"):
        await frozen.still_hold(await store.plans.get("plan-1"), now=NOW)
    await store.offer(plan(store.policy.version, plan_id="plan-2"), rank=1)
    await frozen.deny("plan-2", by=store.person("bob"), now=NOW)


async def test_an_undo_is_never_frozen(store: Store, tmp_path: Path) -> None:
    """Whoever broke something may take it back at any time."""
    await store.page()
    await store.offer(plan(store.policy.version, undoes="plan-0"))

    frozen = deciding(store, tmp_path, CONFIG + FREEZE)

    assert await frozen.approve("plan-1", by=store.person("bob"), now=NOW)
    await frozen.still_hold(await store.plans.get("plan-1"), now=NOW)


async def test_a_limit_holds_for_fixes_that_start_together(store: Store, approvals: Approvals, tmp_path: Path) -> None:
    """Two were approved while one was free; they start at once, and one is told when the next may."""
    limited = deciding(store, tmp_path, CONFIG + "[[limit]]\nper_hour = 1\n")
    await store.page(incident_id="Q0INCIDENT2", event_id="other")
    elsewhere = (step(target="fake/thing/two"),)
    await store.offer(plan(store.policy.version))
    await store.offer(plan(store.policy.version, plan_id="plan-2", incident_id="Q0INCIDENT2", steps=elsewhere))
    for name in ("plan-1", "plan-2"):
        await limited.approve(name, by=store.person("bob"), now=NOW)
    rows = [await store.plans.get(name) for name in ("plan-1", "plan-2")]

    ends = await asyncio.gather(*(limited.begin(row, now=NOW) for row in rows), return_exceptions=True)

    said = "steps may start at most 1 times an hour, and 1 did; it is free again at 04:00 UTC"
    assert sorted(map(str, ends)) == sorted(["True", said])


async def test_a_limit_counts_what_began_within_the_hour(store: Store, approvals: Approvals, tmp_path: Path) -> None:
    """A fix that is over counts by its journal, for an hour; one that ended before it began anything does not."""
    limited = deciding(store, tmp_path, CONFIG + "[[limit]]\nper_target_per_hour = 1\n")
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    row = await store.plans.get("plan-1")
    await limited.begin(row, now=NOW)
    record = {"kind": "intent", "step": 0, "token": "t"}
    later = NOW + timedelta(minutes=5)
    await store.journal.append(row.plan, position=1, step=0, kind="intent", record=record, now=later)
    await store.plans.end(row.plan, PlanState.VERIFIED, "", now=later, expected=[PlanState.RUNNING])
    await store.offer(plan(store.policy.version, plan_id="plan-2", expires_at=NOW + timedelta(hours=3)), rank=1)

    with pytest.raises(NotAllowedError, match="on fake/thing/one, and 1 did; it is free again at 04:05 UTC"):
        await limited.approve("plan-2", by=store.person("bob"), now=NOW + timedelta(minutes=64))
    assert await limited.approve("plan-2", by=store.person("bob"), now=NOW + timedelta(minutes=65))


async def test_a_rule_has_clocks_of_its_own(store: Store, tmp_path: Path) -> None:
    """An hour to decide, two minutes to start."""
    await store.page()
    slow = deciding(
        store,
        tmp_path,
        CONFIG.replace('"service-owner"]\n', '"service-owner"]\nexpires_min = 60\nstart_within_min = 2\n', 1),
    )
    policy = Policy(config_in(tmp_path, (tmp_path / "watchkeeper.toml").read_text()))
    item = policy.timed(plan(store.policy.version))
    await store.offer(item)

    assert await slow.approve("plan-1", by=store.person("bob"), now=NOW + timedelta(minutes=59))

    row = await store.plans.get("plan-1")
    assert (item.expires_at, row.start_by) == (NOW + timedelta(hours=1), NOW + timedelta(minutes=61))


async def test_suggest_means_that_a_fix_is_only_shown(store: Store, tmp_path: Path) -> None:
    """The plan is there to be read, and nobody can approve it."""
    await store.page()
    await store.offer(plan(store.policy.version))
    shown = deciding(store, tmp_path, CONFIG.replace('mode = "approve"', 'mode = "suggest"'))

    with pytest.raises(NotAllowedError, match="mode suggest"):
        await shown.approve("plan-1", by=store.person("bob"), now=NOW)


async def test_a_revoked_approval_counts_for_nothing(store: Store, approvals: Approvals) -> None:
    """Who gave it takes it back, on record; the same steps are offered again, and what was approved never starts."""
    item = plan(store.policy.version)
    await store.offer(item)
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    approved = await store.plans.get("plan-1")
    with pytest.raises(NotAllowedError):
        await approvals.revoke("plan-1", by=store.person("alice"), now=NOW)
    with pytest.raises(StaleError, match="not the fix that you read"):
        await approvals.revoke("plan-1", by=store.person("bob"), now=NOW, digest="0" * 64)

    await approvals.revoke("plan-1", by=store.person("bob"), now=NOW)

    rows = {row.state: row for row in await store.plans.of_incident(INCIDENT)}
    assert set(rows) == {PlanState.SUPERSEDED, PlanState.PROPOSED}
    again = rows[PlanState.PROPOSED]
    assert (again.approvals, again.plan.steps, again.digest == item.digest) == ((), item.steps, False)
    assert again.plan.expires_at == item.expires_at
    assert await store.plans.to_start() == []
    for stale in (approved, again):
        with pytest.raises(StaleError):
            await approvals.begin(stale, now=NOW)
    with pytest.raises(AlreadyDecidedError):
        await approvals.revoke("plan-1", by=store.person("bob"), now=NOW)
    [revoked] = [each for each in await AuditLog(store.database).about(INCIDENT) if each.action == "plan.revoke"]
    assert (revoked.actor, revoked.details["digest"]) == (store.person("bob").person_id, item.digest)
    await approvals.approve(again.plan.plan_id, by=store.person("bob"), now=NOW)
    assert await store.plans.to_start() == [(again.plan.plan_id, 1)]


async def test_a_stop_is_not_gone_round_by_revoking(store: Store, approvals: Approvals) -> None:
    """What was approved before a stop never starts, under no other name either."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    switch = KillSwitch(store.database)
    await switch.stop(by="dana", name="Dana", reason="", channel="slack", now=NOW)
    await switch.go(by="dana", name="Dana", channel="slack", now=NOW)

    with pytest.raises(StoppedError):
        await approvals.revoke("plan-1", by=store.person("bob"), now=NOW)


async def test_a_start_and_a_revoke_are_one_transition(store: Store, approvals: Approvals) -> None:
    """Twenty workers begin it while twenty clicks take it back: it began once, or it was revoked once."""
    await store.offer(plan(store.policy.version))
    await approvals.approve("plan-1", by=store.person("bob"), now=NOW)
    row = await store.plans.get("plan-1")
    deeds = [
        deed
        for _ in range(20)
        for deed in (approvals.revoke("plan-1", by=store.person("bob"), now=NOW), approvals.begin(row, now=NOW))
    ]

    ends = await asyncio.gather(*deeds, return_exceptions=True)

    assert {type(end) for end in ends if isinstance(end, Exception)} <= {AlreadyDecidedError, StaleError}
    assert len([end for end in ends if end is None or end is True]) == 1
    record = [each.action for each in await AuditLog(store.database).about(INCIDENT)]
    assert record.count("plan.revoke") + record.count("plan.started") == 1


async def test_a_hundred_clicks_at_once_are_one_transition(store: Store, approvals: Approvals) -> None:
    """Approve and deny, by two people who may, a hundred times; then fifty workers that begin it."""
    await store.offer(plan(store.policy.version))
    clicks = [approvals.approve("plan-1", by=store.person(name), now=NOW) for name in ("bob", "dana") * 40]
    clicks[10:10] = [approvals.deny("plan-1", by=store.person(name), now=NOW) for name in ("bob", "dana") * 10]  # type: ignore[misc]  # None or True

    ends = await asyncio.gather(*clicks, return_exceptions=True)
    row = await store.plans.get("plan-1")
    begun = await asyncio.gather(*(approvals.begin(row, now=NOW) for _ in range(50)), return_exceptions=True)

    assert sum(not isinstance(end, Exception) for end in ends) == 1
    assert {type(end) for end in ends if isinstance(end, Exception)} == {AlreadyDecidedError}
    is_approved = row.state is PlanState.APPROVED
    assert sum(each is True for each in begun) == is_approved
    record = [each.action for each in await AuditLog(store.database).about(INCIDENT)]
    assert len([action for action in record if action in ("plan.approve", "plan.deny")]) == 1
    assert record.count("plan.started") == is_approved
