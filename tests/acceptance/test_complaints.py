"""Silence of the stand-ins is only worth something if they would speak: what is wrong on purpose is complained of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standins import API_KEY, FROM, running_standins

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(60)]


async def test_a_wrong_request_is_complained_of(tmp_path: Path) -> None:
    """A note that PagerDuty's OpenAPI does not allow, a Slack call without a token, a command that nobody answers."""
    async with running_standins(tmp_path, product="http://127.0.0.1:9") as standins:
        slack, pagerduty = standins.slack, standins.pagerduty
        standins.wire.held = []  # there is no product to take the page
        incident_id = await pagerduty.page("nobody listens")
        headers = {"Authorization": f"Token token={API_KEY}", "From": FROM}
        refused = await pagerduty.client.post(f"/incidents/{incident_id}/notes", json={"note": {}}, headers=headers)
        await slack.client.post("/api/chat.postMessage", json={"channel": "C0INCIDENT", "text": "hello"})
        await slack.control("command", {"command": "/oncall", "text": "help"})

        assert refused.status_code == 400
        assert "openapi" in {each["kind"] for each in await pagerduty.control("violations")}
        assert {each["kind"] for each in await slack.control("violations")} == {"api_error", "not_acked"}
