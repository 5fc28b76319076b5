"""
Text from outside -> Slack's text formats, so that it can neither link, mention, format nor leak.

Slack turns `<...>` into links and mentions, so & < > are escaped; every mrkdwn object is sent with `verbatim`, so that
nothing else is linked; a word joiner (U+2060) breaks what some clients link or notify all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from bot.redact import safe_text

_JOINER = "\u2060"
_FAR_BEYOND = 4  # times the limit; entities and invisible characters have room enough in it
_MARKDOWN = re.compile(r"\*(?=\*)|^(?:#|\|)")
_BROADCAST = re.compile(r"@(?=\s*(?:channel|here|everyone|group)\b)", re.IGNORECASE)
_SCHEME = re.compile(r"(?<=[a-z0-9]):(?=//)|(?<=mailto):|(?<=tel):|(?<=\bwww)\.", re.IGNORECASE)
# * _ ~ format only at the edge of a word: "1.4 * x" and "chat_system" stay as they are.
_FORMATTING = re.compile(r"(?<!\w)[*_~]+(?=\S)|(?<=\S)[*_~]+(?!\w)")
_LOOKALIKE = str.maketrans({"*": "\u2217", "_": "\u02cd", "~": "\u223c"})
_ANGLE_COMMAND = re.compile(r"<(?=[@#!]|\w+:)")
_URL_LABEL = re.compile(r"\w://|\bwww\.|\b[\w-]+\.[a-z]{2,}(?:/|$)", re.IGNORECASE)


def inline(text: str, limit: int = 300) -> str:
    """One line of mrkdwn that shows the text as it is; longer text ends in an ellipsis."""
    return shorten(_one_line(text, limit), limit, _mrkdwn)


def plain(text: str, limit: int) -> str:
    """One line for a plain_text object, which Slack neither links nor formats; at most `limit` characters."""
    return shorten(_one_line(text, limit), limit, _plain)


def code(text: str, limit: int = 900, max_lines: int = 14) -> str:
    """A preformatted block of at most `limit` characters; left-out lines are counted, never silently dropped."""
    lines = safe_text(text[: limit * _FAR_BEYOND]).rstrip().replace("\t", "    ").split("\n")
    kept: list[str] = []
    room = limit - len("```\n```") - len("\n… (0000 more lines in the thread)")
    for line in lines[:max_lines]:
        shown = shorten(line.rstrip(), 160, _preformatted)
        if room < len(shown) + 1:
            break
        room -= len(shown) + 1
        kept.append(shown)
    left_out = len(lines) - len(kept)
    rest = f"\n… ({left_out} more lines in the thread)" if left_out else ""
    return "```" + "\n".join(kept) + "```" + rest


def link(url: str, label: str, limit: int = 150) -> str:
    """A link that we built; if the label looks like an address, or the URL is not plain http(s), only the label."""
    shown = inline(label, limit)
    if not is_web_address(url) or _URL_LABEL.search(safe_text(label)):
        return shown
    return f"<{url.replace('&', '&amp;')}|{shown.replace('|', '¦')}>"


def is_web_address(url: str) -> bool:
    """Plain http(s) with a host, without a login in it or a character that could end Slack's link early."""
    if len(url) > 2000 or re.search(r"[\s<>|\"'\\`\x00-\x20\x7f-\uffff]", url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def lines_within(lines: Sequence[str], limit: int, rest: str = "… ({} more in the thread)") -> str:
    """As many whole lines as fit, then how many did not. Each line is already escaped."""
    kept: list[str] = []
    room = limit - len(rest) - 4
    for line in lines:
        if room < len(line) + 1:
            break
        kept.append(line)
        room -= len(line) + 1
    if len(kept) < len(lines):
        kept.append(rest.format(len(lines) - len(kept)))
    return "\n".join(kept)


def shorten(raw: str, limit: int, escaped: Callable[[str], str]) -> str:
    """The escaped form of the longest beginning that fits: an entity or a pair is never cut in half."""
    whole = escaped(raw)
    if len(whole) <= limit:
        return whole
    low, high = 0, min(len(raw), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(escaped(raw[:middle].rstrip() + "…")) <= limit else (low, middle - 1)
    return escaped(raw[:low].rstrip() + "…")


def _mrkdwn(text: str) -> str:
    text = _FORMATTING.sub(lambda match: match.group().translate(_LOOKALIKE), text).replace("`", "\u02cb")
    return _verbatim(text)


def _verbatim(text: str) -> str:
    text = text.replace("```", "\u02cb\u02cb\u02cb")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _unlinked(text)


def _preformatted(text: str) -> str:
    """Markdown in a prompt's diff is no markup here, and must not look like a mistake of ours in the markup either."""
    return _MARKDOWN.sub(lambda match: match.group() + _JOINER, _verbatim(text))


def _one_line(text: str, limit: int) -> str:
    """Cleaning megabytes to show a line would be a way to keep us busy, so what is far beyond the cut goes first."""
    return " ".join(safe_text(text[: limit * _FAR_BEYOND]).split())


def _plain(text: str) -> str:
    return _unlinked(_ANGLE_COMMAND.sub("<" + _JOINER, text))


def _unlinked(text: str) -> str:
    return _SCHEME.sub(lambda match: match.group() + _JOINER, _BROADCAST.sub("@" + _JOINER, text))
