"""The lab's PagerDuty over a real socket, with the faults that networks have."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from aiohttp import web
from fastapi import FastAPI

from lab.pagerduty import PagerDuty
from lab.pagerduty_shapes import Incident
from lab.pagerduty_web import pagerduty_app
from tests.runbooks.http_server import RememberingServer

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
PAGE = {
    "routing_key": ROUTING_KEY,
    "event_action": "trigger",
    "dedup_key": "LLMHighTTFT",
    "payload": {"summary": "LLMHighTTFT chat", "source": "Alertmanager", "severity": "error"},
}


@dataclass(kw_only=True)
class PagerDutyServer(RememberingServer):
    """Hands every request on to the lab's stand-in, which refuses what PagerDuty would."""

    account: PagerDuty
    leave_out: tuple[str, ...] = ()  # parts of an incident that the account's plan does not have
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.app = pagerduty_app(self.account)

    @property
    def incident(self) -> Incident:
        """The only incident there is."""
        [found] = self.account.incidents.values()
        return found

    def writes(self) -> list[tuple[str, str]]:
        """Method and path of everything that was to change something."""
        return [(one.method, one.path) for one in self.seen if one.method != "GET"]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://pagerduty.lab") as client:
            answer = await client.request(
                request.method,
                request.raw_path,
                headers={name: value for name, value in request.headers.items() if name.lower() != "host"},
                content=await request.read(),
            )
        body = answer.json()
        for name in self.leave_out:
            body.get("incident", {}).pop(name, None)
        return web.json_response(body, status=answer.status_code)


def pagerduty_server() -> PagerDutyServer:
    """An account with one incident, on Alice, who is level 1 of the policy Default; level 2 is Bob."""
    now = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    account = PagerDuty(now=lambda: now, routing_key=ROUTING_KEY)
    account.enqueue(PAGE)
    return PagerDutyServer(account=account)
