"""What the gateway's API does to the simulated fleet, by the product's own actions; wrong ones heal nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab.gateway import OVERFLOW
from lab.listening import listening, new_socket
from lab.litellm import LiteLLMApi
from lab.litellm_guardrails import NAME, GuardrailVersions
from runbooks.engine.actions import LiteLLMAccess, build_actions
from runbooks.engine.values import Action
from tests.lab.mended_worlds import BrokenWorld, carry_out

pytestmark = pytest.mark.integration  # real HTTP

READ, ADMIN = "sk-reads", "sk-changes"


class Routed(BrokenWorld):
    """A broken world with its gateway behind a port."""

    def __init__(self, id_: str, **how: Any) -> None:
        super().__init__(id_, **how)
        self.api = LiteLLMApi(
            gateway=self.stage.gateway,
            now=lambda: self.small.fleet.now,
            read_key=READ,
            admin_key=ADMIN,
            guardrails=GuardrailVersions(guardrails=self.stage.guardrails),
        )
        self.break_it()

    @asynccontextmanager
    async def actions(self) -> AsyncIterator[dict[str, Action]]:
        async with listening(self.api.app(), new_socket()) as url:
            yield build_actions(gateways={"edge": LiteLLMAccess(url=url, key=ADMIN)})
        assert self.api.violations == []

    def is_healthy(self) -> bool:
        return self.fault.is_healthy(self.stage)


def _blocked(world: Routed) -> float:
    return world.growth().share("llm_app_guardrail_total", {"decision": "block"}, surface="user")


async def test_the_policy_of_before_lets_harmless_requests_pass() -> None:
    """Its undo enforces the strict one again; nothing else at the gateway helps."""
    world = Routed("Q09", version="15-strict")
    async with world.actions() as actions:
        assert _blocked(world) > 0.06
        await carry_out(actions["litellm.set_weight"], gateway="edge", deployment="overflow-openai", weight=0)
        assert _blocked(world) > 0.06
        version = actions["litellm.set_guardrail_version"]
        await carry_out(version, gateway="edge", guardrail=NAME, version="14")
        assert _blocked(world) < 0.02
        assert world.is_healthy()
        await carry_out(version, gateway="edge", guardrail=NAME, version="15")
        assert (world.stage.guardrails.policy_version, world.is_healthy()) == ("15-strict", False)


async def test_a_slow_guardrail_is_quick_again_only_where_its_policy_made_it_slow() -> None:
    """Where the service has too little room the policy is the usual one, and the action refuses."""
    by_policy, by_load = Routed("I09", is_by_policy=True), Routed("I09", is_by_policy=False)
    step = {"gateway": "edge", "guardrail": NAME, "version": "14"}
    async with by_policy.actions() as actions:
        assert by_policy.growth().mean("litellm_guardrail_latency_seconds") > 1
        await carry_out(actions["litellm.set_guardrail_version"], **step)
        assert by_policy.growth().mean("litellm_guardrail_latency_seconds") < 0.1
    async with by_load.actions() as actions:
        with pytest.raises(AssertionError, match="enforces version 14 already"):
            await carry_out(actions["litellm.set_guardrail_version"], **step)


async def test_every_key_of_a_campaign_has_to_be_limited() -> None:
    """One is not enough, and somebody else's is nothing."""
    world = Routed("X01")
    attackers = list(world.stage.threats.attackers)
    before = _detected(world, attackers)
    async with world.actions() as actions:
        for alias in ("key-tenant-01", *attackers):
            assert not world.is_healthy()
            await carry_out(actions["litellm.limit_key"], gateway="edge", key=alias, tpm=8000, rpm=2)
        assert world.is_healthy()
    assert _detected(world, attackers) < before / 4


@pytest.mark.parametrize("id_", ["I02", "I03", "I04"])
async def test_a_provider_that_fails_gets_no_requests_any_more(id_: str) -> None:
    """The weight of the other one does nothing but harm."""
    world = Routed(id_, provider="anthropic")
    async with world.actions() as actions:
        weight = actions["litellm.set_weight"]
        broken = _broken(world)
        assert broken > 0.4
        await carry_out(weight, gateway="edge", deployment="anthropic", model_group=OVERFLOW, weight=30)
        assert _broken(world) > broken
        await carry_out(weight, gateway="edge", deployment="anthropic", model_group=OVERFLOW, weight=0)
        assert _broken(world) == 0


async def test_a_changed_model_answers_nobody_without_its_weight() -> None:
    """The other provider's answers are what they were; its own weight taken away leaves the changed one alone."""
    right, wrong = Routed("Q03", model="gpt-4.1-nano"), Routed("Q03", model="gpt-4.1-nano")
    async with right.actions() as actions:
        await carry_out(actions["litellm.set_weight"], gateway="edge", deployment="overflow-openai", weight=0)
        assert right.is_healthy()
    async with wrong.actions() as actions:
        await carry_out(actions["litellm.set_weight"], gateway="edge", deployment="overflow-anthropic", weight=0)
        assert not wrong.is_healthy()


def _detected(world: Routed, principals: list[str]) -> float:
    grown = world.growth()
    return sum(grown.of("llm_app_injection_detections_total", principal=alias) for alias in principals)


def _broken(world: Routed) -> float:
    """Requests per second that a provider's trouble refuses."""
    return sum(load.broken for load in world.stage.gateway.traffic().providers if load.group == OVERFLOW)
