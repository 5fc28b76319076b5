"""
How one vLLM replica behaves under a given load: the steady state, in closed form.

The equations are those of a RAG chat service on one H100 with an 8B model. Per replica at rest: 6 requests/s, prompts
of 3000 tokens, answers of 300, 40 % of the prompt found in the prefix cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from lab.normal import REFERENCE, Normal

BLOCK_TOKENS = 16
PATIENCE_S = 22.0
"""How long a caller waits for the first token on average before giving up (exponential)."""

FRONTEND_S = 0.020
"""What the API server needs for a request while it has the processor time that it wants."""

_STREAMING = 0.125
"""An API server that needs a second longer for a request is also late by an eighth with every token that it streams."""

_AT_ONCE_S = 0.020
"""What it takes to schedule a request for which there is room."""

_CROWDED_FROM = 1.5
"""So many times the usual arrivals are served as they come; beyond, prompts compete for the steps' token budget."""

_CROWDED_QUEUE_S, _CROWDED_PREFILL = 1.75, 0.5
_FULL_FROM, _FULL_QUEUE_S = 0.8, 3.0
"""A batch that is nearly full lets newcomers wait for a place, up to 0.6 s when it just fits."""

_TIGHT_KV, _TIGHT_PREEMPTIONS = 0.85, 0.5
"""A KV cache that is nearly full now and then preempts a request: 0.05 per second at 95 %."""

_GPU_GB, _WEIGHTS_GB, _KV_GB_PER_TOKEN = 80.0, 17.6, 128e-6
"""An H100; 8B weights in bf16 with activations; 128 kB of KV per token. At .90 that leaves 425,000 tokens."""

_RECOMPUTATION = 1.18
"""A full KV cache preempts requests whose prompts are computed again between other requests' tokens."""

_PREEMPTED = 0.24
"""The share of requests that a full KV cache preempts once: 0.9 per second at 3.8 served."""


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What an engine's arguments allow: tokens in its KV cache, and requests in its batch."""

    kv_tokens: int = 425_000
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    has_prefix_cache: bool = True
    is_eager: bool = False  # no CUDA graphs

    @property
    def kv_blocks(self) -> int:
        return self.kv_tokens // BLOCK_TOKENS


