"""
A Slack workspace in memory: its people, one channel, messages, threads, pictures and one-time tickets.

Only state and its rules; `lab.slack_api` is what the app calls, `lab.slack_web` what people see.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lab.people import APP, BOT_ID, BOT_USER, CAST, CHANNEL, CHANNEL_NAME, TEAM
from lab.slack_blocks import faults_in, interactive_elements

Json = dict[str, Any]

TRIGGER_LIFE_S = 3.0
RESPONSE_URL_LIFE_S = 30 * 60.0
RESPONSE_URL_USES = 5


class SlackError(Exception):
    """Slack refuses a call: `error` is Slack's own word for it, `details` what it says beside."""

    def __init__(self, error: str, details: Iterable[str] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.details = list(details)

    def body(self) -> Json:
        messages = {"response_metadata": {"messages": self.details}, "errors": self.details} if self.details else {}
        return {"ok": False, "error": self.error, **messages}


@dataclass(kw_only=True)
class Message:
    """One message. `only_to` is the one user who sees it (ephemeral), or ""."""

    ts: str
    user: str
    text: str = ""
    blocks: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    thread_ts: str = ""
    files: list[Json] = field(default_factory=list)
    reactions: dict[str, list[str]] = field(default_factory=dict)
    edited_ts: str = ""
    only_to: str = ""


@dataclass(kw_only=True)
class ResponseUrl:
    """Where an app may answer one click or command, five times within half an hour."""

    user: str
    message_ts: str
    born_s: float
    uses: int = 0


@dataclass(kw_only=True)
class StoredFile:
    """A file on its way in or uploaded; `content` is None until its bytes came."""

    id: str
    name: str
    length: int
    alt_text: str = ""
    title: str = ""
    content: bytes | None = None


def _wall() -> datetime:
    return datetime.now(UTC)


class Workspace:
    """
    The whole state of the workspace.

    `now` stamps messages (the lab's clock, so that a drill's messages carry the drill's time); `elapsed_s` is the
    wall's monotonic clock, by which tickets expire as people would feel it. `version` grows with every change.
    """

    def __init__(self, *, now: Callable[[], datetime] = _wall, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.elapsed_s = elapsed_s
        self.bot_token = "xoxb-lab-" + secrets.token_hex(12)
        self.app_token = "xapp-lab-" + secrets.token_hex(12)
        self.signing_secret = secrets.token_hex(16)
        self.socket_url = ""  # where Socket Mode listens, if it does
        self.version = 0
        self.messages: dict[str, Message] = {}
        self.files: dict[str, StoredFile] = {}
        self.views: dict[str, Json] = {}
        self.calls: list[Json] = []
        self.deliveries: list[Json] = []
        self._triggers: dict[str, tuple[str, float]] = {}
        self._response_urls: dict[str, ResponseUrl] = {}
        self._tickets: set[str] = set()
        self._last_ts = 0.0
        self.users = {person.slack: _user(person.slack, person.id, person.name, person.email) for person in CAST}
        self.users[BOT_USER] = _user(BOT_USER, "watchkeeper", "Watchkeeper", "", is_bot=True)

    def next_ts(self) -> str:
        """A message's identity: seconds since 1970 with six digits, always later than the one before."""
        self._last_ts = max(self.now().timestamp(), self._last_ts + 0.000001)
        return f"{self._last_ts:.6f}"

    def changed(self) -> None:
        self.version += 1

    # -- messages ------------------------------------------------------------------------------------------------

    def post(self, content: Mapping[str, Any], *, user: str = BOT_USER, only_to: str = "") -> Message:
        """A new message. Raises SlackError for content that Slack would not take."""
        checked = checked_content(content)
        thread_ts = str(content.get("thread_ts") or "")
        if thread_ts:
            parent = self.message(thread_ts, error="thread_not_found")
            thread_ts = parent.thread_ts or parent.ts
        message = Message(ts=self.next_ts(), user=user, thread_ts=thread_ts, only_to=only_to, **checked)
        self.messages[message.ts] = message
        self.changed()
        return message

    def edit(self, ts: str, content: Mapping[str, Any]) -> Message:
        """
        Replace a message of the app; `text` without `blocks` takes the blocks away, as in Slack.

        Metadata stays unless new metadata comes. Raises SlackError.
        """
        message = self.message(ts)
        if message.user != BOT_USER or message.only_to:
            raise SlackError("cant_update_message")
        checked = checked_content(content)
        message.text = checked.get("text", message.text if "blocks" in checked else "")
        message.blocks = checked.get("blocks", [])
        message.metadata = checked.get("metadata", message.metadata)
        if "blocks" not in checked:
            message.edited_ts = self.next_ts()
        self.changed()
        return message

    def delete(self, ts: str) -> None:
        if self.message(ts).user != BOT_USER:
            raise SlackError("cant_delete_message")
        del self.messages[ts]
        self.changed()

    def message(self, ts: str, *, error: str = "message_not_found") -> Message:
        if ts not in self.messages:
            raise SlackError(error)
        return self.messages[ts]

    def top_level(self) -> list[Message]:
        """The channel's public messages outside threads, oldest first."""
        return [m for m in self.messages.values() if not m.thread_ts and not m.only_to]

    def replies(self, parent_ts: str) -> list[Message]:
        """The public messages of a thread without its parent, oldest first."""
        return [m for m in self.messages.values() if m.thread_ts == parent_ts and not m.only_to]

    def shown(self, message: Message, *, include_metadata: bool = False) -> Json:
        """A message as Slack's API gives it; metadata only where the caller asked for it."""
        body: Json = {"type": "message", "ts": message.ts, "user": message.user, "text": message.text, "team": TEAM}
        if message.user == BOT_USER:
            body |= {"bot_id": BOT_ID, "app_id": APP}
        if message.blocks:
            body["blocks"] = copy.deepcopy(message.blocks)
        if message.files:
            body["files"] = copy.deepcopy(message.files)
        if message.edited_ts:
            body["edited"] = {"user": message.user, "ts": message.edited_ts}
        if include_metadata and message.metadata is not None:
            body["metadata"] = copy.deepcopy(message.metadata)
        if message.reactions:
            body["reactions"] = [{"name": n, "users": u, "count": len(u)} for n, u in message.reactions.items()]
        if message.thread_ts:
            body["thread_ts"] = message.thread_ts
        elif replies := self.replies(message.ts):
            body |= {"thread_ts": message.ts, "reply_count": len(replies), "latest_reply": replies[-1].ts}
        return body

    def button(self, message: Message, action_id: str, block_id: str = "") -> tuple[Json, Json]:
        """The (block, element) that is on the message now. Raises SlackError("no_such_element")."""
        for block, element in interactive_elements(message.blocks):
            if element.get("action_id") == action_id and block_id in {"", block.get("block_id")}:
                return dict(block), dict(element)
        have = [str(element.get("action_id")) for _, element in interactive_elements(message.blocks)]
        raise SlackError("no_such_element", [f"there is no {action_id!r} on this message now; it has {have}"])

    # -- tickets that people's actions hand to the app -----------------------------------------------------------------

    def new_trigger(self, user: str) -> str:
        trigger = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self._triggers[trigger] = (user, self.elapsed_s())
        return trigger

    def use_trigger(self, trigger: str) -> str:
        """The user behind a trigger, once and within three seconds. Raises SlackError."""
        if trigger not in self._triggers:
            raise SlackError("invalid_trigger_id")
        user, born_s = self._triggers.pop(trigger)
        if self.elapsed_s() - born_s > TRIGGER_LIFE_S:
            raise SlackError("expired_trigger_id")
        return user

    def new_ticket(self) -> str:
        """What opens one WebSocket of Socket Mode, once."""
        ticket = secrets.token_urlsafe(12)
        self._tickets.add(ticket)
        return ticket

    def use_ticket(self, ticket: str) -> bool:
        known = ticket in self._tickets
        self._tickets.discard(ticket)
        return known

    def new_response_url(self, user: str, message_ts: str = "") -> str:
        """The key of a new response_url; `message_ts` is the message it may replace."""
        key = secrets.token_hex(12)
        self._response_urls[key] = ResponseUrl(user=user, message_ts=message_ts, born_s=self.elapsed_s())
        return key

    def respond(self, key: str, body: Mapping[str, Any]) -> None:
        """What an app sends to a response_url. Raises SlackError (`used_url`, `expired_url`, ...)."""
        ticket = self._response_urls.get(key)
        if ticket is None:
            raise SlackError("invalid_url")
        ticket.uses += 1
        if ticket.uses > RESPONSE_URL_USES:
            raise SlackError("used_url")
        if self.elapsed_s() - ticket.born_s > RESPONSE_URL_LIFE_S:
            raise SlackError("expired_url")
        self.answer(body, user=ticket.user, message_ts=ticket.message_ts)

    def answer(self, body: Mapping[str, Any], *, user: str, message_ts: str = "") -> None:
        """A message in answer to a click or a command: ephemeral unless it says `in_channel`. Raises SlackError."""
        response_type = body.get("response_type", "ephemeral")
        if response_type not in {"ephemeral", "in_channel"}:
            raise SlackError("invalid_payload")
        target = self.messages.get(message_ts)
        if body.get("delete_original") in (True, "true"):
            if target is not None:
                del self.messages[message_ts]
                self.changed()
            return
        if body.get("replace_original") in (True, "true") and target is not None:
            checked = checked_content(body)
            target.text, target.blocks = checked.get("text", ""), checked.get("blocks", [])
            self.changed()
            return
        self.post(body, only_to=user if response_type == "ephemeral" else "")

    def react(self, ts: str, name: str, user: str) -> None:
        who = self.message(ts).reactions.setdefault(name, [])
        if user in who:
            raise SlackError("already_reacted")
        who.append(user)
        self.changed()


def checked_content(content: Mapping[str, Any]) -> Json:
    """
    The text, blocks and metadata of a message that Slack would take, blocks with ids given where none were.

    Text beyond 40,000 characters is cut. Raises SlackError with Slack's own error names.
    """
    checked: Json = {}
    text = content.get("text")
    if text is not None and not isinstance(text, str):
        raise SlackError("invalid_arguments", ["[ERROR] text must be a string"])
    if text:
        checked["text"] = text[:40_000]
    if content.get("blocks") is not None:
        faults = faults_in(content["blocks"])
        if faults:
            raise SlackError("invalid_blocks", faults)
        checked["blocks"] = [_with_ids(block) for block in copy.deepcopy(content["blocks"])]
    if not checked:
        raise SlackError("no_text")
    metadata = content.get("metadata")
    if metadata is not None:
        if not isinstance(metadata, dict) or not isinstance(metadata.get("event_payload"), dict):
            raise SlackError("invalid_metadata_format")
        if not isinstance(metadata.get("event_type"), str):
            raise SlackError("invalid_metadata_format")
        checked["metadata"] = copy.deepcopy(metadata)
    return checked


def _with_ids(block: Json) -> Json:
    block.setdefault("block_id", secrets.token_hex(3))
    for _, element in interactive_elements([block]):
        if isinstance(element, dict):
            element.setdefault("action_id", secrets.token_hex(3))
    return block


def _user(slack: str, name: str, real_name: str, email: str, *, is_bot: bool = False) -> Json:
    return {
        "id": slack,
        "team_id": TEAM,
        "name": name,
        "real_name": real_name,
        "deleted": False,
        "is_bot": is_bot,
        "is_restricted": False,
        "is_ultra_restricted": False,
        "tz": "Etc/UTC",
        "profile": {"email": email, "display_name": name, "real_name": real_name},
    }


def channel_shown(members: int) -> Json:
    """The one channel, as conversations.info gives it."""
    return {
        "id": CHANNEL,
        "name": CHANNEL_NAME,
        "is_channel": True,
        "is_im": False,
        "is_private": False,
        "is_archived": False,
        "is_member": True,
        "num_members": members,
        "topic": {"value": "Incidents of the LLM services"},
    }
