"""
Engines other than vLLM: their metrics under vLLM's names, which are the ones that checks ask for.

One table says what each engine calls a thing. Which engine it is, and which spelling it has, is found out once per
diagnosis by what is exported. What an engine does not measure stays unknown; nothing is estimated in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from diagnostics.target import Target
from diagnostics.telemetry.model import Function, Key, Matrix, Query, Telemetry, Vector

CANONICAL = "vllm:"
_SUFFIXES = ("_sum", "_count", "_bucket")


@dataclass(frozen=True, kw_only=True)
class Alias:
    """What an engine calls something: the metric, matchers that pick it out, and the factor to our unit."""

    metric: str
    where: Mapping[str, str] = field(default_factory=dict)
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """
    One engine's vocabulary. `sign` is a metric that gives it away.

    `names` maps vLLM's name (without prefix) to this engine's; the series of a histogram may be mapped one by one.
    `prefix` replaces `vllm:` for names that are not listed; without it those are not measured by this engine.
    """

    title: str
    sign: str
    names: Mapping[str, Alias | tuple[Alias, ...]] = field(default_factory=dict)
    prefix: str | None = None


def _named(prefix: str, names: Mapping[str, str]) -> dict[str, Alias | tuple[Alias, ...]]:
    return {ours: Alias(metric=f"{prefix}{theirs}") for ours, theirs in names.items()}


def _spelt(*spellings: str) -> tuple[Alias, ...]:
    return tuple(Alias(metric=spelling) for spelling in spellings)


_OLD_VLLM: Mapping[str, Alias | tuple[Alias, ...]] = {
    "kv_cache_usage_perc": _spelt("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "inter_token_latency_seconds": _spelt("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "prefix_cache_queries_total": _spelt(
        "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries"
    ),
    "prefix_cache_hits_total": _spelt(
        "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits"
    ),
}

ENGINES: tuple[Engine, ...] = (
    Engine(title="vLLM", sign="vllm:num_requests_running", prefix="vllm:", names=_OLD_VLLM),
    Engine(title="vLLM on Ray Serve", sign="ray_vllm_num_requests_running", prefix="ray_vllm_"),
    Engine(title="vLLM on Ray Serve", sign="ray_vllm:num_requests_running", prefix="ray_vllm:"),
    Engine(title="vLLM on KServe", sign="kserve_vllm:num_requests_running", prefix="kserve_vllm:"),
    Engine(
        title="SGLang",
        sign="sglang:num_running_reqs",
        names={
            **_named(
                "sglang:",
                {
                    "num_requests_running": "num_running_reqs",
                    "num_requests_waiting": "num_queue_reqs",
                    "kv_cache_usage_perc": "token_usage",
                    "num_preemptions_total": "num_retracted_requests_total",
                    "prefix_cache_queries_total": "prompt_tokens_total",
                    "prefix_cache_hits_total": "cached_tokens_total",
                    "prompt_tokens_total": "prompt_tokens_total",
                    "generation_tokens_total": "generation_tokens_total",
                    "request_queue_time_seconds": "queue_time_seconds",
                    "time_to_first_token_seconds": "time_to_first_token_seconds",
                    "inter_token_latency_seconds": "inter_token_latency_seconds",
                    "e2e_request_latency_seconds": "e2e_request_latency_seconds",
                    "request_success_total": "num_requests_total",
                },
            ),
            "request_prefill_time_seconds": Alias(
                metric="sglang:per_stage_req_latency_seconds", where={"stage": "prefill_forward"}
            ),
        },
    ),
    Engine(
        title="TGI",
        sign="tgi_batch_current_size",
        names=_named(
            "tgi_",
            {
                "num_requests_running": "batch_current_size",
                "num_requests_waiting": "queue_size",
                "request_queue_time_seconds": "request_queue_duration",
                "e2e_request_latency_seconds": "request_duration",
                "inter_token_latency_seconds": "request_mean_time_per_token_duration",
                "request_prompt_tokens": "request_input_length",
                "request_generation_tokens": "request_generated_tokens",
                "request_success_total": "request_success",
            },
        )
        | {"request_prefill_time_seconds": Alias(metric="tgi_batch_forward_duration", where={"method": "prefill"})},
    ),
    Engine(
        title="TensorRT-LLM",
        sign="trtllm:e2e_request_latency_seconds_count",
        names=_named(
            "trtllm:",
            {
                "request_queue_time_seconds": "request_queue_time_seconds",
                "time_to_first_token_seconds": "time_to_first_token_seconds",
                "inter_token_latency_seconds": "time_per_output_token_seconds",
                "e2e_request_latency_seconds": "e2e_request_latency_seconds",
                "request_success_total": "request_success_total",
            },
        ),
    ),
    Engine(
        title="Triton",
        sign="nv_inference_request_success",
        names={
            "num_requests_waiting": Alias(metric="nv_inference_pending_request_count"),
            "request_success_total": Alias(metric="nv_inference_request_success"),
            # Counters of microseconds beside a counter of requests: together they are a mean.
            "request_queue_time_seconds_sum": Alias(metric="nv_inference_queue_duration_us", factor=1e-6),
            "request_queue_time_seconds_count": Alias(metric="nv_inference_request_success"),
            "e2e_request_latency_seconds_sum": Alias(metric="nv_inference_request_duration_us", factor=1e-6),
            "e2e_request_latency_seconds_count": Alias(metric="nv_inference_request_success"),
            "time_to_first_token_seconds": Alias(metric="nv_inference_first_response_histogram_ms", factor=1e-3),
        },
    ),
    Engine(
        title="NVIDIA Dynamo",
        sign="dynamo_frontend_inflight_requests",
        names=_named(
            "dynamo_frontend_",
            {
                "num_requests_running": "inflight_requests",
                "num_requests_waiting": "queued_requests",
                "time_to_first_token_seconds": "time_to_first_token_seconds",
                "inter_token_latency_seconds": "inter_token_latency_seconds",
                "e2e_request_latency_seconds": "request_duration_seconds",
                "request_success_total": "requests_total",
            },
        ),
    ),
    Engine(
        title="NVIDIA NIM",
        sign="num_requests_running",  # without a prefix, hence the last to be asked for
        names=_named(
            "",
            {
                "num_requests_running": "num_requests_running",
                "num_requests_waiting": "num_requests_waiting",
                "kv_cache_usage_perc": "gpu_cache_usage_perc",
                "prompt_tokens_total": "prompt_tokens_total",
                "generation_tokens_total": "generation_tokens_total",
                "time_to_first_token_seconds": "time_to_first_token_seconds",
                "inter_token_latency_seconds": "time_per_output_token_seconds",
                "e2e_request_latency_seconds": "e2e_request_latency_seconds",
                "request_prompt_tokens": "request_prompt_tokens",
                "request_generation_tokens": "request_generation_tokens",
                "request_success_total": "request_finish_total",
            },
        ),
    ),
)


class EngineTelemetry:
    """
    Telemetry that is asked for vLLM's names and answers from whatever engine there is.

    A question about anything else goes through untouched. Where no engine is recognised the names stay vLLM's own.
    """

    def __init__(self, telemetry: Telemetry, where: Mapping[str, str]) -> None:
        self._telemetry = telemetry
        self._where = where
        self._engine: Engine | None = None

    async def now(self) -> datetime:
        return await self._telemetry.now()

    async def vector(self, query: Query, at: datetime) -> Vector:
        found = await self._translated(query, at)
        if found is None:
            return {}
        theirs, factor, edge = found
        vector = await self._telemetry.vector(theirs, at)
        if factor == edge == 1.0:
            return vector
        return {_in_our_unit(key, query.by, edge): factor * value for key, value in vector.items()}

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        found = await self._translated(query, end)
        if found is None:
            return {}
        theirs, factor, edge = found
        matrix = await self._telemetry.matrix(theirs, start, end, step)
        if factor == edge == 1.0:
            return matrix
        return {
            _in_our_unit(key, query.by, edge): [(instant, factor * value) for instant, value in points]
            for key, points in matrix.items()
        }

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        found = await self._translated(Query(metric=metric, where=where or {}), at)
        return found is not None and await self._telemetry.exported(found[0].metric, at, found[0].where)

    async def lacks(self, metric: str, at: datetime) -> str | None:
        """Why this service's engine cannot have such a metric; None where it could, or is not known."""
        if not metric.startswith(CANONICAL):
            return None
        engine = await self._speaker(at)
        if _aliases(engine, metric):
            return None
        return f"{metric} is not exported; {engine.title} measures no such thing"

    async def _translated(self, query: Query, at: datetime) -> tuple[Query, float, float] | None:
        """Their question, the factor of its answer, and that of its buckets' edges (`le`)."""
        if not query.metric.startswith(CANONICAL):
            return query, 1.0, 1.0
        aliases = _aliases(await self._speaker(at), query.metric)
        if not aliases:
            return None
        alias = aliases[0] if len(aliases) == 1 else await self._spoken(aliases, query.function, at)
        theirs = replace(query, metric=alias.metric, where={**query.where, **alias.where})
        is_time = query.function is Function.QUANTILE or not alias.metric.endswith(("_count", "_bucket"))
        is_bucket = alias.metric.endswith("_bucket")
        return theirs, alias.factor if is_time else 1.0, alias.factor if is_bucket else 1.0

    async def _spoken(self, aliases: tuple[Alias, ...], function: Function, at: datetime) -> Alias:
        """The spelling that is exported; the newest where none is."""
        for alias in aliases:
            name = f"{alias.metric}_bucket" if function is Function.QUANTILE else alias.metric
            if await self._telemetry.exported(name, at, self._where):
                return alias
        return aliases[0]

    async def _speaker(self, at: datetime) -> Engine:
        """Whom we are talking to; asked by several checks at once, it is answered from the diagnosis' memory."""
        if self._engine is None:
            self._engine = await self._recognise(at)
        return self._engine

    async def _recognise(self, at: datetime) -> Engine:
        for engine in ENGINES:
            if await self._telemetry.exported(engine.sign, at, self._where):
                return engine
        return ENGINES[0]


