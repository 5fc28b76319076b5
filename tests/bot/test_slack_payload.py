"""What the door hands to Bolt: everything that Slack sends, and nothing on which Bolt would die."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from bot.web.slack_payload import for_bolt, is_readable

FORM = "application/x-www-form-urlencoded"
CLICK: dict[str, Any] = {
    "type": "block_actions",
    "team": {"id": "T1", "domain": "acme"},
    "user": {"id": "U1", "team_id": "T1"},
    "channel": {"id": "C1", "name": "incidents"},
    "enterprise": None,
    "is_enterprise_install": False,
    "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1", "is_ephemeral": False},
    "message": {"ts": "1.2", "blocks": []},
    "response_url": "https://hooks.slack.com/actions/T1/1/2",
    "actions": [{"type": "button", "action_id": "approve", "block_id": "fix", "value": "plan-1", "action_ts": "1.3"}],
}
MENTION = {
    "type": "event_callback",
    "event": {"type": "app_mention", "user": "U1", "text": "<@U0> help"},
    "authorizations": [{"team_id": "T1", "enterprise_id": None}],
}


def form(payload: Any) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (form(CLICK), FORM),
        (form({**CLICK, "team": None, "channel": None}), FORM + "; charset=utf-8"),
        (form({"type": "view_submission", "view": {"callback_id": "x", "state": {"values": {}}}}), FORM),
        (json.dumps(MENTION).encode(), "application/json"),
        (json.dumps({"type": "url_verification", "challenge": "abc"}).encode(), "application/json"),
        (b"command=%2Foncall&text=runbook+payload&team_id=T1&user_id=U1", FORM),
        (b"ssl_check=1", FORM),
        (b"", FORM),
    ],
)
def test_what_slack_sends_is_readable(raw: bytes, content_type: str) -> None:
    """Clicks, forms, events, commands, Slack's own probes."""
    assert is_readable(raw, content_type)


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"\xff\xfe", FORM),
        (b"payload=", FORM),
        (b"payload=%7B", FORM),
        (form([CLICK]), FORM),
        (form(7), FORM),
        (form({**CLICK, "actions": []}), FORM),
        (form({**CLICK, "actions": "approve"}), FORM),
        (form({**CLICK, "actions": [{"value": "plan-1"}]}), FORM),
        (form({**CLICK, "user": 7}), FORM),
        (form({**CLICK, "team": ["T1"]}), FORM),
        (json.dumps({**MENTION, "event": "app_mention"}).encode(), "application/json"),
        (json.dumps({**MENTION, "authorizations": ["T1"]}).encode(), "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, FORM),
    ],
)
def test_what_bolt_would_die_of_is_not(raw: bytes, content_type: str) -> None:
    """No JSON, no object, or another shape where Bolt looks before it chooses a listener."""
    assert not is_readable(raw, content_type)


def test_a_command_may_speak_of_payloads() -> None:
    """Bolt looks for the word in the bytes; spelled otherwise the form says the same."""
    typed = b"command=%2Foncall&text=runbook+the+payload+is+a+payload&user_id=U1"

    assert b"payload" not in for_bolt(typed, FORM)
    assert dict(parse_qsl(for_bolt(typed, FORM))) == dict(parse_qsl(typed))


@pytest.mark.parametrize(
    ("raw", "content_type"), [(form(CLICK), FORM), (b'{"text": "payload"}', "application/json"), (b"text=hello", FORM)]
)
def test_everything_else_is_left_as_it_is(raw: bytes, content_type: str) -> None:
    """Interactions have their payload in a field of this name."""
    assert for_bolt(raw, content_type) == raw