def engine_limits(args: Sequence[str]) -> EngineLimits:
    """
    The limits that vLLM derives from these command-line arguments (`--name value` or `--name=value`).

    `--num-gpu-blocks-override` wins over what `--gpu-memory-utilization` leaves. Arguments that vLLM would not start
    with (no memory left, no number) count as absent: the lab's pods always start.
    """
    given = _arguments(args)
    utilization = _number(given, "--gpu-memory-utilization", 0.9)
    kv_tokens = round((_GPU_GB * utilization - _WEIGHTS_GB) / _KV_GB_PER_TOKEN)
    blocks = int(_number(given, "--num-gpu-blocks-override", kv_tokens // BLOCK_TOKENS))
    return EngineLimits(
        kv_tokens=max(1, blocks) * BLOCK_TOKENS,
        max_num_seqs=int(_number(given, "--max-num-seqs", 256)),
        gpu_memory_utilization=utilization,
        has_prefix_cache="--no-enable-prefix-caching" not in args,
        is_eager="--enforce-eager" in args,
    )


def utilization_for(kv_tokens: float) -> float:
    """The `--gpu-memory-utilization` that leaves so many tokens of KV cache."""
    return (kv_tokens * _KV_GB_PER_TOKEN + _WEIGHTS_GB) / _GPU_GB


def _arguments(args: Sequence[str]) -> Mapping[str, str]:
    words = [word for arg in args for word in arg.split("=", 1)]
    return {name: value for name, value in pairwise(words) if name.startswith("--")}


def _number(given: Mapping[str, str], name: str, usual: float) -> float:
    try:
        return float(given[name])
    except (KeyError, ValueError):
        return usual


@dataclass(frozen=True, kw_only=True)
class Load:
    """
    What one replica is asked to do: requests per second, mean tokens, share of the prompt found in the cache.

    `slowness` is by how much its GPU decodes slower than a healthy one, `prefill_slowness` the same for prefill.
    `frontend_s` is what its API server needs for a request before the engine sees it, `cut` the share of answers that
    end at their limit, `max_tokens` the limit that most requests ask for. An engine that `is_stuck` takes no step.
    `normal` says what model and GPU it is.
    """

    rps: float
    prompt_tokens: float = REFERENCE.prompt_tokens
    output_tokens: float = REFERENCE.output_tokens
    hit: float = REFERENCE.hit
    slowness: float = 1.0
    prefill_slowness: float = 1.0
    frontend_s: float = FRONTEND_S
    cut: float = 0.03
    max_tokens: int = 1024
    is_stuck: bool = False
    normal: Normal = REFERENCE


@dataclass(frozen=True, kw_only=True)
class Means:
    """How a replica behaves under that load: mean seconds per request and the state of its batch."""

    queue_s: float
    prefill_s: float
    frontend_s: float
    itl_s: float
    running: float
    kv: float
    waiting: float = 0.0
    given_up: float = 0.0  # the share of requests whose callers left before their first token
    preemptions_per_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.queue_s + self.prefill_s + self.frontend_s

    def e2e_s(self, output_tokens: float) -> float:
        return self.ttft_s + self.itl_s * (output_tokens - 1)


def calm_prefill_s(load: Load) -> float:
    """The mean time that a healthy engine needs for these prompts while few arrive."""
    return 0.030 + 0.00022 * load.prompt_tokens * (1 - load.hit)


def means(load: Load, limits: EngineLimits | None = None) -> Means:
    """
    The steady state of a replica.

    Running is Little's law, and the time between tokens grows with running: .013 (1 + .0078 running). Both together
    are linear in running, so it has a closed form. Prompt tokens that miss the cache are computed in the same steps
    as other requests' tokens and slow those down, and newcomers wait for those steps: that is the last factor of ITL
    and of the queue, set so that a hit ratio of .03 gives 18.4 ms and .05 s, and one of .40 gives 16 ms and .02 s.

    Arrivals at half as many again as usual begin to wait for each other, at 2.5 times for 1.8 s. A replica that would
    need a larger batch than its limits allow is saturated: see `_saturated`.
    """
    limits = limits or EngineLimits()
    missed = max(0.0, load.normal.hit - load.hit)
    crowding = max(0.0, load.rps / load.normal.replica_rps - _CROWDED_FROM)
    prefill_s = calm_prefill_s(load) * load.prefill_slowness * (1 + _CROWDED_PREFILL * crowding)
    late = 1 + _STREAMING * max(0.0, load.frontend_s - FRONTEND_S)
    itl_idle_s = load.normal.token_s * (1 + 0.265 * missed) * load.slowness * late
    decode_steps = load.output_tokens - 1
    tokens_held = load.prompt_tokens + load.output_tokens / 2
    kv_bound = 0.99 * limits.kv_tokens / tokens_held
    room = min(limits.max_num_seqs, kv_bound)
    share_busy = load.rps * itl_idle_s * decode_steps * 0.0078
    running = load.rps * (prefill_s + itl_idle_s * decode_steps) / max(0.05, 1 - share_busy)
    fullness = min(1.0, running / room)
    waits_s = _CROWDED_QUEUE_S * crowding**0.75 + _FULL_QUEUE_S * max(0.0, fullness - _FULL_FROM)
    kv = min(running, room) * tokens_held / limits.kv_tokens
    calm = Means(
        queue_s=_AT_ONCE_S + 0.081 * missed + waits_s,
        prefill_s=prefill_s,
        frontend_s=load.frontend_s,
        itl_s=itl_idle_s * (1 + 0.0078 * min(running, room)),
        running=min(running, room),
        kv=kv,
        waiting=load.rps * waits_s,
        preemptions_per_s=_TIGHT_PREEMPTIONS * max(0.0, kv - _TIGHT_KV),
    )
    return calm if running <= room else _saturated(calm, load, is_kv_full=kv_bound <= limits.max_num_seqs)


def _saturated(full: Means, load: Load, *, is_kv_full: bool) -> Means:
    """
    The steady state of a replica that cannot serve all that arrives: a fluid queue whose callers lose patience.

    The batch is full, so it serves running / (prefill + decode) requests per second. Who waits w seconds is still
    there with probability exp(-w / patience); the queue settles where what is left of the arrivals is what is served.
    So w = patience ln(arrivals / served), arrivals - served leave, and (arrivals - served) patience wait. With the KV
    cache of scenario S03 that gives 11 s and 50 waiting, at 6 arrivals and 3.7 served per second.
    """
    itl_s = full.itl_s * (_RECOMPUTATION if is_kv_full else 1.0)
    served_rps = full.running / (full.prefill_s + itl_s * (load.output_tokens - 1))
    overload = max(1.0, load.rps / served_rps)
    return Means(
        queue_s=_AT_ONCE_S + max(full.queue_s - _AT_ONCE_S, PATIENCE_S * log(overload)),
        prefill_s=full.prefill_s,
        frontend_s=full.frontend_s,
        itl_s=itl_s,
        running=full.running,
        kv=full.kv,
        waiting=max(full.waiting, (load.rps - served_rps) * PATIENCE_S),
        given_up=1 - 1 / overload,
        preemptions_per_s=_PREEMPTED * served_rps if is_kv_full else 0.0,
    )
