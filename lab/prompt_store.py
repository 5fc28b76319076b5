"""The state of the prompt store: versions and labels, with the rules that Langfuse has for them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

LATEST = "latest"
PRODUCTION = "production"

_VARIABLE = re.compile(r"\{\{.*?\}\}")


class PromptNotFoundError(Exception):
    """The prompt, or this version of it, does not exist."""


@dataclass(frozen=True, kw_only=True)
class PromptVersion:
    """One version of a prompt. Its text never changes; its labels move, and moving them touches `updated_at`."""

    id: str
    name: str
    version: int
    prompt: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    commit_message: str | None = None
    type: str = "text"


def cacheable_share(text: str) -> float:
    """
    The share of a prompt's own text (0 to 1) that two requests have in common at its start.

    A prefix cache reuses work up to the first token that differs, so what counts is what stands before the first
    variable. Variables at the very end, where they belong, leave all of the fixed text cacheable.
    """
    first = _VARIABLE.search(text)
    if first is None:
        return 1.0
    fixed = len(_VARIABLE.sub("", text))
    return first.start() / fixed if fixed else 0.0


@dataclass(kw_only=True)
class PromptStore:
    """All prompts of one project. A label sits on one version per prompt; `latest` follows the newest by itself."""

    _prompts: dict[str, dict[int, PromptVersion]] = field(default_factory=dict)

    def create(
        self,
        name: str,
        prompt: str,
        *,
        at: datetime,
        created_by: str,
        labels: Sequence[str] = (),
        tags: Sequence[str] | None = None,
        config: dict[str, Any] | None = None,
        commit_message: str | None = None,
    ) -> PromptVersion:
        """Add the next version; its labels leave the versions that had them, and its tags apply to all versions."""
        versions = self._prompts.setdefault(name, {})
        number = max(versions, default=0) + 1
        kept_tags = tuple(tags) if tags is not None else (versions[number - 1].tags if versions else ())
        wanted = tuple(dict.fromkeys((*labels, LATEST)))
        self._take_labels(name, wanted, at)
        versions[number] = PromptVersion(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"lab:{name}:{number}")),
            name=name,
            version=number,
            prompt=prompt,
            created_by=created_by,
            created_at=at,
            updated_at=at,
            labels=wanted,
            tags=kept_tags,
            config=config or {},
            commit_message=commit_message,
        )
        for other, existing in versions.items():
            versions[other] = replace(existing, tags=kept_tags)
        return versions[number]

    def add_labels(self, name: str, version: int, labels: Sequence[str], *, at: datetime) -> PromptVersion:
        """
        Give labels to a version and take them from the others; labels that it already has stay.

        Raises PromptNotFoundError.
        """
        before = self.get(name, version)
        self._take_labels(name, labels, at)
        after = replace(before, labels=tuple(dict.fromkeys((*before.labels, *labels))), updated_at=at)
        self._prompts[name][version] = after
        return after

    def _take_labels(self, name: str, labels: Sequence[str], at: datetime) -> None:
        for number, existing in self._prompts[name].items():
            left = tuple(label for label in existing.labels if label not in labels)
            if left != existing.labels:
                self._prompts[name][number] = replace(existing, labels=left, updated_at=at)

    def get(self, name: str, version: int) -> PromptVersion:
        """Raises PromptNotFoundError."""
        try:
            return self._prompts[name][version]
        except KeyError:
            raise PromptNotFoundError(f"{name} version {version}") from None

    def labelled(self, name: str, label: str = PRODUCTION) -> PromptVersion:
        """The version that carries a label. Raises PromptNotFoundError."""
        for existing in self._prompts.get(name, {}).values():
            if label in existing.labels:
                return existing
        raise PromptNotFoundError(f"{name} with label {label}")

    def __iter__(self) -> Iterator[PromptVersion]:
        """Every version, by name and number."""
        for name in sorted(self._prompts):
            yield from (self._prompts[name][number] for number in sorted(self._prompts[name]))
