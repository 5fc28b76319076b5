"""A change that somebody or something made, and the sources that can tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from diagnostics.target import Target

Kind = Literal[
    "prompt", "model", "adapter", "engine", "config", "flag", "index", "embedder", "policy", "gateway", "tool",
    "judge", "secret", "network", "monitoring", "infra", "external",
]  # fmt: skip
"""What was changed; the causes name the kinds that bring them about."""

Dimension = Literal[
    "fleet", "pod", "node", "rack", "revision", "model", "provider", "account", "api_key", "tenant", "route", "prompt",
    "prompt_version", "tool", "agent", "data_source", "policy", "evaluator", "segment", "deployment", "adapter",
]  # fmt: skip
"""What a scope may be about."""


class ChangeSourceError(Exception):
    """A change source cannot be asked; its changes are a blind spot, not an absence of changes."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """
    One change, in the shape of a case's `changes.json`.

    `before` and `after` are what a person would compare (for a prompt: its text). `undo` is what a runbook step needs
    to take it back, as plain literals by name (for a prompt: prompt, label, version, previous_version). `url` is where
    people read it. A symptom is what a system tells of itself (a pod that restarts): it stands in the journal between
    the changes, and is never a suspect.
    """

    id: str
    at: datetime
    kind: str
    service: str
    summary: str
    source: str = ""
    author: str | None = None
    scope: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: str | None = None
    after: str | None = None
    undo: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    is_symptom: bool = False


class ChangeSource(Protocol):
    """Something that remembers changes: a prompt store, a Git folder, a cluster."""

    name: str

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """The target's changes in this time, oldest first. Raises ChangeSourceError."""
