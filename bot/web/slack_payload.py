"""
Can Bolt read this body? Bolt 1.30 answers 500, or dies, on a signed body that is no JSON or has another shape.

Only Slack can sign, so this is for the day when Slack sends something new or broken: a refusal, not a crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.pagerduty import is_too_deep

_Object = dict[str, Any]


class _Part(BaseModel):
    """Strict about the types of what Bolt looks at; everything else may be anything."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Reference(_Part):
    id: str | None = None


class _Action(_Part):
    action_id: str
    block_id: str = ""


class _Event(_Part):
    type: str


class _Body(_Part):
    """What Bolt looks at before a listener is chosen (slack_bolt/request/internals.py, payload_utils.py)."""

    type: str | None = None
    team: str | _Reference | None = None
    user: str | _Reference | None = None
    channel: str | _Reference | None = None
    enterprise: str | _Reference | None = None
    actions: list[_Action] | None = Field(default=None, min_length=1)
    event: _Event | None = None
    view: _Object | None = None
    authorizations: list[_Object] | None = None
    response_url: str | None = None
    response_urls: list[_Object] = []


def is_readable(raw: bytes, content_type: str) -> bool:
    """True for an object, as JSON or in a form's `payload`, with the parts where Bolt expects them; or a plain form."""
    try:
        parsed = _parsed(raw.decode("utf-8"), content_type.partition(";")[0].strip())
    except ValueError:
        return False
    return has_parts(parsed)


def has_parts(body: Mapping[str, Any]) -> bool:
    """True for an object with the parts where Bolt expects them, as it comes in an envelope of Socket Mode."""
    try:
        _Body.model_validate(body)
    except ValidationError:
        return False
    return True


def for_bolt(raw: bytes, content_type: str) -> bytes:
    """
    The same form, with another spelling of "payload" where it is only a word of somebody's command.

    Bolt 1.30 takes every form that holds the word for an interaction, finds none, and answers 404 to the person who
    typed `/oncall runbook the payload is too large`.
    """
    is_form = not content_type.startswith("application/json") and not raw.startswith(b"{")
    if (
        not is_form
        or b"payload" not in raw
        or "payload" in dict(parse_qsl(raw.decode("utf-8"), keep_blank_values=True))
    ):
        return raw
    return raw.replace(b"payload", b"%70ayload")


def _parsed(text: str, content_type: str) -> Mapping[str, Any]:
    """The body as Bolt parses it. Raises ValueError."""
    if not text:
        return {}
    if content_type == "application/json" or text.startswith("{"):
        return _object(text)
    form = dict(parse_qsl(text, keep_blank_values=True))
    return _object(form["payload"]) if "payload" in form else form


def _object(text: str) -> Mapping[str, Any]:
    if is_too_deep(text.encode()):
        raise ValueError("nested too deeply")
    value = json.loads(text)
    if not isinstance(value, Mapping):
        raise ValueError("not an object")  # noqa: TRY004 - the caller asks whether the value is right
    return value
