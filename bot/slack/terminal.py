"""Block Kit as lines for a terminal: what a message of ours says, without a Slack to show it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from rich.text import Text

_MARKUP = re.compile(
    r"```(?P<code>.*?)```|<[^|>]+\|(?P<label>[^>]*)>|(?<!\w)\*(?P<bold>[^*\n]+)\*(?!\w)|(?<!\w)_(?P<it>[^_\n]+)_(?!\w)",
    re.DOTALL,
)


def lines(blocks: list[dict[str, Any]]) -> Iterator[Text]:
    """Top to bottom; a button is [in brackets], a menu [in brackets ▾]."""
    for block in blocks:
        match block["type"]:
            case "header":
                yield Text(block["text"]["text"], "bold underline")
            case "section":
                yield mrkdwn(block["text"]["text"])
            case "context":
                yield from (mrkdwn(each["text"], "dim") for each in block["elements"])
            case "divider":
                yield Text("─" * 40, "dim")
            case "actions":
                yield Text("  ").join(Text(f"[{_label(each)}]", "reverse") for each in block["elements"])
        yield Text()


def mrkdwn(text: str, style: str = "") -> Text:
    """As Slack shows it: bold, italics, code, links by their labels."""
    shown, end = Text(style=style), 0
    for found in _MARKUP.finditer(text):
        shown.append(_plain(text[end : found.start()]))
        for name, how in (("code", "cyan"), ("label", "underline"), ("bold", "bold"), ("it", "italic")):
            if found[name] is not None:
                shown.append(_plain(found[name]), how)
        end = found.end()
    shown.append(_plain(text[end:]))
    return shown


def _label(element: dict[str, Any]) -> str:
    return str(element["text"]["text"]) if "text" in element else f"{element['placeholder']['text']} ▾"


def _plain(text: str) -> str:
    return html.unescape(text)
