"""What the hostile put before the model, and what leaks out of it: poisoned sources, and data where it must not be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SOURCES: Mapping[str, str] = {"manuals": "retrieved", "forum": "retrieved", "order-notes": "tool"}
"""Where content comes from that a model reads besides the user's question, and by which way it comes in."""

FETCHED_BY: Mapping[str, str] = {"order-notes": "search_orders"}
"""The tools that fetch what comes in by a tool."""

KINDS = ("pii", "secret")

_SHOWS_RECORD = re.compile(r"\{\{customer_record\}\}")
_ACTS_ALONE = re.compile(r"\bwithout asking\b", re.IGNORECASE)


def acts_alone(prompt: str) -> bool:
    """Whether a prompt with this text lets an agent change things that nobody approved."""
    return bool(_ACTS_ALONE.search(prompt))


@dataclass(frozen=True, kw_only=True)
class Leak:
    """So many answers (0 to 1) say what they must not, of this kind; of one tenant's, where `tenant` is named."""

    kind: str
    share: float
    tenant: str = ""


@dataclass(kw_only=True)
class Threats:
    """
    `attackers` send so many injections per second, by the key that they use. `poisoned` says by source which share of
    the requests is shown an instruction that somebody hid in its content.

    `leaks` are those that no prompt explains, by where they come from (a tool, a cache). `record_leak` is what leaks
    under a prompt that puts the customer's whole record before the model.
    """

    attackers: dict[str, float] = field(default_factory=dict)
    poisoned: dict[str, float] = field(default_factory=dict)
    leaks: dict[str, Leak] = field(default_factory=dict)
    record_leak: Leak = field(default_factory=lambda: Leak(kind="pii", share=0.029))

    def leaking(self, prompt: str) -> tuple[Leak, ...]:
        """All leaks in the answers to this prompt."""
        own = (self.record_leak,) if _SHOWS_RECORD.search(prompt) else ()
        return (*own, *self.leaks.values())
