"""Who calls the service, and how: surges, retries, sessions, longer conversations, attackers among them."""

from __future__ import annotations

from dataclasses import dataclass, field

USUAL_RETRIES = 0.01


@dataclass(kw_only=True)
class Callers:
    """
    What is unusual about the callers right now; at rest nothing is.

    `surge` multiplies everybody's requests. `retries` is how many requests repeat an earlier one, for each session.
    `prompt_growth` and `answer_growth` multiply mean tokens, by route (`""` is every route) or by tenant.
    """

    surge: float = 1.0
    retries: float = USUAL_RETRIES
    prompt_growth: dict[str, float] = field(default_factory=dict)
    answer_growth: dict[str, float] = field(default_factory=dict)

    @property
    def repeated(self) -> float:
        """Requests for each one that there would be with as few retries as usual."""
        return (1 + self.retries) / (1 + USUAL_RETRIES)
