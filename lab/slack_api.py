"""
Slack's Web API, as far as an incident bot uses it, and as strict: tokens, arguments, blocks and rates are checked.

Each method's arguments, errors and answers are those of docs.slack.dev/reference/methods (November 2026). An argument
that the method does not know is an error here, so that a typing mistake is found in a test and not by a person.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.people import APP, BOT_ID, BOT_USER, CHANNEL, CHANNEL_NAME, TEAM, USERGROUPS
from lab.slack import Json, Message, SlackError, StoredFile, Workspace, channel_shown
from lab.slack_blocks import MAX_BLOCKS_BYTES

_CONTENT = frozenset({"text", "blocks", "metadata", "parse", "link_names", "mrkdwn", "unfurl_links", "unfurl_media"})
_ALWAYS = frozenset({"token", "team_id"})
_JSON_ARGUMENTS = frozenset({"blocks", "metadata", "files", "view"})


class RateLimitedError(Exception):
    """Too many calls; the caller may come back after this many seconds (HTTP 429)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"rate limited for {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Method:
    """
    One Web API method. `per_minute` is its tier's limit; `burst` what may come at once, where that is less.

    `caller` says whose token it takes: the bot's, or the app's own.
    """

    run: Callable[[Api, Mapping[str, Any]], Json]
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    per_minute: int = 50
    burst: int | None = None
    per_channel: bool = False
    caller: str = "bot"


class Api:
    """
    Answers calls on one workspace.

    `base_url` is where upload addresses point. With `rate_limited`, calls beyond Slack's rates raise
    RateLimitedError: about one chat.postMessage a second and channel after a short burst, the rest by their tier.
    """

    def __init__(self, workspace: Workspace, *, base_url: str, rate_limited: bool = False) -> None:
        self.workspace = workspace
        self.base_url = base_url
        self.rate_limited = rate_limited
        self._allowance: dict[str, tuple[float, float]] = {}

    def call(self, name: str, token: str, arguments: Mapping[str, Any]) -> Json:
        """Slack's answer, `{"ok": ...}`. Raises RateLimitedError."""
        try:
            method = self._allowed(name, token, arguments)
            answer = {"ok": True, **method.run(self, _decoded(arguments))}
        except SlackError as refusal:
            answer = refusal.body()
        self.workspace.calls.append(
            {"method": name, "arguments": dict(arguments), "ok": answer["ok"], "error": answer.get("error", "")}
        )
        return answer

    def _allowed(self, name: str, token: str, arguments: Mapping[str, Any]) -> Method:
        if not token:
            raise SlackError("not_authed")
        ours = {"bot": self.workspace.bot_token, "app": self.workspace.app_token}
        mine = [kind for kind, each in ours.items() if secrets.compare_digest(token.encode(), each.encode())]
        if not mine:
            raise SlackError("invalid_auth")
        method = METHODS.get(name)
        if method is None:
            raise SlackError("unknown_method")
        if mine != [method.caller]:
            raise SlackError("not_allowed_token_type")
        if self.rate_limited:
            self._spend(f"{name} {arguments.get('channel', '')}" if method.per_channel else name, method)
        missing = sorted(field for field in method.needs if arguments.get(field) in (None, ""))
        if missing:
            raise SlackError("invalid_arguments", [f"[ERROR] missing required field: {field}" for field in missing])
        unknown = sorted(arguments.keys() - method.needs - method.takes - _ALWAYS)
        if unknown:
            raise SlackError("invalid_arguments", [f"[ERROR] unknown argument: {field}" for field in unknown])
        return method

    def _spend(self, key: str, method: Method) -> None:
        now_s, rate = self.workspace.elapsed_s(), method.per_minute / 60
        most = float(method.burst or method.per_minute)
        left, at_s = self._allowance.get(key, (most, now_s))
        left = min(most, left + (now_s - at_s) * rate)
        if left < 1:
            self._allowance[key] = (left, now_s)
            raise RateLimitedError(max(1, math.ceil((1 - left) / rate)))
        self._allowance[key] = (left - 1, now_s)

    def channel(self, arguments: Mapping[str, Any], field: str = "channel") -> str:
        """The channel's id, where the app is a member. Raises SlackError."""
        if arguments[field] not in {CHANNEL, CHANNEL_NAME, f"#{CHANNEL_NAME}"}:
            raise SlackError("channel_not_found")
        return CHANNEL


def _decoded(arguments: Mapping[str, Any]) -> Json:
    """Arguments of a form arrive as text; those that hold JSON are read. Raises SlackError."""
    decoded = dict(arguments)
    for name in _JSON_ARGUMENTS & decoded.keys():
        if isinstance(decoded[name], str):
            try:
                decoded[name] = json.loads(decoded[name])
            except ValueError:
                raise SlackError(f"invalid_{name}_format") from None
    if len(json.dumps(decoded.get("blocks", []))) > MAX_BLOCKS_BYTES:
        raise SlackError("msg_blocks_too_long")
    return decoded


