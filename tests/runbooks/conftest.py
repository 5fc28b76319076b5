"""The servers of the actions' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runbooks.engine.actions import ClusterAccess, LangfuseAccess, build_actions
from runbooks.engine.values import Action
from tests.runbooks.kubernetes_server import TOKEN, KubernetesServer, template
from tests.runbooks.langfuse_server import PUBLIC, SECRET, LangfuseServer


@pytest.fixture
async def langfuse() -> AsyncIterator[LangfuseServer]:
    """`chat-system` went from 7 to 8; version 7 still carries a label of its own."""
    server = LangfuseServer(prompts={"chat-system": {6: set(), 7: {"stable"}, 8: {"production"}}})
    async with server.running():
        yield server


@pytest.fixture
async def cluster() -> AsyncIterator[KubernetesServer]:
    """`chat-vllm` went from vllm:0.10 to vllm:0.11; 4 replicas."""
    server = KubernetesServer()
    server.roll_out(template("vllm:0.11"))
    async with server.running():
        yield server


@pytest.fixture
def actions(langfuse: LangfuseServer, cluster: KubernetesServer) -> dict[str, Action]:
    return build_actions(
        langfuse={
            "prompts": LangfuseAccess(url=langfuse.url, public_key=PUBLIC, secret_key=SECRET, timeout_s=0.4),
        },
        clusters={"lab": ClusterAccess(url=cluster.url, token=TOKEN, timeout_s=0.4)},
    )
