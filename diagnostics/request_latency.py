"""
How long requests take where callers and providers are known, and whose got slower.

An engine's histograms know pods; those of the gateway, the SDK and the application know providers, keys, tenants,
routes and prompt versions. One table says who exports what under which labels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from diagnostics.attribution import Apart, Cell, Effects, cells_by, effects, has_grown, standing_apart
from diagnostics.look import Look
from diagnostics.target import Target

DEPLOYMENTS = "litellm_deployment_total_requests_total"

SELF_HOSTED = frozenset(
    {"hosted_vllm", "vllm", "openai_like", "ollama", "ollama_chat", "triton", "text-generation-inference"}
)
"""Providers in LiteLLM's and OpenTelemetry's spelling that are engines of one's own."""

_LITELLM: Mapping[str, tuple[str, ...]] = {
    "provider": ("api_provider",),
    "model": ("model", "litellm_model_name", "requested_model"),
    "api_key": ("api_key_alias", "hashed_api_key"),
    "tenant": ("team_alias", "team"),
    "prompt_version": ("prompt_version", "metadata_prompt_version"),
}
_OTEL: Mapping[str, tuple[str, ...]] = {
    "provider": ("gen_ai_provider_name", "gen_ai_system"),
    "model": ("gen_ai_response_model", "gen_ai_request_model"),
    "prompt_version": ("gen_ai_prompt_version", "prompt_version"),
    "tenant": ("tenant",),
    "route": ("route", "http_route"),
}
_APPLICATION: Mapping[str, tuple[str, ...]] = {
    "provider": ("provider",),
    "model": ("model",),
    "api_key": ("api_key",),
    "tenant": ("tenant",),
    "prompt_version": ("prompt_version",),
    "route": ("route",),
}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A histogram of seconds, the family it is found in, and the spellings of the label of each dimension."""

    histogram: str
    family: str
    labels: Mapping[str, tuple[str, ...]]


CALLS = (
    Timed(histogram="litellm_llm_api_latency_metric", family="gateway", labels=_LITELLM),
    Timed(histogram="gen_ai_client_operation_duration_seconds", family="application", labels=_OTEL),
    Timed(histogram="gen_ai_client_inference_duration_seconds", family="application", labels=_OTEL),
    Timed(histogram="gen_ai_server_request_duration_seconds", family="gateway", labels=_OTEL),
)
"""Who times a call of a model, from the question to the last token."""

FIRST_TOKENS = (
    Timed(histogram="litellm_llm_api_time_to_first_token_metric", family="gateway", labels=_LITELLM),
    Timed(histogram="gen_ai_client_operation_time_to_first_chunk_seconds", family="application", labels=_OTEL),
    Timed(histogram="gen_ai_client_inference_time_to_first_chunk_seconds", family="application", labels=_OTEL),
    Timed(histogram="gen_ai_server_time_to_first_token_seconds", family="gateway", labels=_OTEL),
)
"""Who times the wait for a model's first token."""

REQUESTS = (
    Timed(histogram="llm_app_request_duration_seconds", family="application", labels=_APPLICATION),
    Timed(histogram="litellm_request_total_latency_metric", family="gateway", labels=_LITELLM),
)
"""Who times a whole request."""


@dataclass(frozen=True, kw_only=True)
class Along:
    """One dimension of a change: the cells that got slower than the others, and rate and mix in seconds."""

    dimension: str
    apart: tuple[Apart, ...]
    effects: Effects


@dataclass(frozen=True, kw_only=True)
class ProviderLatency:
    """
    Calls of outside providers by their name, and the time to their first token where somebody times it.

    `whole` has all calls, also those of models of one's own and of providers without a name.
    """

    timed: Timed
    providers: Mapping[str, Cell]
    first_tokens: Mapping[str, Cell]
    whole: Cell

    @property
    def together(self) -> Cell:
        """All calls of outside providers; all calls where nobody tells providers."""
        return sum(self.providers.values(), Cell()) if self.providers else self.whole

    @property
    def slower(self) -> list[str]:
        """The providers whose calls take longer than they did, the slowest first."""
        grown = [name for name, cell in self.providers.items() if has_grown(cell)]
        return sorted(grown, key=lambda name: self.providers[name].mean.factor or 0.0, reverse=True)


async def exported(look: Look, options: tuple[Timed, ...]) -> Timed | None:
    """The first of these histograms that the service's telemetry has."""
    own = [option for option in options if option.family in look.target.selectors]
    names = await asyncio.gather(*(look.exported(option.family, f"{option.histogram}_count") for option in own))
    return next((option for option, name in zip(own, names, strict=True) if name is not None), None)


async def provider_latency(look: Look) -> ProviderLatency | None:
    """How long model calls take by provider; None where neither gateway nor SDK times them."""
    calls, first = await asyncio.gather(exported(look, CALLS), exported(look, FIRST_TOKENS))
    if calls is None:
        return None
    cells = await _by_provider(look, calls)
    first_tokens = {} if first is None else await _by_provider(look, first)
    return ProviderLatency(
        timed=calls,
        providers=_outside(cells, look.target),
        first_tokens=_outside(first_tokens, look.target),
        whole=sum(cells.values(), Cell()),
    )


async def along(look: Look, timed: Timed, *dimensions: str) -> list[Along]:
    """The change of a histogram's mean along these dimensions, or all; those that nobody tells apart are left out."""
    asked = [name for name in dimensions or timed.labels if name in timed.labels]
    cells = await asyncio.gather(
        *(_by_provider(look, timed) if name == "provider" else _named(look, timed, name) for name in asked)
    )
    found = []
    for name, mine in zip(asked, cells, strict=True):
        both = effects(mine) if len(mine) > 1 else None
        if both is not None:
            found.append(Along(dimension=name, apart=tuple(standing_apart(mine)), effects=both))
    return found


async def _named(look: Look, timed: Timed, dimension: str) -> dict[str, Cell]:
    return await cells_by(look, timed.histogram, timed.family, timed.labels[dimension])


async def _by_provider(look: Look, timed: Timed) -> dict[str, Cell]:
    """
    By provider; LiteLLM labels its latencies with the model only, and its deployments say whose model that is.
    """
    cells = await _named(look, timed, "provider")
    if any(cells) or timed.labels is not _LITELLM:
        return cells
    models, deployments = await asyncio.gather(
        _named(look, timed, "model"), look.rates(DEPLOYMENTS, timed.family, by=("litellm_model_name", "api_provider"))
    )
    owner = {key[0]: key[1] for key in deployments}
    merged: dict[str, Cell] = {}
    for model, cell in models.items():
        provider = owner.get(model, "")
        merged[provider] = merged.get(provider, Cell()) + cell
    return merged


def _outside(cells: Mapping[str, Cell], target: Target) -> dict[str, Cell]:
    """The providers that the service names as its own, or else all that are no engine of one's own."""
    named = {provider.name.casefold() for provider in target.providers}
    return {
        name: cell
        for name, cell in cells.items()
        if name and (name.casefold() in named if named else name.casefold() not in SELF_HOSTED)
    }
