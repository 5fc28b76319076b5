"""What an alert is about: the signal that it watches, read from its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from diagnostics.causes.knowledge import KnowledgeError, Signal, load, read_file

_WORD = re.compile(r"\w+")
_SIDES = {"up": 1, "down": -1}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The signal of an alert, and the side (+1 or -1) to which it moves when that fires."""

    alert: str
    signal: Signal
    side: int


def watched_by(text: str) -> Watched | None:
    """The first alert of our table that this name or title mentions; None where it mentions none."""
    known = _table()
    return next((known[word.casefold()] for word in _WORD.findall(text) if word.casefold() in known), None)


@cache
def _table() -> Mapping[str, Watched]:
    """alerts.toml, by the alerts' names in lower case. Raises KnowledgeError."""
    signals = load().signals
    found = {}
    for alert, entry in read_file("alerts").items():
        signal, side = signals.get(entry.get("signal", "")), _SIDES.get(entry.get("moves", ""))
        has_level = signal is not None and (signal.relative is not None or signal.absolute is not None)
        if signal is None or not has_level or side is None or entry.keys() != {"signal", "moves"}:
            raise KnowledgeError(
                f'alerts.toml: [{alert}] needs a signal with a level of signals.toml and moves = "up" or "down"'
            )
        found[alert.casefold()] = Watched(alert=alert, signal=signal, side=side)
    return found
