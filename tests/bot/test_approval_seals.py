"""An approval that was written into the database, and not said by anybody, starts nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bot.incidents import PlanState, StaleError
from bot.parts import approvals_key
from bot.seal import SealKey, new_secret
from bot.settings import Settings
from bot.store import tables
from bot.store.approval_seals import ApprovalSeals
from bot.store.audit import AuditLog
from bot.store.plan_rows import Approval
from bot.store.plans import Plans
from diagnostics.findings import Status
from runbooks.engine.values import Plan, Tier
from tests.bot.test_remediate import Scene
from tests.kit import INCIDENT, NOW, Store, plan, step

WORD = Approval(person_id="bob", decision="approve", role="prompt-owner", digest="d" * 64, at=NOW)


async def administer(store: Store, statement: sa.Executable) -> None:
    """What somebody with the database and nothing else can do; every other row of theirs looks right."""
    async with store.database.write() as connection:
        await connection.execute(statement)


def inserted(item: Plan, person: str = "bob", role: str = "prompt-owner", **more: Any) -> sa.Insert:
    row = {"plan_id": item.plan_id, "person_id": person, "decision": "approve", "role": role, "digest": item.digest}
    return tables.approval.insert().values({**row, "at": datetime.now(UTC), "step_up": None, **more})


def as_approved() -> sa.Update:
    now = datetime.now(UTC)
    values = {"state": "approved", "state_at": now, "start_by": now + timedelta(minutes=10)}
    return tables.plan.update().where(tables.plan.c.plan_id == "plan-1").values(values)


async def offered(store: Store, **more: Any) -> Plan:
    now = datetime.now(UTC)
    await store.page()
    return await store.offer(plan(store.policy.version, made_at=now, expires_at=now + timedelta(minutes=15), **more))


@pytest.mark.parametrize("seal", [None, "", "0" * 64, ApprovalSeals(b"another key")])
async def test_an_approval_that_was_inserted_starts_nothing(store: Store, seal: Any) -> None:
    """With no seal, any seal, or that of another key: the plan goes stale, nothing acts, and the record says why."""
    scene = Scene(store, [Status.OK])
    item = await offered(store)
    said = replace(WORD, digest=item.digest, at=datetime.now(UTC))
    forged = seal.row(item.plan_id, said)["seal"] if isinstance(seal, ApprovalSeals) else seal
    await administer(store, inserted(item, at=said.at, seal=forged))
    await administer(store, as_approved())

    await scene.tell()

    assert (await scene.end(), scene.action.acts) == ((PlanState.STALE, []), [])
    row = (await AuditLog(store.database).about(INCIDENT))[-1]
    assert row.action == "plan.stale"
    assert "the decision of bob has no seal of ours" in row.details["why"]


async def test_what_somebody_said_cannot_be_made_to_mean_more(store: Store) -> None:
    """No column of a true approval can be changed, and it cannot be moved to another plan; untouched it carries."""
    scene = Scene(store, [Status.OK])
    item = await scene.approved()
    row = await store.plans.get("plan-1")
    [word] = row.approvals
    changes: list[dict[str, Any]] = [
        {"person_id": "dana"},
        {"decision": "break_glass"},
        {"role": "service-owner"},
        {"digest": "0" * 64},
        {"at": word.at + timedelta(hours=1)},
        {"step_up": "totp"},
        {"channel": "operator"},
    ]

    refused = []
    for change in changes:
        with pytest.raises(StaleError, match="no seal of ours") as refusal:
            await scene.approvals.still_hold(replace(row, approvals=(replace(word, **change),)), now=datetime.now(UTC))
        refused.append(refusal)
    moved = replace(row, plan=replace(item, plan_id="plan-2"))
    assert not store.plans.seals.holds("plan-2", word)
    with pytest.raises(StaleError, match="no seal of ours"):
        await store.plans.save_approved(item, by=moved, start_by=NOW, now=NOW)  # nor does it carry an undo
    assert len(refused) == len(changes)
    await scene.approvals.still_hold(row, now=datetime.now(UTC))


async def test_a_forged_voice_does_not_complete_a_quorum(store: Store) -> None:
    """Dana says yes to what needs two; the second one was only inserted."""
    scene = Scene(store, [Status.OK])
    item = await offered(store, steps=(step(tier=Tier.R2),))
    await administer(store, inserted(item, "paul", "platform"))

    settled = await scene.approvals.approve("plan-1", by=store.person("dana"), now=datetime.now(UTC))

    assert not settled
    assert (await store.plans.get("plan-1")).state is PlanState.PROPOSED


async def test_an_approval_from_before_the_seals_is_to_be_given_again(store: Store) -> None:
    """The column is empty after the migration; the refusal says what to do."""
    scene = Scene(store, [Status.OK])
    await scene.approved()
    await administer(store, tables.approval.update().values(seal=None))

    await scene.tell()

    assert (await scene.end(), scene.action.acts) == ((PlanState.STALE, []), [])
    assert "diagnose and approve again" in (await store.plans.get("plan-1")).why


def test_every_process_has_the_key_and_the_database_has_not(store: Store) -> None:
    """By the seal key, else by Slack's token, which doors and workers share; without both seals are nobody else's."""
    secret, token = new_secret(), {"SLACK_BOT_TOKEN": "xoxb-1-of-this-workspace"}
    by_key = Settings.load({**token, "WATCHKEEPER_SEAL_KEY": secret})
    by_token, again, bare = Settings.load(token), Settings.load(token), Settings.load({})

    assert approvals_key(by_key, SealKey(secret)) == SealKey(secret).for_approvals
    assert approvals_key(by_token, None) == approvals_key(again, None) != approvals_key(by_key, SealKey(secret))
    assert approvals_key(bare, None) != approvals_key(bare, None)
    here = Plans(store.database, ApprovalSeals(approvals_key(by_token, None))).seals.row("plan-1", WORD)
    assert ApprovalSeals(approvals_key(again, None)).holds("plan-1", replace(WORD, seal=here["seal"]))
    assert not ApprovalSeals().holds("plan-1", replace(WORD, seal=here["seal"]))
