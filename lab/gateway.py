"""
The LLM gateway's state: deployments with weights, fallbacks, keys with limits; and where the traffic goes by it.

It is LiteLLM's model. A *model group* is what clients ask for; `chat` is our own engines, one deployment a GPU node,
`chat-overflow` is the part of the traffic that outside providers answer, and `chat-large` the few questions of it that
get an expensive model. Each provider has a quota in tokens per minute for a model; what goes beyond it comes back as
429, and part of that is tried again by the client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lab.normal import REFERENCE, Normal
from lab.providers import ANTHROPIC, OPENAI, Price, Trouble

CHAT = "chat"
OVERFLOW = "chat-overflow"
LARGE = "chat-large"
OUTSIDE = (OVERFLOW, LARGE)
OWN = "hosted_vllm"
OWN_MODEL = "llama-3.1-8b-instruct"

NODE_WEIGHT = 10
"""Every node's weight at rest; LiteLLM's weights are whole numbers, and only their ratios count."""

OVERFLOW_PER_CHAT = 1 / 6
"""Requests to `chat-overflow` for each one to `chat`; they are the smaller tenants', the large ones stay inside."""

USD_PER_TOKEN: Mapping[str, Price] = {
    OWN_MODEL: Price(input=0.05e-6, output=0.08e-6),
    "gpt-4.1-nano": Price(input=0.10e-6, output=0.40e-6),
    "claude-3-haiku": Price(input=0.25e-6, output=1.25e-6),
    "gpt-4.1": Price(input=2.0e-6, output=8.0e-6),
}

USUALLY_LARGE = 0.01
"""The share of the overflow that asks for the expensive model."""

RETRIED = 2 / 3
"""The share of refused requests that their client sends again."""

JOB_TRIES_RPS = 0.5
"""How often a batch job that is refused tries again: its workers wait between two tries."""

TENANTS = 60
LARGE_TENANTS = 5


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What reaches the self-hosted engines: requests per second and mean tokens per request."""

    rps: float
    prompt_tokens: float = REFERENCE.prompt_tokens
    output_tokens: float = REFERENCE.output_tokens


@dataclass(kw_only=True)
class ModelDeployment:
    """One way to answer a model group's requests. `node` is "" for a provider; None as weight is "never set"."""

    id: str
    group: str
    provider: str
    model: str
    api_base: str
    weight: int | None = NODE_WEIGHT
    node: str = ""
    in_database: bool = True  # else it stands in the config file, where the API cannot change it


@dataclass(kw_only=True)
class Key:
    """An API key as the gateway stores it: by its hash."""

    alias: str
    token: str
    name: str  # the last characters of the key itself, as LiteLLM shows them
    share: float  # of the organic traffic to `chat`
    overflow_share: float = 0.0  # of that to `chat-overflow`
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    max_budget: float | None = None
    blocked: bool | None = None  # null until somebody blocks it, as in LiteLLM

    def admitted(self, rps: float, tokens_per_s: float) -> float:
        """The share of its requests that the gateway lets pass."""
        if self.blocked:
            return 0.0
        allowed = 1.0
        if self.rpm_limit is not None and rps > 0:
            allowed = min(allowed, self.rpm_limit / 60 / rps)
        if self.tpm_limit is not None and tokens_per_s > 0:
            allowed = min(allowed, self.tpm_limit / 60 / tokens_per_s)
        return allowed


@dataclass(frozen=True, kw_only=True)
class Client:
    """Where requests come from, as the gateway sees and exports it."""

    ip: str
    user_agent: str = "openai-python/1.99.1"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Requests of one key to one model group, per second, with their mean tokens. `client` None is the usual one."""

    key: str
    group: str
    rps: float
    prompt_tokens: float = REFERENCE.prompt_tokens
    output_tokens: float = REFERENCE.output_tokens
    client: Client | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.rps * (self.prompt_tokens + self.output_tokens)


@dataclass(frozen=True, kw_only=True)
class OwnAccord(Stream):
    """Work that an agent gave itself."""

    agent: str


@dataclass(frozen=True, kw_only=True)
class ProviderLoad:
    """
    One model of a provider right now, per second.

    `refused` are those beyond the quota (429), `broken` those that its trouble refuses, both among the asked.
    """

    group: str
    provider: str
    model: str
    asked: float
    refused: float
    broken: float
    retried: float  # those among the asked that were refused before
    quota_tokens_per_s: float
    prompt_tokens: float
    output_tokens: float
    trouble: Trouble | None = None
    falls_back_to: str = ""  # the model group that answers what is refused here

    @property
    def lost(self) -> float:
        return self.refused + self.broken

    @property
    def headroom(self) -> float:
        """The share of the quota that is left, 0 to 1."""
        wanted = (self.asked - self.broken) * (self.prompt_tokens + self.output_tokens)
        return max(0.0, 1 - wanted / self.quota_tokens_per_s) if self.quota_tokens_per_s else 0.0


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Where everything goes right now. `turned_away` are requests per second by the key whose limit or block it was."""

    streams: tuple[Stream, ...]
    turned_away: Mapping[str, float]
    providers: tuple[ProviderLoad, ...]

    def to(self, group: str) -> tuple[Stream, ...]:
        """What clients ask of a group; what falls back on it is not among it."""
        return tuple(stream for stream in self.streams if stream.group == group)

    @property
    def engines(self) -> Demand:
        """What the engines get: the streams to `chat`, and what falls back on them."""
        own = list(self.to(CHAT))
        for load in self.providers:
            if load.falls_back_to == CHAT:
                outside = self.to(load.group)
                part = load.lost / (sum(stream.rps for stream in outside) or 1.0)
                own += (replace(stream, rps=stream.rps * part) for stream in outside)
        return mean_of(own)


