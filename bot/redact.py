"""What leaves through the door of another system is cleaned and redacted here, by the same two functions everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

MOST_CHARACTERS = 256 * 1024
"""Of one text; a webhook's body is no longer. The rest is cut off, since nobody reads it and redacting takes time."""
_CUT = "\n[cut here: the text is too long]"
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

_PLAIN_VALUE = r"""[^\s"'\\<>\[\](){}*$%,;&`|]"""
_QUOTED_VALUE = r"""\\?"[^"\\\n]+|\\?'[^'\\\n]+"""
_ASSIGN = r"""(?:\\?["'])?\s{0,3}(?::=|=>|[:=])\s{0,3}"""

# Text comes from strangers, so every rule takes linear time: what a rule may read before it knows that it matches is
# bounded. Only its last repetition has no bound, since it swallows what it reads; a bound there would show the rest
# of a long secret.

# Fixed prefixes that vendors chose so that scanners can find their tokens; the lengths are theirs or shorter.
# The lookahead of first letters makes the search ten times faster.
_TOKENS = re.compile(
    r"\b(?=[xgAyshrnSpde])(?:"
    r"xwfp-[\w-]{8,}|https://hooks\.slack\.com/(?:services|workflows|triggers)/[\w/+-]+"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl(?:pat|ptt|dt|rt|cbt|ft|agent|soat)-[\w-]{16,}"
    r"|(?:ASIA|ABIA|ACCA)[0-9A-Z]{16}\b|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|sk-[A-Za-z0-9_-]{16,}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|hf_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}"
    r"|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|SG\.[\w-]{16,128}+\.[\w-]{16,}|npm_[A-Za-z0-9]{30,}"
    r"|pypi-[\w-]{16,}|dapi[a-f0-9]{32}\b|do[opr]_v1_[a-f0-9]{64}|hv[sbr]\.[\w-]{20,}|gl(?:sa|c)_[\w=]{20,}"
    r"|pdus\+[\w+-]{16,}|eyJ[\w-]{8,4096}+\.[\w-]{8,}(?:\.[\w-]*)?)"
)
# So distinctive that they count in the middle of a word, too.
_TOKENS_ANYWHERE = re.compile(r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|AKIA[0-9A-Z]{16}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_PAGERDUTY_HEADER = re.compile(r"(?i)\btoken\s{1,16}token=\S+")
_AUTHORIZATION = re.compile(
    r"""(?i)((?:proxy-)?authorization(?:\\?["'])?\s{0,3}[:=]\s{0,3}(?:\\?["'])?(?:(?:bearer|basic|token|digest)\s{1,16})?)"""
    r"""(?!bearer\b|basic\b|token\b|digest\b|[$<{])[^\s"'\\\[]{6,}"""
)
_BEARER = re.compile(r"\b((?i:bearer|basic)\s{1,16})(?=[A-Za-z._~+/=-]{0,512}+[0-9])[A-Za-z0-9._~+/=-]{12,}")
_URL_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@:\"'<>]{0,128}:[^\s/\"'<>]{1,256}@")
_PASSWORDS = re.compile(
    rf"(?i)((?:password|passwd|passphrase|pwd|secret){_ASSIGN})({_QUOTED_VALUE}|{_PLAIN_VALUE}{{4,}})"
)
_KEYS = re.compile(  # a key has a digit and eight characters: "token: expired" stays readable
    r"(?i)((?:api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|secret[_-]?key|signing[_-]?key|routing[_-]?key"
    r"|private[_-]?key|credentials?|token|sig(?:nature)?)"
    rf"{_ASSIGN})((?=[^\s,;&0-9]{{0,512}}+[0-9])(?:{_QUOTED_VALUE}|{_PLAIN_VALUE}{{8,}}))"
)
_FLAGS = re.compile(
    r"(?i)(--(?:[\w-]{0,20}-)?(?:api-?key|token|password|passwd|secret|access-key|secret-key)(?:=|\s{1,3}))"
    r"(?![<$\[{-])[^\s\"'<>\[]{4,}"
)


def clean_text(text: str) -> str:
    """The text without characters that only programs see; line breaks are one newline, tabs stay."""
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))


def redact(text: str) -> str:
    """
    The text with credentials replaced by "[redacted]"; applying it twice changes nothing more.

    Known token formats, private keys, passwords in URLs, authorization headers, and values behind names such as
    `password=`. It prefers a lost harmless word ("password: written") over a leaked secret. Quotes stay, so JSON
    stays JSON.
    """
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _TOKENS_ANYWHERE.sub(REDACTED, text)
    text = _TOKENS.sub(REDACTED, text)
    text = _PAGERDUTY_HEADER.sub(REDACTED, text)
    text = _AUTHORIZATION.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
    text = _FLAGS.sub(rf"\1{REDACTED}", text)
    text = _PASSWORDS.sub(_hide_value, text)
    return _KEYS.sub(_hide_value, text)


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


def _hide_value(match: re.Match[str]) -> str:
    value = match.group(2)
    quote = re.match(r"""\\?["']""", value)
    return match.group(1) + (quote.group() if quote else "") + REDACTED