def _auth_test(api: Api, _arguments: Mapping[str, Any]) -> Json:
    return {
        "url": api.base_url + "/",
        "team": "Lab",
        "team_id": TEAM,
        "user": "watchkeeper",
        "user_id": BOT_USER,
        "bot_id": BOT_ID,
        "app_id": APP,
        "is_enterprise_install": False,
    }


def _post_message(api: Api, arguments: Mapping[str, Any]) -> Json:
    channel = api.channel(arguments)
    message = api.workspace.post(arguments)
    return {"channel": channel, "ts": message.ts, "message": api.workspace.shown(message)}


def _update(api: Api, arguments: Mapping[str, Any]) -> Json:
    channel = api.channel(arguments)
    message = api.workspace.edit(str(arguments["ts"]), arguments)
    shown = api.workspace.shown(message)
    return {"channel": channel, "ts": message.ts, "text": message.text, "message": shown}


def _delete(api: Api, arguments: Mapping[str, Any]) -> Json:
    channel = api.channel(arguments)
    api.workspace.delete(str(arguments["ts"]))
    return {"channel": channel, "ts": arguments["ts"]}


def _post_ephemeral(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    if arguments["user"] not in api.workspace.users:
        raise SlackError("user_not_in_channel")
    message = api.workspace.post(arguments, only_to=str(arguments["user"]))
    return {"message_ts": message.ts}


def _permalink(api: Api, arguments: Mapping[str, Any]) -> Json:
    channel = api.channel(arguments)
    message = api.workspace.message(str(arguments["message_ts"]))
    return {"channel": channel, "permalink": f"{api.base_url}/#{message.ts}"}


def _history(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    return _page(api, list(reversed(api.workspace.top_level())), arguments)


def _replies(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    parent = api.workspace.message(str(arguments["ts"]), error="thread_not_found")
    return _page(api, [parent, *api.workspace.replies(parent.ts)], arguments)


def _page(api: Api, messages: list[Message], arguments: Mapping[str, Any]) -> Json:
    """One page of messages, newest or oldest first as given; a cursor is the offset of the next page."""
    try:
        oldest, latest = float(arguments.get("oldest") or 0), float(arguments.get("latest") or math.inf)
        limit, offset = min(int(arguments.get("limit") or 100), 999), int(arguments.get("cursor") or 0)
    except ValueError:
        raise SlackError("invalid_arguments", ["[ERROR] oldest, latest, limit and cursor must be numbers"]) from None
    chosen = [m for m in messages if oldest <= float(m.ts) <= latest]
    include_metadata = arguments.get("include_all_metadata") in {True, "true", "1"}
    rest = offset + limit < len(chosen)
    return {
        "messages": [
            api.workspace.shown(m, include_metadata=include_metadata) for m in chosen[offset : offset + limit]
        ],
        "has_more": rest,
        "response_metadata": {"next_cursor": str(offset + limit) if rest else ""},
    }


def _conversation(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    return {"channel": channel_shown(len(api.workspace.users))}


def _conversations(api: Api, _arguments: Mapping[str, Any]) -> Json:
    return {"channels": [channel_shown(len(api.workspace.users))], "response_metadata": {"next_cursor": ""}}


def _members(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    return {"members": list(api.workspace.users), "response_metadata": {"next_cursor": ""}}


def _user_info(api: Api, arguments: Mapping[str, Any]) -> Json:
    user = api.workspace.users.get(str(arguments["user"]))
    if user is None:
        raise SlackError("user_not_found")
    return {"user": user}


def _user_list(api: Api, _arguments: Mapping[str, Any]) -> Json:
    return {"members": list(api.workspace.users.values()), "response_metadata": {"next_cursor": ""}}


def _usergroups(_api: Api, _arguments: Mapping[str, Any]) -> Json:
    groups = [{"id": group, "team_id": TEAM, "name": name, "date_delete": 0} for group, (name, _) in USERGROUPS.items()]
    return {"usergroups": groups}


def _usergroup_members(_api: Api, arguments: Mapping[str, Any]) -> Json:
    group = str(arguments["usergroup"])
    if group not in USERGROUPS:
        raise SlackError("no_such_subteam")
    return {"users": [person.slack for person in USERGROUPS[group][1]]}


def _add_reaction(api: Api, arguments: Mapping[str, Any]) -> Json:
    api.channel(arguments)
    name = str(arguments["name"])
    if ":" in name:
        raise SlackError("invalid_name")
    api.workspace.react(str(arguments["timestamp"]), name, BOT_USER)
    return {}


def _upload_address(api: Api, arguments: Mapping[str, Any]) -> Json:
    try:
        length = int(arguments["length"])
    except ValueError:
        raise SlackError("invalid_arguments", ["[ERROR] length must be a number of bytes"]) from None
    file_id = "F0" + secrets.token_hex(4).upper()
    api.workspace.files[file_id] = StoredFile(
        id=file_id,
        name=str(arguments["filename"]),
        length=length,
        alt_text=str(arguments.get("alt_txt") or ""),
    )
    return {"file_id": file_id, "upload_url": f"{api.base_url}/upload/{file_id}"}


def _complete_upload(api: Api, arguments: Mapping[str, Any]) -> Json:
    wanted = arguments["files"] if isinstance(arguments["files"], list) else []
    stored: list[StoredFile] = []
    for entry in wanted:
        file = api.workspace.files.get(str(entry.get("id"))) if isinstance(entry, dict) else None
        if file is None or file.content is None:
            raise SlackError("file_not_found")
        file.title = str(entry.get("title") or file.name)
        stored.append(file)
    if not stored:
        raise SlackError("invalid_arguments", ["[ERROR] files must name at least one uploaded file"])
    shown = [_file_shown(api, file) for file in stored]
    if arguments.get("channel_id"):
        api.channel(arguments, "channel_id")
        comment = str(arguments.get("initial_comment") or "")
        message = api.workspace.post({"text": comment or " ", "thread_ts": arguments.get("thread_ts")})
        message.text, message.files = comment, shown
    return {"files": shown}


def _file_shown(api: Api, file: StoredFile) -> Json:
    return {
        "id": file.id,
        "name": file.name,
        "title": file.title,
        "alt_txt": file.alt_text,
        "mimetype": "image/png" if file.name.endswith(".png") else "application/octet-stream",
        "size": file.length,
        "user": BOT_USER,
        "url_private": f"{api.base_url}/files/{file.id}",
        "permalink": f"{api.base_url}/files/{file.id}",
    }


def _open_view(api: Api, arguments: Mapping[str, Any]) -> Json:
    view = arguments["view"]
    if not isinstance(view, dict) or view.get("type") != "modal" or not isinstance(view.get("title"), dict):
        raise SlackError("invalid_arguments", ["[ERROR] view must be a modal with a title and blocks"])
    user = api.workspace.use_trigger(str(arguments["trigger_id"]))
    stored = {**view, "id": "V" + secrets.token_hex(5).upper(), "team_id": TEAM, "app_id": APP, "bot_id": BOT_ID}
    api.workspace.views[user] = stored
    api.workspace.changed()
    return {"view": stored}


def _open_connection(api: Api, _arguments: Mapping[str, Any]) -> Json:
    if not api.workspace.socket_url:
        raise SlackError("access_denied", ["Socket Mode is not switched on"])
    return {"url": f"{api.workspace.socket_url}/link/?ticket={api.workspace.new_ticket()}&app_id={APP}"}


def _fields(*names: str) -> frozenset[str]:
    return frozenset(names)


_PAGING = _fields("cursor", "limit", "oldest", "latest", "inclusive", "include_all_metadata")

METHODS: dict[str, Method] = {
    "apps.connections.open": Method(run=_open_connection, caller="app"),
    "auth.test": Method(run=_auth_test, per_minute=100),
    "chat.postMessage": Method(
        run=_post_message,
        needs=_fields("channel"),
        takes=_CONTENT | {"thread_ts", "reply_broadcast"},
        per_minute=60,
        burst=4,
        per_channel=True,
    ),
    "chat.update": Method(run=_update, needs=_fields("channel", "ts"), takes=_CONTENT | {"reply_broadcast"}),
    "chat.delete": Method(run=_delete, needs=_fields("channel", "ts")),
    "chat.postEphemeral": Method(
        run=_post_ephemeral, needs=_fields("channel", "user"), takes=_CONTENT | {"thread_ts"}, per_minute=100
    ),
    "chat.getPermalink": Method(run=_permalink, needs=_fields("channel", "message_ts"), per_minute=100),
    "conversations.history": Method(run=_history, needs=_fields("channel"), takes=_PAGING),
    "conversations.replies": Method(run=_replies, needs=_fields("channel", "ts"), takes=_PAGING),
    "conversations.info": Method(
        run=_conversation, needs=_fields("channel"), takes=_fields("include_locale", "include_num_members")
    ),
    "conversations.list": Method(
        run=_conversations, takes=_fields("cursor", "limit", "types", "exclude_archived"), per_minute=20
    ),
    "conversations.members": Method(run=_members, needs=_fields("channel"), takes=_fields("cursor", "limit")),
    "usergroups.list": Method(run=_usergroups, takes=_fields("team_id", "include_disabled"), per_minute=20),
    "usergroups.users.list": Method(
        run=_usergroup_members, needs=_fields("usergroup"), takes=_fields("team_id", "include_disabled"), per_minute=20
    ),
    "users.info": Method(run=_user_info, needs=_fields("user"), takes=_fields("include_locale"), per_minute=100),
    "users.list": Method(run=_user_list, takes=_fields("cursor", "limit", "include_locale"), per_minute=20),
    "reactions.add": Method(run=_add_reaction, needs=_fields("channel", "timestamp", "name")),
    "files.getUploadURLExternal": Method(
        run=_upload_address, needs=_fields("filename", "length"), takes=_fields("alt_txt", "snippet_type")
    ),
    "files.completeUploadExternal": Method(
        run=_complete_upload,
        needs=_fields("files"),
        takes=_fields("channel_id", "thread_ts", "initial_comment"),
    ),
    "views.open": Method(run=_open_view, needs=_fields("view", "trigger_id"), per_minute=100),
}
