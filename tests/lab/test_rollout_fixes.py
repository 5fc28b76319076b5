"""What rollouts and replicas beside the engines do, changed by the product's own actions over the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from lab.cluster_objects import NAMESPACE
from lab.kubernetes import KubernetesApi
from lab.listening import listening, new_socket
from lab.side_services import EMBEDDER, GUARDRAIL, SideServices
from runbooks.engine.actions import ClusterAccess, build_actions
from runbooks.engine.values import Action
from tests.lab.mended_worlds import BrokenWorld, carry_out
from tests.lab.played_worlds import CREDENTIALS, LIVE_START

pytestmark = pytest.mark.integration  # real HTTP

HERE = {"cluster": "lab", "namespace": NAMESPACE}


class RolledOut(BrokenWorld):
    """A broken world with its cluster behind a port, and the services beside the engines in it."""

    def __init__(self, id_: str, **how: Any) -> None:
        super().__init__(id_, **how)
        self.services = SideServices(stage=self.stage, built=LIVE_START)
        self.break_it()
        self.time = self.small.fleet.now
        self.live(0.25)

    def live(self, minutes: float) -> None:
        for _ in range(int(minutes * 4)):
            self.small.pass_time(timedelta(seconds=15))
            self.services.step(self.small.fleet.now)
        self.time = self.small.fleet.now

    def roll(self, minutes: float) -> None:
        """Let the controllers alone work, which is quicker."""
        for _ in range(int(minutes * 2)):
            self.time += timedelta(seconds=30)
            self.stage.cluster.advance(self.time)
            self.services.step(self.time)

    def is_healthy(self) -> bool:
        return self.fault.is_healthy(self.stage)

    @asynccontextmanager
    async def actions(self) -> AsyncIterator[dict[str, Action]]:
        api = KubernetesApi(
            cluster=self.stage.cluster,
            now=lambda: self.time,
            read_token=CREDENTIALS.kube_read,
            action_token=CREDENTIALS.kube_action,
        )
        async with listening(api.app(), new_socket()) as url:
            yield build_actions(clusters={"lab": ClusterAccess(url=url, token=CREDENTIALS.kube_action)})


async def test_an_embedder_that_was_rolled_out_is_rolled_back() -> None:
    """The fault stands in the cluster as a revision; the engines' restart changes nothing, the undo heals."""
    world = RolledOut("I06")
    async with world.actions() as actions:
        assert world.growth().share("llm_app_retrieval_total", {"outcome": "empty"}) > 0.9
        await carry_out(actions["kubernetes.restart"], deployment="chat-retrieval", **HERE)
        world.live(0.5)
        assert not world.is_healthy()
        await carry_out(actions["kubernetes.rollout_undo"], deployment=EMBEDDER, **HERE)
        assert not world.is_healthy()  # the former pods are not there yet
        world.live(2)
        assert world.is_healthy()
        assert world.growth().share("llm_app_retrieval_total", {"outcome": "empty"}) < 0.05
        await carry_out(actions["kubernetes.rollout_undo"], deployment=EMBEDDER, **HERE)
        world.roll(2)
        assert not world.is_healthy()


def test_what_a_person_mends_by_hand_stays_mended() -> None:
    """The model of before stands in the deployment again, too."""
    world = RolledOut("I06")
    world.fault.apply(world.stage, 0.0, world.small.fleet.now)
    world.roll(3)
    assert world.is_healthy()
    [container] = world.stage.cluster.get("deployments", EMBEDDER)["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == world.stage.knowledge_store.embedder.name


async def test_room_helps_a_guardrail_that_has_too_little_and_no_slow_policy() -> None:
    """Twice the replicas; back to the usual number it is slow again."""
    by_load, by_policy = RolledOut("I09", is_by_policy=False), RolledOut("I09", is_by_policy=True)
    for world, heals in ((by_load, True), (by_policy, False)):
        async with world.actions() as actions:
            await carry_out(actions["kubernetes.scale"], deployment=GUARDRAIL, replicas=3, **HERE)
            world.roll(2)
            assert not world.is_healthy()
            await carry_out(actions["kubernetes.scale"], deployment=GUARDRAIL, replicas=4, **HERE)
            world.roll(2)
            assert world.is_healthy() is heals
    async with by_load.actions() as actions:
        await carry_out(actions["kubernetes.scale"], deployment=GUARDRAIL, replicas=2, **HERE)
        by_load.roll(1)
        assert not by_load.is_healthy()


async def test_more_processor_time_ends_a_starved_frontend() -> None:
    """More memory does not, although it replaces the pods as well."""
    world = RolledOut("S13", is_one_pod=False)
    async with world.actions() as actions:
        patch = actions["kubernetes.patch"]
        await carry_out(patch, deployment="chat-vllm", field="resources.limits.memory", value="128Gi", **HERE)
        world.roll(25)
        assert not world.is_healthy()
        await carry_out(patch, deployment="chat-vllm", field="resources.limits.cpu", value="20", **HERE)
        world.roll(25)
        assert world.is_healthy()


@pytest.mark.parametrize("id_", ["S06", "S13"])
async def test_a_pod_that_went_astray_is_replaced(id_: str) -> None:
    """Another pod's deletion changes nothing; it waits for its successor first."""
    world = RolledOut(id_, **({"is_one_pod": True} if id_ == "S13" else {}))
    victim = world.fault.scope(world.stage)[1][0]
    other = next(
        p["metadata"]["name"] for p in world.stage.cluster.pods_of("chat-vllm") if p["metadata"]["name"] != victim
    )
    async with world.actions() as actions:
        for pod, heals in ((other, False), (victim, True)):
            await carry_out(actions["kubernetes.delete_pod"], pod=pod, **HERE)
            world.roll(6)
            assert world.is_healthy() is heals
