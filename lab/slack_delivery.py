"""
What Slack tells an app about what people did: its payloads, and which of them it tells again.

How they travel is the carrier's: signed requests or Socket Mode. Interactivity and commands are not retried; the person
who clicked sees that nothing happened, and clicks again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lab.people import APP, BOT_USER, CHANNEL, CHANNEL_NAME, TEAM
from lab.slack import Json, Message, SlackError, Workspace
from lab.slack_blocks import interactive_elements, options_of
from lab.slack_carriers import PATIENCE_S, Answer, Carrier, HttpCarrier, Kind, Retry

EVENT_RETRY_WAITS_S = (0.0, 60.0, 300.0)


class AppLink:
    """
    Tells the app what people do: over HTTP at `url` (its `/slack/events`), or by another carrier.

    `event_retry_waits_s` are Slack's waits before the three retries of an event; a drill may shorten them.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        url: str,
        base_url: str,
        patience_s: float = PATIENCE_S,
        event_retry_waits_s: tuple[float, ...] = EVENT_RETRY_WAITS_S,
        carrier: Carrier | None = None,
    ) -> None:
        self.workspace = workspace
        self.base_url = base_url
        self.event_retry_waits_s = event_retry_waits_s
        self._carrier = carrier or HttpCarrier(url, workspace.signing_secret, patience_s=patience_s)
        self._retries: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        for retry in self._retries:
            retry.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
        await self._carrier.aclose()

    async def click(
        self, *, user: str, message: Message, action_id: str, block_id: str = "", value: str | None = None
    ) -> Answer:
        """
        Somebody presses a button or chooses from a menu (`value` is the chosen option's).

        Raises SlackError("no_such_element" or "no_such_option") when it is not on the message now.
        """
        block, element = self.workspace.button(message, action_id, block_id)
        action: Json = {"block_id": block["block_id"], "action_id": action_id, "action_ts": self.workspace.next_ts()}
        if element["type"] == "button":
            if value not in {None, element.get("value")}:
                raise SlackError("no_such_option", [f"the button's value is {element.get('value')!r}, not {value!r}"])
            action |= {name: element[name] for name in ("type", "text", "value", "style") if name in element}
        else:
            action |= {"type": element["type"], "selected_option": _option(element, value)}
        return await self._send("interactivity", self._pressed(user, message, action))

    def _pressed(self, user: str, message: Message, action: Json) -> Json:
        key = self.workspace.new_response_url(user, message.ts)
        container = {"type": "message", "message_ts": message.ts, "channel_id": CHANNEL}
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        payload = {
            "type": "block_actions",
            **self._who(user),
            "container": {**container, "is_ephemeral": bool(message.only_to)},
            "channel": {"id": CHANNEL, "name": CHANNEL_NAME},
            "trigger_id": self.workspace.new_trigger(user),
            "response_url": f"{self.base_url}/actions/{TEAM}/{key}",
            "state": {"values": _menu_state(message, action)},
            "actions": [action],
        }
        if not message.only_to:
            payload["message"] = self.workspace.shown(message, include_metadata=True)
        return payload

    def _who(self, user: str) -> Json:
        known = self.workspace.users[user]
        return {
            "user": {"id": user, "username": known["name"], "name": known["name"], "team_id": TEAM},
            "api_app_id": APP,
            "token": "not-a-secret",
            "team": {"id": TEAM, "domain": "lab"},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    async def command(self, *, user: str, command: str, text: str) -> Answer:
        """Somebody types a slash command; an answer in the HTTP reply becomes a message to them."""
        key = self.workspace.new_response_url(user)
        form = {
            "token": "not-a-secret",
            "team_id": TEAM,
            "team_domain": "lab",
            "channel_id": CHANNEL,
            "channel_name": CHANNEL_NAME,
            "user_id": user,
            "user_name": self.workspace.users[user]["name"],
            "command": command,
            "text": text,
            "api_app_id": APP,
            "is_enterprise_install": "false",
            "response_url": f"{self.base_url}/actions/{TEAM}/{key}",
            "trigger_id": self.workspace.new_trigger(user),
        }
        answer = await self._send("command", form)
        if answer.is_acknowledged and answer.body.strip():
            self.workspace.answer(_reply(answer.body), user=user)
        return answer

    async def event(self, event: Mapping[str, Any]) -> Answer:
        """An Events API event; its retries go on in the background, as Slack's do."""
        envelope = {
            "token": "not-a-secret",
            "team_id": TEAM,
            "api_app_id": APP,
            "event": dict(event),
            "type": "event_callback",
            "event_id": "Ev" + secrets.token_hex(5).upper(),
            "event_time": int(time.time()),
            "is_ext_shared_channel": False,
            "authorizations": [{"enterprise_id": None, "team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
        }
        answer = await self._send("event", envelope)
        if not answer.is_acknowledged and answer.may_retry:
            retry = asyncio.create_task(self._retry_event(envelope, answer.error))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)
        return answer

    async def _retry_event(self, envelope: Json, reason: str) -> None:
        for number, wait_s in enumerate(self.event_retry_waits_s, start=1):
            await asyncio.sleep(wait_s)
            answer = await self._send("event", envelope, Retry(number=number, reason=reason))
            if answer.is_acknowledged or not answer.may_retry:
                return
            reason = answer.error

    async def message_event(self, message: Message) -> Answer:
        """Tell the app that somebody wrote a message; one that mentions it comes as app_mention too."""
        event: Json = {
            "type": "message",
            "channel": CHANNEL,
            "channel_type": "channel",
            "user": message.user,
            "text": message.text,
            "ts": message.ts,
            "event_ts": message.ts,
            "team": TEAM,
        }
        if message.thread_ts:
            event["thread_ts"] = message.thread_ts
        answer = await self.event(event)
        if f"<@{BOT_USER}>" in message.text:
            mention = {name: value for name, value in event.items() if name != "channel_type"}
            answer = await self.event({**mention, "type": "app_mention"})
        return answer

    async def _send(self, kind: Kind, payload: Mapping[str, Any], retry: Retry | None = None) -> Answer:
        answer = await self._carrier.carry(kind, payload, retry)
        self.workspace.deliveries.append({name: v for name, v in asdict(answer).items() if name != "body"})
        return answer


def _option(element: Json, value: str | None) -> Mapping[str, Any]:
    for option in options_of(element):
        if option["value"] == value:
            return option
    have = [option["value"] for option in options_of(element)]
    raise SlackError("no_such_option", [f"there is no option {value!r}; the menu has {have}"])


def _menu_state(message: Message, action: Json) -> Json:
    """What every menu of the message shows, as `state.values`; the one just used shows the choice."""
    values: Json = {}
    for block, element in interactive_elements(message.blocks):
        if element["type"] != "static_select":
            continue
        chosen = element.get("initial_option")
        if (block["block_id"], element["action_id"]) == (action["block_id"], action["action_id"]):
            chosen = action["selected_option"]
        shown = {"type": "static_select", "selected_option": chosen}
        values.setdefault(block["block_id"], {})[element["action_id"]] = shown
    return values


def _reply(body: str) -> Json:
    """The HTTP answer to a slash command: a JSON message, or plain text."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {"text": body}
    return parsed if isinstance(parsed, dict) else {"text": body}
