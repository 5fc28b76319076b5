"""The whole web face over a real database, and operators who come to it with tokens, cookies and browsers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import uvicorn

from bot.doors import Readiness
from bot.front import Front
from bot.operators import Operators
from bot.parts import Parts
from bot.settings import Settings
from bot.store.operators import OperatorTokens
from retrieval.ranking import RunbookSearch
from tests.kit import Store

SITE = "https://watch.example.com"
STRANGER = ("203.0.113.9", 40_000)


class OperatorHouse:
    """Parts, front and web as `serve --no-work` makes them; `mint` gives out tokens as the command line does."""

    def __init__(self, store: Store, **more: Any) -> None:
        self.store = store
        url = store.database.url.render_as_string(hide_password=False)
        settings = Settings(
            database_url=url,
            slack_bot_token="xoxb-test",
            slack_signing_secret="signing",
            slack_api_base_url="http://127.0.0.1:9/api/",
            **more,
        )
        self.parts = Parts(settings, store.config, "web")
        self.front = Front(self.parts, search=RunbookSearch(), ring=lambda: None)
        self.readiness = Readiness(self.parts.database, (), self.parts.vitals, self.parts.troubles)
        self.web = self.front.web(self.readiness)
        self.operators = Operators(tokens=OperatorTokens(store.database), people=store.people)

    async def mint(self, person_id: str, *, days: int = 30, ago: timedelta = timedelta()) -> str:
        """A token; with `ago` one that was made in the past."""
        made = datetime.now(UTC) - ago
        secret, _ = await self.operators.issue(person_id, label="test", days=days, actor="unix:root", now=made)
        return secret

    def client(self, token: str = "", *, address: tuple[str, int] = STRANGER, site: str = SITE) -> httpx.AsyncClient:
        """Somebody far away; with a token as the command line sends it."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(app=self.web, client=address)
        return httpx.AsyncClient(transport=transport, base_url=site, headers=headers)

    @asynccontextmanager
    async def signed_in(self, person_id: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser with a session."""
        async with self.client() as client:
            token = await self.mint(person_id)
            answer = await client.post("/sign-in", data={"token": token, "next": "/"}, headers=own_form())
            assert answer.status_code == 303, answer.text
            yield client

    async def close(self) -> None:
        await self.parts.database.close()


def own_form() -> dict[str, str]:
    """What a browser says of a form that our own page sent."""
    return {"Sec-Fetch-Site": "same-origin", "Origin": SITE}


@asynccontextmanager
async def operator_house(store: Store, **settings: Any) -> AsyncIterator[OperatorHouse]:
    house = OperatorHouse(store, **settings)
    try:
        yield house
    finally:
        await house.close()


@asynccontextmanager
async def listening(web: Any) -> AsyncIterator[str]:
    """Serve on 127.0.0.1; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(web, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()
