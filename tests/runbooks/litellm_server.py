"""The lab's LiteLLM over a real socket, with the faults that networks have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import numpy as np
from aiohttp import web

from lab.gateway import Gateway, build
from lab.litellm import LiteLLMApi
from tests.runbooks.http_server import RememberingServer

READ, ADMIN = "sk-only-looks", "sk-may-change"


@dataclass(kw_only=True)
class LiteLLMServer(RememberingServer):
    """Hands every request on to the lab's stand-in."""

    api: LiteLLMApi
    stale: LiteLLMApi | None = None  # another replica, which answers every other time to who reads
    _reads: int = 0

    @property
    def gateway(self) -> Gateway:
        return self.api.gateway

    async def answer(self, request: web.Request) -> web.StreamResponse:
        transport = httpx.ASGITransport(app=self._replica(request.method).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://litellm.lab") as client:
            answer = await client.request(
                request.method,
                request.raw_path,
                headers={name: value for name, value in request.headers.items() if name.lower() != "host"},
                content=await request.read(),
            )
        return web.Response(status=answer.status_code, body=answer.content, content_type="application/json")

    def _replica(self, method: str) -> LiteLLMApi:
        if method != "GET" or self.stale is None:
            return self.api
        self._reads += 1
        return self.stale if self._reads % 2 else self.api


def litellm_server() -> LiteLLMServer:
    """The reference gateway: `chat` on two nodes of ours, `chat-overflow` at openai (weight 75) and anthropic (25)."""
    gateway = build(np.random.default_rng(3), ["gpu-1", "gpu-2"])
    now = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
    return LiteLLMServer(api=LiteLLMApi(gateway=gateway, now=lambda: now, read_key=READ, admin_key=ADMIN))
