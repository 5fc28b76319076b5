"""Who consumes: each tenant's share of a model group's requests and tokens, the largest tenants by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.gateway import LARGE_TENANTS, Stream

_NAMED = frozenset(f"tenant-{place:02d}" for place in range(1, LARGE_TENANTS + 1))
"""The application exports its large tenants by name and the rest as `other`, so that series stay few."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A tenant's shares of all requests, prompt tokens and output tokens, 0 to 1."""

    tenant: str
    requests: float
    prompt: float
    output: float

    @property
    def api_key(self) -> str:
        return f"key-{self.tenant}"


def tenant_of(alias: str) -> str:
    """The name under which the application counts a key: its tenant's, or `other`."""
    name = alias.removeprefix("key-")
    return name if name in _NAMED else "other"


def consumers(streams: Iterable[Stream]) -> list[Consumer]:
    """Every tenant that has a stream, with those that ask for nothing, so that their series exist from the start."""
    sums: dict[str, list[float]] = {}
    for stream in streams:
        mine = sums.setdefault(tenant_of(stream.key), [0.0, 0.0, 0.0])
        mine[0] += stream.rps
        mine[1] += stream.rps * stream.prompt_tokens
        mine[2] += stream.rps * stream.output_tokens
    requests, prompt, output = (sum(mine[place] for mine in sums.values()) or 1.0 for place in range(3))
    return [
        Consumer(tenant=name, requests=mine[0] / requests, prompt=mine[1] / prompt, output=mine[2] / output)
        for name, mine in sums.items()
    ]
