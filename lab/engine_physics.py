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
    )


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
    `normal` says what model and GPU it is.
    """

    rps: float
    prompt_tokens: float = REFERENCE.prompt_tokens
    output_tokens: float = REFERENCE.output_tokens
    hit: float = REFERENCE.hit
    slowness: float = 1.0
    prefill_slowness: float = 1.0
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


def means(load: Load, limits: EngineLimits | None = None) -> Means:
    """
    The steady state of a replica.

    Running is Little's law, and the time between tokens grows with running: .013 (1 + .0078 running). Both together
    are linear in running, so it has a closed form. Prompt tokens that miss the cache are computed in the same steps
    as other requests' tokens and slow those down, and newcomers wait for those steps: that is the last factor of ITL
    and of the queue, set so that a hit ratio of .03 gives 18.4 ms and .05 s, and one of .40 gives 16 ms and .02 s.

    A replica that would need a larger batch than its limits allow is saturated: see `_saturated`.
    """
    limits = limits or EngineLimits()
    missed = max(0.0, load.normal.hit - load.hit)
    prefill_s = (0.030 + 0.00022 * load.prompt_tokens * (1 - load.hit)) * load.prefill_slowness
    itl_idle_s = load.normal.token_s * (1 + 0.265 * missed) * load.slowness
    decode_steps = load.output_tokens - 1
    tokens_held = load.prompt_tokens + load.output_tokens / 2
    kv_bound = 0.99 * limits.kv_tokens / tokens_held
    room = min(limits.max_num_seqs, kv_bound)
    share_busy = load.rps * itl_idle_s * decode_steps * 0.0078
    running = load.rps * (prefill_s + itl_idle_s * decode_steps) / max(0.05, 1 - share_busy)
    calm = Means(
        queue_s=0.020 + 0.081 * missed,
        prefill_s=prefill_s,
        frontend_s=0.020,
        itl_s=itl_idle_s * (1 + 0.0078 * min(running, room)),
        running=min(running, room),
        kv=min(running, room) * tokens_held / limits.kv_tokens,
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
        queue_s=full.queue_s + PATIENCE_S * log(overload),
        prefill_s=full.prefill_s,
        frontend_s=full.frontend_s,
        itl_s=itl_s,
        running=full.running,
        kv=full.kv,
        waiting=max(0.0, load.rps - served_rps) * PATIENCE_S,
        given_up=1 - 1 / overload,
        preemptions_per_s=_PREEMPTED * served_rps if is_kv_full else 0.0,
    )