def mean_of(streams: Iterable[Stream]) -> Demand:
    """All of them together: requests per second, and mean tokens by request."""
    streams = list(streams)
    rps = sum(stream.rps for stream in streams)
    if rps <= 0:
        return Demand(rps=0.0)
    return Demand(
        rps=rps,
        prompt_tokens=sum(stream.rps * stream.prompt_tokens for stream in streams) / rps,
        output_tokens=sum(stream.rps * stream.output_tokens for stream in streams) / rps,
    )


@dataclass(kw_only=True)
class Gateway:
    """
    The gateway as it is now. Whoever writes to it (the admin API, a scenario) changes where the traffic goes.

    `jobs` is traffic beyond the organic one; `quotas` are tokens per minute of each model, by provider or by model.
    Sessions that stick multiply a node's share of the requests by `stickiness`, as far as the gateway's pods let them:
    those in `sticky_pods` do until they are replaced. `prompt_growth` multiplies prompt tokens, by tenant,
    `outside_growth` prompt and output tokens of what goes outside.
    `troubles` are by provider. `large_share` is how much of the overflow asks for the expensive model.
    """

    deployments: dict[str, ModelDeployment]
    keys: dict[str, Key]  # by token
    quotas: dict[str, float]
    normal: Normal = REFERENCE
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    large_share: float = USUALLY_LARGE
    jobs: list[Stream] = field(default_factory=list)
    stickiness: dict[str, float] = field(default_factory=dict)
    sticky_pods: set[str] = field(default_factory=set)
    prompt_growth: Mapping[str, float] = field(default_factory=dict)
    outside_growth: tuple[float, float] = (1.0, 1.0)
    surge: float = 1.0  # more requests to `chat`; the overflow has a budget of its own, and its callers know it
    organic_rps: float = 0.0

    def engine_weights(self) -> Mapping[str, float]:
        """Node -> the weight of its deployment, 1.0 at rest; a node that is missing counts as 1.0."""
        return {
            one.node: (one.weight or 0) / NODE_WEIGHT
            for one in self.deployments.values()
            if one.node and one.group == CHAT
        }

    def demand(self, organic_rps: float) -> Demand:
        """What reaches the engines when clients send this many requests per second to `chat`."""
        self.organic_rps = organic_rps
        return self.traffic().engines

    def traffic(self) -> Traffic:
        """Everything that the present state does with the present demand."""
        streams: list[Stream] = []
        turned_away: dict[str, float] = {}
        for key in self.keys.values():
            organic = self._organic(key)
            wanted = organic + [job for job in self.jobs if job.key == key.alias]
            rps = sum(stream.rps for stream in wanted)
            admitted = key.admitted(rps, sum(stream.tokens_per_s for stream in wanted))
            streams += wanted if admitted == 1 else (replace(each, rps=each.rps * admitted) for each in wanted)
            own = sum(stream.rps for stream in organic)
            turned_away[key.alias] = min((1 - admitted) * rps, (1 - admitted) * own + JOB_TRIES_RPS)
        return Traffic(
            streams=tuple(streams),
            turned_away={alias: rps for alias, rps in turned_away.items() if rps > 0},
            providers=tuple(self._outside(streams)),
        )

    def key(self, alias: str) -> Key:
        """Raises StopIteration when there is none."""
        return next(key for key in self.keys.values() if key.alias == alias)

    def _organic(self, key: Key) -> list[Stream]:
        growth = self.prompt_growth.get(key.alias.removeprefix("key-"), 1.0)
        prompt, output = self.normal.prompt_tokens * growth, self.normal.output_tokens
        rps = self.organic_rps * self.surge * key.share
        streams = [Stream(key=key.alias, group=CHAT, rps=rps, prompt_tokens=prompt, output_tokens=output)]
        if key.overflow_share:
            prompt, output = prompt * self.outside_growth[0], output * self.outside_growth[1]
            overflow = self.organic_rps * OVERFLOW_PER_CHAT * key.overflow_share
            for group, share in ((OVERFLOW, 1 - self.large_share), (LARGE, self.large_share)):
                rps = overflow * share
                streams.append(Stream(key=key.alias, group=group, rps=rps, prompt_tokens=prompt, output_tokens=output))
        return streams

    def _outside(self, streams: Sequence[Stream]) -> Iterable[ProviderLoad]:
        """Every provider's part; what falls back on an expensive model is asked of that as well."""
        extra = 0.0
        for group in OUTSIDE:
            wanted = mean_of(stream for stream in streams if stream.group == group)
            to = next((name for name in self.fallbacks.get(group, []) if name != group), "")
            for one, share in self._shares(group):
                load = self._load(one, replace(wanted, rps=share * (wanted.rps + extra)), to)
                yield load
                if group == OVERFLOW and to == LARGE:
                    extra += load.lost

    def _shares(self, group: str) -> Iterable[tuple[ModelDeployment, float]]:
        """Each deployment's share of its group's requests; without any weight above zero LiteLLM takes any."""
        members = [one for one in self.deployments.values() if one.group == group]
        whole = sum(one.weight or 0 for one in members)
        return [(one, (one.weight or 0) / whole if whole else 1 / len(members)) for one in members]

    def _load(self, one: ModelDeployment, fresh: Demand, falls_back_to: str) -> ProviderLoad:
        """`fresh` requests, and of those that were refused the part that is tried again where nobody else answers."""
        quota = self.quotas.get(one.model, self.quotas[one.provider]) / 60
        served = quota / (fresh.prompt_tokens + fresh.output_tokens)
        trouble = self.troubles.get(one.provider)
        share = trouble.share_of(one.provider) if trouble else 0.0
        again = trouble.refusal.retried if trouble and not falls_back_to else 0.0
        tried = fresh.rps / (1 - again * share)
        if trouble or tried <= served:  # in an outage nobody counts on the quota too
            asked, refused = tried, 0.0
        else:
            # asked = fresh + retried x (asked - served), solved for asked.
            retried = 0.0 if falls_back_to else RETRIED
            asked = (tried - retried * served) / (1 - retried)
            refused = asked - served
        return ProviderLoad(
            group=one.group,
            provider=one.provider,
            model=one.model,
            asked=asked,
            refused=refused,
            broken=asked * share,
            retried=max(0.0, asked - fresh.rps),
            quota_tokens_per_s=quota,
            prompt_tokens=fresh.prompt_tokens,
            output_tokens=fresh.output_tokens,
            trouble=trouble,
            falls_back_to=falls_back_to,
        )


