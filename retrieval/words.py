"""
Text to the words that are compared: names taken apart, identifiers left out, endings cut.

Alert names are CamelCase and metrics snake_case, while runbooks are prose; taking both apart brought 5 to 13 points of
recall@1. IPs, hashes, percentages and pod suffixes of one incident are never in a runbook and only add noise.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# A page can carry anything; the first 8,000 characters say what it is about, and bound the work of one query.
MOST_CHARACTERS = 8_000

_IDENTIFIERS = re.compile(
    r"""
      https?://\S+
    | \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b       # UUID
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b                                   # IPv4, with a port
    | \b(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{1,4}\b                               # IPv6
    | \b(?:sha256:)?(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b        # hash
    | \b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?)?              # date, time
    | \b[+-]?\d[\d.,]*(?:%|[a-zµ]{1,3}\b)?                                   # number with its unit
    """,
    re.VERBOSE | re.IGNORECASE,
)
_POD = re.compile(r"\b([a-z][a-z0-9-]{0,60}?)-[0-9a-f]{8,10}-[a-z0-9]{5}\b")  # deployment-<template hash>-<suffix>
_XID = re.compile(r"\bxid\W{0,3}(\d{1,3})\b", re.IGNORECASE)  # the one number that names a fault: NVIDIA's XID 79
_WORD = re.compile(r"[A-Z]+s?\d*(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|\d+[a-z]+\d*|[^\W\d_A-Za-z]+")
_NAME = re.compile(r"\b\w*[a-z0-9](?:[A-Z]|_\w)\w*\b")  # CamelCase or snake_case

# Words of every English sentence; not, any, all, over, under and down stay, since alert names differ by them.
_STOP_WORDS = """
    a about also an and are as at be been but by can could do does for from had has have how if in into is it its
    itself may of on or other our should so such than that the their them then there these they this those through to
    up was we were what when where which while who why will with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())


def cleaned(text: str) -> str:
    """The text without what belongs to one incident only, cut to what one query may cost."""
    text = text[:MOST_CHARACTERS]
    text = _XID.sub(r"xid\1", text)
    return _IDENTIFIERS.sub(" ", _POD.sub(r"\1", text))


def spaced(text: str) -> str:
    """Names taken apart into words, as the embedding model wants them: "KubeAPIDown" -> "Kube API Down"."""
    return " ".join(_WORD.findall(_XID.sub(r"xid\1", text)))


def words(text: str) -> list[str]:
    """
    The words of a text as written, without stop words; a name counts in parts and as a whole.

    The whole is what tells KubeNodeNotReady from a page about nodes and readiness: 2 points of recall@1.
    """
    text = _XID.sub(r"xid\1", text)
    parts = [word for word in _WORD.findall(text) if len(word) > 1 and word.lower() not in _STOP]
    return parts + _NAME.findall(text)


def stems(text: str) -> list[str]:
    """The words as BM25 counts them: lower case, no separators, English endings cut."""
    return [stem(word) for word in words(text)]


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """One word without its ending: "collapses" -> "collaps"."""
    return str(_stemmer().stemWord(plain(word)))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer  # noqa: PLC0415  a C extension that only searching needs

    return Stemmer.Stemmer("english")


def plain(name: str) -> str:
    """A name without case and separators, to compare names: "kube-api_down" and "KubeAPIDown" are equal."""
    return re.sub(r"[\W_]+", "", name).lower()
