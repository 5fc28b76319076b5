"""Slack's client, with every call told to the tally of who answers."""

from __future__ import annotations

from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.far_ends import FarEnds

NAME = "slack"


class CountedWebClient(AsyncWebClient):
    """Every method of slack_sdk goes through `api_call`, so this is the one place."""

    def __init__(self, far_ends: FarEnds, **more: Any) -> None:
        super().__init__(**more)
        self._far_ends = far_ends

    async def api_call(self, api_method: str, **more: Any) -> AsyncSlackResponse:
        """Raises as slack_sdk's own does."""
        try:
            response = await super().api_call(api_method, **more)
        except SlackApiError as error:
            word = _word(error)
            self._far_ends.failed(NAME, api_method, "limited" if word == "ratelimited" else "refused", word)
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._far_ends.failed(NAME, api_method, "unreachable", type(error).__name__)
            raise
        self._far_ends.answered(NAME, api_method)
        return response


def _word(error: SlackApiError) -> str:
    """Slack's own word for it, or the status where nobody speaks Slack."""
    response = error.response
    payload = getattr(response, "data", response)
    word = payload.get("error") if isinstance(payload, dict) else None
    return str(word or getattr(response, "status_code", "unknown"))
