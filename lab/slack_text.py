"""A Slack message as plain lines, for people who read a thread in a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from lab.slack_blocks import interactive_elements

_LINK = re.compile(r"<(https?://[^|>]+)\|([^>]+)>")
_BARE_LINK = re.compile(r"<(https?://[^>]+)>")
_MENTION = re.compile(r"<[@#!]([^|>]+)(?:\|([^>]+))?>")
_WORD_JOINER = "\u2060"


def plain(mrkdwn: str) -> str:
    """mrkdwn without its links' angle brackets and entities; emphasis marks stay."""
    text = _LINK.sub(r"\2 (\1)", mrkdwn)
    text = _BARE_LINK.sub(r"\1", text)
    text = _MENTION.sub(lambda m: "@" + (m.group(2) or m.group(1)), text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace(_WORD_JOINER, "")


def lines_of(message: Mapping[str, Any]) -> list[str]:
    """What the message says, block by block; buttons as `[Approve]`. A message without blocks is its text."""
    blocks = message.get("blocks", [])
    lines = [line for block in blocks for line in _block_lines(block)] or plain(message.get("text", "")).splitlines()
    files = message.get("files", [])
    return [*lines, *(f"(file: {file.get('title') or file['name']}, {file['size']} bytes)" for file in files)]


def as_text(message: Mapping[str, Any], *, indent: str = "") -> str:
    """Who, when and what; the replies of the thread follow, indented."""
    at = datetime.fromtimestamp(float(message["ts"]), UTC).strftime("%H:%M:%S")
    private = " (only visible to one person)" if message.get("only_visible_to_you") else ""
    head = f"{indent}{at}  {message.get('author', message['user'])}{private}"
    body = [f"{indent}    {line}" for line in lines_of(message)]
    replies = [as_text(reply, indent=indent + "    ") for reply in message.get("replies", [])]
    return "\n".join([head, *body, *replies])


def _block_lines(block: Mapping[str, Any]) -> list[str]:
    lines = _fixed_lines(block)
    texts = [block["text"]] if isinstance(block.get("text"), dict) else []
    texts += block.get("fields", [])
    if block["type"] == "context":
        parts = [plain(element.get("text") or element.get("alt_text", "")) for element in block["elements"]]
        lines += "  |  ".join(parts).splitlines()
    if block["type"] == "section":
        lines += [line for text in texts for line in plain(text["text"]).splitlines()]
    return lines + _controls(block)


def _fixed_lines(block: Mapping[str, Any]) -> list[str]:
    """The blocks that are one line each, and Markdown, which reads well as it is."""
    one_line: dict[str, Callable[[], str]] = {
        "header": lambda: f"== {plain(block['text']['text'])} ==",
        "image": lambda: f"(picture: {block['alt_text']})",
        "divider": lambda: "-" * 40,
        "markdown": lambda: str(block["text"]),
        "rich_text": lambda: "(rich text)",
    }
    return one_line[block["type"]]().splitlines() if block["type"] in one_line else []


def _controls(block: Mapping[str, Any]) -> list[str]:
    labels = []
    for _, element in interactive_elements([block]):
        label = element.get("text") or element.get("placeholder") or {"text": element["type"]}
        labels.append(f"[{plain(label['text'])}]")
    return [" ".join(labels)] if labels else []
