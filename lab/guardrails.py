"""The guardrail service: its policy, how long it takes, and what it blocks."""

from __future__ import annotations

from dataclasses import dataclass

_USUALLY_BLOCKED = 0.008


@dataclass(kw_only=True)
class Guardrails:
    """
    At rest: 60 ms a request, 0.8 % of ordinary requests blocked.

    `blocks_injections` is the share of what the injection detector sees that is also blocked; the rest is only noted.
    """

    policy_version: str = "14"
    seconds: float = 0.060
    blocked: float = _USUALLY_BLOCKED
    error_ratio: float = 0.0
    blocks_injections: float = 0.75

    @property
    def stricter(self) -> float:
        """How many times more than usual the policy blocks of what is harmless."""
        return self.blocked / _USUALLY_BLOCKED

    @property
    def let_through(self) -> float:
        """The share of ordinary requests that still reach a model, of those that do at rest."""
        return (1 - self.blocked) / (1 - _USUALLY_BLOCKED)

    @property
    def wrongly_blocked(self) -> float:
        """The share of requests that are blocked today and were answered at rest."""
        return max(0.0, self.blocked - _USUALLY_BLOCKED)
