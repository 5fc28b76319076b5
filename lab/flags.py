"""Feature flags of the application: what product teams switch without a deployment."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Flags:
    """
    The flags that matter to the engines: how many passages a prompt carries, and how long an answer may get.

    `salted` is the share of requests whose cache entries are kept apart from everybody else's by a salt.

    `whole_documents` is by route the share of requests that carry a whole document, beyond any context window.
    """

    retrieved_passages: int = 6
    max_tokens: int = 1024
    salted: float = 0.0
    whole_documents: dict[str, float] = field(default_factory=dict)
