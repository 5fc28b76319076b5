"""The vector store behind retrieval: whether it answers, how fast, and what is in its collection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class KnowledgeStore:
    """At rest: 120 ms a call, 2 % of the answers are empty, the best passage scores 0.72."""

    seconds: float = 0.120
    empty: float = 0.02
    error: float = 0.002
    timeout: float = 0.001
    score: float = 0.72
    points: int = 1_240_000
    embedder: str = "e5-base-v2"
