"""The servers of the actions' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runbooks.engine.actions import ClusterAccess, LangfuseAccess, LiteLLMAccess, build_actions
from runbooks.engine.values import Action
from tests.runbooks.kubernetes_server import TOKEN, KubernetesServer, template
from tests.runbooks.langfuse_server import PUBLIC, SECRET, LangfuseServer
from tests.runbooks.litellm_server import ADMIN, LiteLLMServer, litellm_server


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
async def gateway() -> AsyncIterator[LiteLLMServer]:
    """The gateway `edge`. Whoever asks it something that LiteLLM does not know fails its test."""
    server = litellm_server()
    async with server.running():
        yield server
    assert server.api.violations == []


@pytest.fixture
def actions(langfuse: LangfuseServer, cluster: KubernetesServer, gateway: LiteLLMServer) -> dict[str, Action]:
    return build_actions(
        langfuse={
            "prompts": LangfuseAccess(url=langfuse.url, public_key=PUBLIC, secret_key=SECRET, timeout_s=1.5),
        },
        clusters={"lab": ClusterAccess(url=cluster.url, token=TOKEN, timeout_s=1.5)},
        gateways={"edge": LiteLLMAccess(url=gateway.url, key=ADMIN, timeout_s=1.5)},
    )
