"""A local Slack on a free port with a small app behind it, for tests that speak HTTP to both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from slack_sdk.web.async_client import AsyncWebClient

from lab.listening import listening, local_client, new_socket, url_of
from lab.slack import Workspace
from lab.slack_delivery import AppLink
from lab.slack_web import slack_app

CARD: list[dict[str, Any]] = [
    {"type": "header", "text": {"type": "plain_text", "text": "chat: first token is slow"}},
    {"type": "section", "text": {"type": "mrkdwn", "text": "*Prefix hits* fell from 40 % to 3 %"}},
    {
        "type": "actions",
        "block_id": "fix",
        "elements": [
            {
                "type": "button",
                "action_id": "approve",
                "text": {"type": "plain_text", "text": "Approve fix"},
                "value": "plan-1",
                "style": "primary",
            },
            {
                "type": "static_select",
                "action_id": "request",
                "placeholder": {"type": "plain_text", "text": "Request another fix"},
                "options": [{"text": {"type": "plain_text", "text": "Scale up"}, "value": "plan-2"}],
            },
        ],
    },
]


@dataclass(frozen=True, kw_only=True)
class LocalSlack:
    """The workspace, its address, the app's client, and what a browser uses."""

    workspace: Workspace
    url: str
    client: AsyncWebClient
    browser: httpx.AsyncClient


@asynccontextmanager
async def local_slack(
    *,
    workspace: Workspace | None = None,
    app_url: str = "http://127.0.0.1:9/slack/events",
    rate_limited: bool = False,
    patience_s: float = 3.0,
    event_retry_waits_s: tuple[float, ...] = (0.0, 0.0, 0.0),
    lab_state: Callable[[], dict[str, Any]] = dict,
) -> AsyncIterator[LocalSlack]:
    """Port 9 (discard) has no listener: the default app is one that cannot be reached."""
    socket = new_socket()
    url = url_of(socket)
    workspace = workspace or Workspace()
    link = AppLink(workspace, url=app_url, base_url=url, patience_s=patience_s, event_retry_waits_s=event_retry_waits_s)
    app = slack_app(workspace, link, base_url=url, rate_limited=rate_limited, lab_state=lab_state)
    client = AsyncWebClient(token=workspace.bot_token, base_url=f"{url}/api/")
    async with listening(app, socket), local_client(base_url=url) as browser:
        yield LocalSlack(workspace=workspace, url=url, client=client, browser=browser)


async def until(has_happened: Callable[[], bool]) -> None:
    """Wait for something that another task does; a test that waits in vain fails after five seconds."""
    async with asyncio.timeout(5):
        while not has_happened():
            await asyncio.sleep(0.01)
