"""Who calls the service, and how: surges, retries, sessions, longer conversations, attackers among them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Callers:
    """
    What is unusual about the callers right now; at rest nothing is.

    `surge` multiplies everybody's requests. `retries` is how many requests repeat an earlier one, for each session.
    `prompt_growth` and `answer_growth` multiply mean tokens, by route (`""` is every route) or by tenant.
    """

    surge: float = 1.0
    retries: float = 0.01
    prompt_growth: dict[str, float] = field(default_factory=dict)
    answer_growth: dict[str, float] = field(default_factory=dict)