def build(rng: np.random.Generator, nodes: Iterable[str], normal: Normal = REFERENCE) -> Gateway:
    """The reference gateway: a deployment for each GPU node, two providers for the overflow, sixty tenants' keys."""
    own = [
        ModelDeployment(
            id=f"chat-{node}",
            group=CHAT,
            provider=OWN,
            model=OWN_MODEL,
            api_base=f"http://{node}:8000/v1",
            node=node,
        )
        for node in nodes
    ]
    outside = [
        ModelDeployment(
            id="overflow-openai",
            group=OVERFLOW,
            provider=OPENAI,
            model="gpt-4.1-nano",
            api_base="https://api.openai.com/v1",
            weight=75,
        ),
        ModelDeployment(
            id="overflow-anthropic",
            group=OVERFLOW,
            provider=ANTHROPIC,
            model="claude-3-haiku",
            api_base="https://api.anthropic.com",
            weight=25,
        ),
        ModelDeployment(
            id="large-openai",
            group=LARGE,
            provider=OPENAI,
            model="gpt-4.1",
            api_base="https://api.openai.com/v1",
        ),
    ]
    shares = _tenant_shares()
    small = sum(shares[LARGE_TENANTS:])
    size = normal.tokens_per_s / REFERENCE.tokens_per_s
    keys = [
        Key(
            alias=f"key-tenant-{place:02d}",
            token=_token(rng),
            name=f"sk-...{place:04d}",
            share=share,
            overflow_share=share / small if place > LARGE_TENANTS else 0.0,
        )
        for place, share in enumerate(shares, 1)
    ]
    return Gateway(
        deployments={one.id: one for one in (*own, *outside)},
        keys={key.token: key for key in keys},
        quotas={OPENAI: 1_500_000.0 * size, ANTHROPIC: 1_000_000.0 * size},
        normal=normal,
    )


def _tenant_shares() -> list[float]:
    """Shares of the traffic, the largest first: Zipf with exponent 1.1 over 60 tenants."""
    weights = np.arange(1, TENANTS + 1, dtype=float) ** -1.1
    return [float(weight) for weight in weights / weights.sum()]


def _token(rng: np.random.Generator) -> str:
    """The hash that LiteLLM keeps instead of a key (SHA-256, hex)."""
    return hashlib.sha256(rng.bytes(16)).hexdigest()
