"""The ways into the application: which prompt each uses, and who may take it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way into the application: its prompt, its share of the requests, and its only user if it has one."""

    name: str
    prompt: str
    share: float
    only: str = ""
    retrieval: bool = True
    needs_json: bool = True  # the application parses the answer, and counts whether it could


ROUTES = (
    Route(name="chat", prompt="chat-system", share=0.96),
    Route(name="summary", prompt="chat-summary", share=0.04, only="tenant-01", retrieval=False, needs_json=False),
)
