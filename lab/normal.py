"""What the reference fleet is like when nothing is wrong: the few levels from which everything else follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SPREAD = 0.25


@dataclass(frozen=True, kw_only=True)
class Normal:
    """
    A fleet's levels at rest: a RAG chat service on H100s with an 8B model, unless a case draws its own.

    `replica_rps` is at the top of the day, `token_s` the time between two tokens of a request that is alone in its
    batch; `hit` is the share of the prompt that a well-ordered prompt finds in the prefix cache.
    """

    replica_rps: float = 6.0
    replicas: int = 4
    prompt_tokens: float = 3000.0
    output_tokens: float = 300.0
    hit: float = 0.40
    token_s: float = 0.013

    @property
    def fleet_rps(self) -> float:
        """Requests per second over all replicas, at the top of the day."""
        return self.replicas * self.replica_rps

    @property
    def request_tokens(self) -> float:
        return self.prompt_tokens + self.output_tokens

    @property
    def tokens_per_s(self) -> float:
        """What the whole fleet reads and writes at the top of the day."""
        return self.fleet_rps * self.request_tokens


REFERENCE = Normal()


def draw_normal(rng: np.random.Generator) -> Normal:
    """Another fleet of the same kind: each level up to a quarter more or less, the load about as high."""
    wide = {name: float(rng.uniform(1 - _SPREAD, 1 + _SPREAD)) for name in ("prompt", "output", "hit", "token")}
    # A fleet is sized for its requests: those that take long come more rarely.
    rps = float(rng.uniform(1 - _SPREAD, 1 + _SPREAD)) / (wide["output"] * wide["token"])
    return Normal(
        replica_rps=REFERENCE.replica_rps * min(1 + _SPREAD, max(1 - _SPREAD, rps)),
        prompt_tokens=REFERENCE.prompt_tokens * wide["prompt"],
        output_tokens=REFERENCE.output_tokens * wide["output"],
        hit=REFERENCE.hit * wide["hit"],
        token_s=REFERENCE.token_s * wide["token"],
    )
