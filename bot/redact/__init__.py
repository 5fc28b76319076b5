"""
What leaves through the door of another system, or into the store, is cleaned and redacted here, by the same functions
everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from bot.redact import gitleaks, ours
from bot.redact.ours import REDACTED

__all__ = ["MOST_CHARACTERS", "REDACTED", "clean_text", "redact", "safe_json", "safe_text", "safe_values"]

MOST_CHARACTERS = 256 * 1024
"""Of one text; a webhook's body is no longer. The rest is cut off, since nobody reads it and redacting takes time."""
_CUT = "\n[cut here: the text is too long]"
_MOST_PASSES = 6
_LAST_WORD = 512  # a word of up to this length is left out when the cut would go through it

# Characters that a person cannot see but a program (or the next reader's eye) is fooled by: control, soft hyphen,
# bidirectional overrides, zero-width, fillers, tags, variation selector supplement, surrogates and non-characters.
# PostgreSQL refuses U+0000 in text, UTF-8 refuses lone surrogates; PagerDuty titles may hold both.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U0001fffe\U0001ffff\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029]")


def clean_text(text: str) -> str:
    """The text without characters that only programs see; line breaks are one newline, tabs stay."""
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))


def redact(text: str) -> str:
    """
    The text with credentials replaced by "[redacted]"; applying it twice changes nothing more.

    First our own rules (what stands in headers, addresses, options and behind names such as `password=`), then those of
    gitleaks (the tokens of two hundred vendors). A rule may find only the last of several on a line, so the text is
    read again while that finds more.
    """
    for _ in range(_MOST_PASSES):
        hidden = gitleaks.hide(ours.hide(text), REDACTED)
        if hidden == text:
            break
        text = hidden
    return text


def safe_text(text: str) -> str:
    """Cut to 256 Ki characters, cleaned, redacted: an invisible character inside a token must not hide it."""
    return redact(clean_text(_cut(text)))


def safe_json(value: Any) -> Any:
    """The same JSON value with every string (keys too) cleaned and redacted; values behind telling keys are hidden."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, Mapping):
        return {safe_text(str(key)): _safe_member(str(key), member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [safe_json(member) for member in value]
    return value


def safe_values(value: Any, untouched: Collection[str] = ()) -> Any:
    """
    As `safe_json` for what we wrote ourselves: our own names tell nothing of their values, and they stay as they are.

    What stands behind a name in `untouched` is passed on as it is, for identities that must go on meaning the same.
    """
    if isinstance(value, str):
        return _remembered(value) if len(value) <= _LAST_WORD else safe_text(value)
    if isinstance(value, Mapping):
        return {name: member if name in untouched else safe_values(member, untouched) for name, member in value.items()}
    return [safe_values(member, untouched) for member in value] if isinstance(value, list | tuple) else value


_remembered = lru_cache(maxsize=4096)(safe_text)


def _cut(text: str) -> str:
    """The cut falls between words: half a token may look like none."""
    if len(text) <= MOST_CHARACTERS:
        return text
    end = MOST_CHARACTERS - len(_CUT)
    start = end - _LAST_WORD
    last_words = text[start:end].rsplit(maxsplit=1)
    return text[:start] + (last_words[0] if len(last_words) == 2 else "") + _CUT


def _safe_member(key: str, value: Any) -> Any:
    if isinstance(value, str) and value and _is_telling(clean_text(key[-_LAST_WORD:]), clean_text(value[:_LAST_WORD])):
        return REDACTED
    return safe_json(value)


def _is_telling(key: str, value: str) -> bool:
    """Would this value be hidden behind this key in a line of text? What ends a quoted value there does not count."""
    value = re.sub(r"[\"\\\n]", "x", value)
    return redact(f'{key}="{value}"') == f'{key}="{REDACTED}"'
