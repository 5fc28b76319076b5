"""Rolling a database role's password, against a server that answers like Vault."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import VaultAccess, build_actions
from runbooks.engine.plan import fresh, plan
from runbooks.engine.values import Action, ActionError, Happened, OutcomeUnknownError, Tier, plan_json
from tests.runbooks.test_plan import CONTEXT, runbook
from tests.runbooks.vault_server import TOKEN, VaultServer

pytestmark = pytest.mark.integration  # real HTTP

STEP = {"store": "vault", "service": "chat", "role": "chat-db"}
BOOK = (
    "action: vault.rotate_role\nwith: {store: vault, role: chat-db}\n"
    "irreversible: the old password must not work again\nverify: [error_ratio]"
)


@pytest.fixture
async def vault() -> AsyncIterator[VaultServer]:
    server = VaultServer(passwords={"chat-db": ["made-up-password-1"], "billing": ["made-up-password-1"]})
    async with server.running():
        yield server


def built(server: VaultServer, **more: Any) -> Action:
    known: dict[str, Any] = {"token": TOKEN, "services": ("chat",), "roles": ("chat-.*",), "timeout_s": 1.5}
    return build_actions(secrets={"vault": VaultAccess(url=server.url, **{**known, **more})})["vault.rotate_role"]


def params_of(action: Action, **more: Any) -> Any:
    return action.params.model_validate({**STEP, **more})


async def test_a_password_is_rolled_for_good(vault: VaultServer) -> None:
    """Once; R3, with the user in the sentence and no undo."""
    action = built(vault, namespace="llm")
    made = await plan(runbook(BOOK), CONTEXT, {action.name: action})
    [step] = made.steps
    answer = await action.act(params_of(action), step.before, "t-1")

    assert (step.tier, step.target, step.undo) == (Tier.R3, "vault/role/vault/chat-db", None)
    assert "gives the role chat-db (user app-chat-db of vectors) a new password" in step.effect
    assert answer == {"role": "chat-db", "rotated": "2026-11-22T03:02:00.123456789Z"}
    assert vault.passwords["chat-db"] == ["made-up-password-1", "made-up-password-2"]
    assert [(one.path, one.json) for one in vault.of("POST")] == [("/v1/database/rotate-role/chat-db", None)]
    assert {one.headers["x-vault-namespace"] for one in vault.seen} == {"llm"}
    assert await action.happened(params_of(action), step.before, "t-1") is Happened.YES


async def test_no_secret_goes_on(vault: VaultServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token nor a password is in the plan, an answer, an error or a log, though Vault tells all of them."""
    caplog.set_level(logging.DEBUG)
    action = built(vault)
    made = await plan(runbook(BOOK), CONTEXT, {action.name: action})
    said = [repr(plan_json(made)), repr(vars(action)), repr(await fresh(made, {action.name: action}))]
    said.append(repr(await action.act(params_of(action), made.steps[0].before, "t-1")))
    for fault in (400, 403, 500, "garbage"):
        vault.faults.before["POST"] = fault
        with pytest.raises((ActionError, OutcomeUnknownError)) as refused:
            await action.act(params_of(action), await action.read(params_of(action)), "t-2")
        said.append(repr(refused.value))

    assert "/v1/database/rotate-role/chat-db" in caplog.text  # httpx tells what it asks
    everything = "\n".join([*said, caplog.text])
    assert "made-up-password" not in everything
    assert TOKEN not in everything
    assert not [one for one in vault.seen if "static-creds" in one.path]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"role": "billing"}, "does not allow billing"),
        ({"role": "chat-gone"}, "no static role chat-gone below database"),
        ({"store": "other"}, r"no secret_store other \(it has: vault\)"),
        ({"service": "search"}, "is used by chat and not by search"),
    ],
)
async def test_what_is_not_allowed_is_not_planned(vault: VaultServer, more: dict[str, str], words: str) -> None:
    """Other roles, stores and services."""
    action = built(vault)
    with pytest.raises(ActionError, match=words):
        await action.read(params_of(action, **more))


async def test_a_standby_node_is_named(vault: VaultServer) -> None:
    """Its redirect is not followed, since the token would go along."""
    vault.standby, action = True, built(vault)
    with pytest.raises(ActionError, match="standby node"):
        await action.read(params_of(action))


async def test_a_rotation_meanwhile_stops_it(vault: VaultServer) -> None:
    """Vault rotated by itself, or somebody did: the plan is stale."""
    action = built(vault)
    before = await action.read(params_of(action))
    vault.passwords["chat-db"].append("made-up-password-2")
    with pytest.raises(ActionError, match=r"rotated.*nothing was changed"):
        await action.act(params_of(action), before, "t-1")
    assert vault.of("POST") == []


@pytest.mark.parametrize("fault", [500, "reset", "hang"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_never_a_no(vault: VaultServer, fault: int | str, when: str) -> None:
    """Vault tries again by itself what its database refused, so "not yet" is no reason to ask a second time."""
    action = built(vault, timeout_s=0.8)
    before = await action.read(params_of(action))
    getattr(vault.faults, when)["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params_of(action), before, "t-1")

    assert len(vault.of("POST")) == 1
    said = await action.happened(params_of(action), before, "t-1")
    assert said is (Happened.YES if when == "after" else Happened.CANNOT_TELL)


async def test_a_rotation_that_vault_leaves_for_later_is_in_doubt(vault: VaultServer) -> None:
    """It answered 204, and the role is as it was."""
    vault.silent, action = True, built(vault)
    with pytest.raises(OutcomeUnknownError, match="does not say that it was done"):
        await action.act(params_of(action), await action.read(params_of(action)), "t-1")


@pytest.mark.parametrize("bad", ["../sys/seal", "a/b", "chat-db\n", "", "-x", "chat db", "chat%2Fdb"])
def test_a_role_cannot_leave_its_place(bad: str) -> None:
    """It is a part of a path."""
    with pytest.raises(ValidationError):
        build_actions()["vault.rotate_role"].params.model_validate({**STEP, "role": bad})
