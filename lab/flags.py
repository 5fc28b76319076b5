"""Feature flags of the application: what product teams switch without a deployment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Flags:
    """The flags that matter to the engines: how many passages a prompt carries, and how long an answer may get."""

    retrieved_passages: int = 6
    max_tokens: int = 1024