def _in_our_unit(key: Key, by: tuple[str, ...], factor: float) -> Key:
    """The key with its bucket's edge in our unit; an edge that is no number stays as it is."""
    if factor == 1.0 or "le" not in by:
        return key
    place = by.index("le")
    try:
        edge = f"{factor * float(key[place]):g}"
    except ValueError:
        return key
    return (*key[:place], edge, *key[place + 1 :])


def speaking(telemetry: Telemetry, target: Target) -> EngineTelemetry:
    """The telemetry with vLLM's names for the target's engine; one that speaks them already is left as it is."""
    if isinstance(telemetry, EngineTelemetry):
        return telemetry
    return EngineTelemetry(telemetry, target.selectors.get("serving", {}))


def _aliases(engine: Engine, metric: str) -> tuple[Alias, ...]:
    """What the engine may call this metric, best first; empty where it has nothing like it."""
    name = metric.removeprefix(CANONICAL)
    listed = engine.names.get(name)
    if listed is not None:
        return listed if isinstance(listed, tuple) else (listed,)
    for suffix in _SUFFIXES:
        base = engine.names.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base is not None:
            every = base if isinstance(base, tuple) else (base,)
            return tuple(replace(alias, metric=f"{alias.metric}{suffix}") for alias in every)
    return (Alias(metric=f"{engine.prefix}{name}"),) if engine.prefix is not None else ()
