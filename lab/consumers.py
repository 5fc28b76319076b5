"""Who consumes: each tenant's share of a model group's requests and tokens, the largest tenants by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.gateway import LARGE_TENANTS, Client, Stream

_NAMED = frozenset(f"tenant-{place:02d}" for place in range(1, LARGE_TENANTS + 1))
"""The application exports its large tenants by name and the rest as `other`, so that series stay few."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A tenant's shares of all requests, prompt tokens and output tokens, 0 to 1, from one place."""

    tenant: str
    requests: float
    prompt: float
    output: float
    client: Client

    @property
    def api_key(self) -> str:
        return f"key-{self.tenant}"


def tenant_of(alias: str) -> str:
    """The name under which the application counts a key: its tenant's, or `other`."""
    name = alias.removeprefix("key-")
    return name if name in _NAMED else "other"


def usual_client(tenant: str) -> Client:
    """Where a tenant's requests come from at all other times."""
    place = int(tenant.removeprefix("tenant-")) if tenant in _NAMED else 99
    return Client(ip=f"10.20.{place}.7")


def only(tenant: str) -> Consumer:
    """Somebody who alone asks for something."""
    return Consumer(tenant=tenant, requests=1, prompt=1, output=1, client=usual_client(tenant))


def consumers(streams: Iterable[Stream]) -> list[Consumer]:
    """Every tenant that has a stream, with those that ask for nothing, so that their series exist from the start."""
    sums: dict[tuple[str, Client], list[float]] = {}
    for stream in streams:
        tenant = tenant_of(stream.key)
        mine = sums.setdefault((tenant, stream.client or usual_client(tenant)), [0.0, 0.0, 0.0])
        mine[0] += stream.rps
        mine[1] += stream.rps * stream.prompt_tokens
        mine[2] += stream.rps * stream.output_tokens
    requests, prompt, output = (sum(mine[place] for mine in sums.values()) or 1.0 for place in range(3))
    return [
        Consumer(
            tenant=tenant, client=client, requests=mine[0] / requests, prompt=mine[1] / prompt, output=mine[2] / output
        )
        for (tenant, client), mine in sums.items()
    ]


def request_shares(who: Sequence[Consumer]) -> list[float]:
    """Everybody's share of the requests; nobody asked at all when they are all zero, and then any shares will do."""
    shares = [one.requests for one in who]
    return shares if sum(shares) > 0 else [1 / len(who)] * len(who)
