"""Setting a guardrail's policy version, against a server that answers like LiteLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from runbooks.engine.actions import LiteLLMAccess, build_actions
from runbooks.engine.plan import plan, undo_plan
from runbooks.engine.values import Action, ActionError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.http_server import RememberingServer
from tests.runbooks.test_plan import CONTEXT, NOW, runbook

pytestmark = pytest.mark.integration  # real HTTP

ADMIN, BEDROCK = "sk-may-change", "made-up-bedrock-key"
STEP = {"gateway": "edge", "guardrail": "pii", "version": "14"}
BOOK = (
    "action: litellm.set_guardrail_version\nwith: {gateway: edge, guardrail: pii, version: 14}\nundo: previous\n"
    "verify: [guardrails]"
)


def entry(name: str, version: str | None, *, place: str = "db", number: int = 1) -> dict[str, Any]:
    params = {"guardrail": "bedrock", "mode": "pre_call", "guardrailVersion": version, "aws_secret_access_key": BEDROCK}
    return {
        "guardrail_id": f"123e4567-e89b-12d3-a456-42661417400{number}",
        "guardrail_name": name,
        "litellm_params": {key: value for key, value in params.items() if value is not None},
        "guardrail_definition_location": place,
    }


@dataclass(kw_only=True)
class GuardrailServer(RememberingServer):
    """LiteLLM's guardrails; `knows` is False for a release that leaves out what it does not know."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    knows: bool = True

    def version(self, name: str) -> str:
        return str(
            next(row for row in self.rows if row["guardrail_name"] == name)["litellm_params"]["guardrailVersion"]
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {ADMIN}":
            return web.json_response({"error": {"message": "Authentication Error"}}, status=401)
        match request.method, request.path.split("/")[1:]:
            case "GET", ["v2", "guardrails", "list"]:
                return web.json_response({"guardrails": self.rows})
            case "PATCH", ["guardrails", name]:
                row = next((row for row in self.rows if row["guardrail_id"] == name), None)
                if row is None:
                    return web.json_response({"detail": f"Guardrail with ID {name} not found"}, status=404)
                body = await request.json()
                assert set(body) == {"litellm_params"}
                assert set(body["litellm_params"]) == {"guardrailVersion"}
                if self.knows:
                    row["litellm_params"].update(body["litellm_params"])
                return web.json_response(row)
        return web.json_response({"detail": "Not Found"}, status=404)


@pytest.fixture
async def gateway() -> AsyncIterator[GuardrailServer]:
    """`pii` went from 14 to 15."""
    twins = [entry("twin", "1", number=5), entry("twin", "2", number=6)]
    others = [entry("file", "3", place="config", number=2), entry("presidio", None, number=3), *twins]
    server = GuardrailServer(rows=[entry("pii", "15"), entry("draft", "DRAFT", number=4), *others])
    async with server.running():
        yield server


@pytest.fixture
def action(gateway: GuardrailServer) -> Action:
    access = LiteLLMAccess(url=gateway.url, key=ADMIN, timeout_s=1.5)
    return build_actions(gateways={"edge": access})["litellm.set_guardrail_version"]


def params_of(action: Action, **more: Any) -> Any:
    return action.params.model_validate({**STEP, **more})


async def test_a_policy_goes_back_and_forth(action: Action, gateway: GuardrailServer) -> None:
    """By its version alone; the credentials that LiteLLM answers with stay out."""
    made = await plan(runbook(BOOK), replace(CONTEXT, gateway="edge"), {action.name: action})
    [step] = made.steps
    answer = await action.act(params_of(action), step.before, "t-1")

    assert step.effect == ("At the gateway edge, the guardrail pii enforces version 14 of its policy (before: 15).")
    assert (step.tier, step.target) == (Tier.R2, "litellm/guardrail/edge/pii")
    assert gateway.version("pii") == "14"
    assert BEDROCK not in repr([step, answer])
    assert await action.happened(params_of(action), step.before, "t-1") is Happened.YES
    back = (await undo_plan(made, [0], {action.name: action}, now=NOW, policy_version="p")).steps[0]
    await action.act(action.params.model_validate(back.params), back.before, "t-2")
    assert gateway.version("pii") == "15"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"guardrail": "file"}, "stands in LiteLLM's config file"),
        ({"guardrail": "presidio"}, "only those of Amazon Bedrock have one"),
        ({"guardrail": "gone"}, "has no guardrails of the name gone"),
        ({"guardrail": "twin"}, "has 2 guardrails of the name twin"),
        ({"gateway": "other"}, "the gateway other has no `action_credential`"),
    ],
)
async def test_what_has_no_version_is_not_planned(action: Action, more: dict[str, str], words: str) -> None:
    """With what stands in the way."""
    with pytest.raises(ActionError, match=words):
        await action.read(params_of(action, **more))


async def test_a_draft_is_nothing_to_go_to(action: Action, gateway: GuardrailServer) -> None:
    """Nobody approved what it says; one that was enforced cannot be restored."""
    params = params_of(action, guardrail="draft")
    before = await action.read(params)

    assert action.undo(params, before) is None
    for version, words in (("DRAFT", "name a published version"), ("15", "enforces version 15 already")):
        wanted = params_of(action, version=version)
        assert words in str(action.refusal(wanted, await action.read(wanted)))  # type: ignore[attr-defined]
    assert gateway.of("PATCH") == []


async def test_a_release_that_cannot_is_told_from_a_lost_answer(action: Action, gateway: GuardrailServer) -> None:
    """It takes the request, leaves the version out and answers with the one of before."""
    gateway.knows = False
    with pytest.raises(ActionError, match="nothing was changed: upgrade it"):
        await action.act(params_of(action), await action.read(params_of(action)), "t-1")


async def test_a_world_that_moved_stops_it(action: Action, gateway: GuardrailServer) -> None:
    """Security published another version meanwhile."""
    before = await action.read(params_of(action))
    gateway.rows[0]["litellm_params"]["guardrailVersion"] = "16"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params_of(action), before, "t-1")
    assert gateway.of("PATCH") == []
    assert await action.happened(params_of(action), before, "t-1") is Happened.CANNOT_TELL


@pytest.mark.parametrize("fault", [500, 408, "reset", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    action: Action, gateway: GuardrailServer, fault: int | str, when: str
) -> None:
    """One change, and then the gateway itself is asked."""
    before = await action.read(params_of(action))
    getattr(gateway.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params_of(action), before, "t-1")

    assert len(gateway.of("PATCH")) == 1
    said = await action.happened(params_of(action), before, "t-1")
    assert said is (Happened.YES if when == "after" else Happened.NO)


@pytest.mark.parametrize("bad", [{"version": "0"}, {"version": "1.0"}, {"version": "draft"}, {"version": True},
                                 {"version": "15\n"}, {"guardrail": "../x"}, {"litellm_params": {}}])  # fmt: skip
def test_parameters_match_whole_or_not_at_all(bad: dict[str, Any]) -> None:
    """A version is a number or DRAFT, a guardrail a name."""
    with pytest.raises(ValidationError):
        build_actions()["litellm.set_guardrail_version"].params.model_validate({**STEP, **bad})
