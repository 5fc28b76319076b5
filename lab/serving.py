"""The exporter of one vLLM replica: the requests of each scrape interval, and the metrics that they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lab.engine_physics import BLOCK_TOKENS, EngineLimits, Load, Means, calm_prefill_s, means
from lab.exposition import STEP, Family, Floats, Histogram, Registry

LATENCY_SIGMA = 0.35

# Bounds are vLLM V1's own. Many are left out, as clusters drop them at the scrape to save series: those that an 8B chat
# never comes near, and for single stages, of which means are looked at, all but a few.
_TTFT = (0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5)
_REQUEST = (0.5, 1, 2.5, 5, 10, 15, 20, 30, 60)
_STAGE = (0.5, 2.5, 10)
_TOKENS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
_ANSWER_TOKENS = (50, 100, 200, 500, 1000, 2000)
_ASKED_TOKENS = (200, 500)
_ITERATION = (64, 512, 8192)

_HISTOGRAMS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "vllm:time_to_first_token_seconds": ("Time from arrival to the first token.", _TTFT),
    "vllm:inter_token_latency_seconds": ("Time between two tokens of one request.", _ITL),
    "vllm:e2e_request_latency_seconds": ("Time from arrival to the last token.", _REQUEST),
    "vllm:request_queue_time_seconds": ("Time spent waiting for a place in the batch.", _STAGE),
    "vllm:request_prefill_time_seconds": ("Time from scheduling to the first token.", _STAGE),
    "vllm:request_decode_time_seconds": ("Time from the first to the last token.", _STAGE),
    "vllm:request_inference_time_seconds": ("Time from scheduling to the last token.", _STAGE),
    "vllm:request_prompt_tokens": ("Prompt tokens per request.", _TOKENS),
    "vllm:request_generation_tokens": ("Generated tokens per request.", _ANSWER_TOKENS),
    "vllm:request_params_max_tokens": ("The max_tokens that a request asks for.", _ASKED_TOKENS),
    "vllm:iteration_tokens_total": ("Tokens per engine step.", _ITERATION),
}
_COUNTERS = {
    "vllm:prefix_cache_queries_total": "Tokens looked up in the prefix cache.",
    "vllm:prefix_cache_hits_total": "Tokens found in the prefix cache.",
    "vllm:prompt_tokens_total": "Prompt tokens processed.",
    "vllm:generation_tokens_total": "Tokens generated.",
    "vllm:num_preemptions_total": "Requests preempted for want of KV cache.",
    "vllm:prompt_tokens_by_source_total": "Prompt tokens by where their KV came from.",
    "vllm:request_success_total": "Finished requests by reason.",
    "vllm:spec_decode_num_drafts_total": "Drafts made.",
    "vllm:spec_decode_num_draft_tokens_total": "Tokens drafted.",
    "vllm:spec_decode_num_accepted_tokens_total": "Drafted tokens that the model accepted.",
}
_GAUGES = {
    "vllm:num_requests_running": "Requests in the batch.",
    "vllm:num_requests_waiting": "Requests waiting for the batch.",
    "vllm:kv_cache_usage_perc": "Share of the KV cache in use, 0 to 1.",
    "vllm:cache_config_info": "Cache configuration.",
    "watchkeeper_probe_spec_decode_acceptance": "Share of drafted tokens that the model accepts.",
    "watchkeeper_probe_weight_load_seconds": "Time that the engine's last start took to load its weights.",
}
_FAMILIES = {
    **{name: Family(name=name, kind="histogram", help=text) for name, (text, _) in _HISTOGRAMS.items()},
    **{name: Family(name=name, kind="counter", help=text) for name, text in _COUNTERS.items()},
    **{name: Family(name=name, kind="gauge", help=text) for name, text in _GAUGES.items()},
}
_OWN_LIMIT, _ONE_IN = 256, 7
"""A limit of their own that some callers set, and how many of them do."""

_USUALLY_ENDED = {"abort": 0.004, "error": 0.001}
_REASONS = ("stop", "length", *_USUALLY_ENDED)

_LOADING_S = 75.0
_PINNED = 0.98
_DRAFTED = 3
"""How many tokens the draft model proposes for each step of the large one."""

_GATEWAY_PATIENCE_S = 7.5
"""How long the gateway waits for a first token from a pod that answers nothing, before it gives the request up."""

_TRIED_ELSEWHERE = 0.2
"""The share of requests given up on one pod that the gateway still gets answered by another."""


def lognormal(rng: np.random.Generator, mean: float, sigma: float, size: int) -> Floats:
    """Samples with this mean (not median) and this sigma of the logarithm."""
    return rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, size)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests of one replica, one entry each: what they asked and how long each stage took (seconds)."""

    prompt_tokens: Floats
    output_tokens: Floats
    queue_s: Floats
    prefill_s: Floats
    ttft_s: Floats
    decode_s: Floats
    done_s: Floats  # from the start of the current step to the last token

    @property
    def e2e_s(self) -> Floats:
        return self.ttft_s + self.decode_s

    def later(self, passed_s: float) -> Requests:
        """The same requests, seen from the start of the next step."""
        return self._where(np.ones(len(self.done_s), dtype=bool), passed_s)

    def split(self, horizon_s: float) -> tuple[Requests, Requests]:
        """Those that finish within the step, and those still running at its end (seen from there)."""
        done = self.done_s < horizon_s
        return self._where(done, 0.0), self._where(~done, horizon_s)

    def joined(self, other: Requests) -> Requests:
        return Requests(**{name: np.concatenate((getattr(self, name), getattr(other, name))) for name in _COLUMNS})

    def _where(self, mask: np.ndarray[tuple[int], np.dtype[np.bool_]], passed_s: float) -> Requests:
        columns = {name: getattr(self, name)[mask] for name in _COLUMNS}
        columns["done_s"] = columns["done_s"] - passed_s
        return Requests(**columns)


_COLUMNS = ("prompt_tokens", "output_tokens", "queue_s", "prefill_s", "ttft_s", "decode_s", "done_s")
_NOTHING = Requests(**dict.fromkeys(_COLUMNS, np.zeros(0)))


def arrivals(rng: np.random.Generator, load: Load, now: Means) -> Requests:
    """The requests that arrive at one replica in one step and stay: Poisson in number, lognormal in size and time."""
    step_s = STEP.total_seconds()
    n = int(rng.poisson(load.rps * (1 - now.given_up) * step_s))
    prompt = np.maximum(1, np.rint(lognormal(rng, load.prompt_tokens, 0.5, n)))
    output = np.maximum(1, np.rint(lognormal(rng, load.output_tokens, 0.6, n)))
    queue = lognormal(rng, now.queue_s, LATENCY_SIGMA, n)
    slower = now.prefill_s / calm_prefill_s(load)
    prefill = (0.030 + 0.00022 * prompt * (1 - load.hit)) * slower * lognormal(rng, 1.0, LATENCY_SIGMA, n)
    ttft = queue + prefill + lognormal(rng, now.frontend_s, LATENCY_SIGMA, n)
    decode = now.itl_s * (output - 1) * lognormal(rng, 1.0, 0.05, n)
    return Requests(
        prompt_tokens=prompt,
        output_tokens=output,
        queue_s=queue,
        prefill_s=prefill,
        ttft_s=ttft,
        decode_s=decode,
        done_s=rng.uniform(0, step_s, n) + ttft + decode,
    )


@dataclass(kw_only=True)
class Replica:
    """The exporter of one vLLM pod: its histograms, counters and gauges, and the requests it is still working on."""

    registry: Registry
    labels: Mapping[str, str]
    rng: np.random.Generator
    limits: EngineLimits = field(default_factory=EngineLimits)
    running: Requests | None = None
    given_up: int = 0  # callers who left in the last step before their first token
    failed: int = 0  # requests of the last step that ended in an error
    acceptance: float = 0.7  # of drafted tokens
    in_flight: float = 0.0  # requests running or waiting
    _waiting: int = 0  # for an engine that does not come back to them
    _histograms: dict[str, Histogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (_, bounds) in _HISTOGRAMS.items():
            self._histograms[name] = self.registry.histogram(_FAMILIES[name], bounds, self.labels)
        for reason in _REASONS:
            self._count("vllm:request_success_total", 0, finished_reason=reason)
        self._count("vllm:num_preemptions_total", 0)
        info = {"block_size": str(BLOCK_TOKENS), "num_gpu_blocks": str(self.limits.kv_blocks)}
        info |= {
            "enable_prefix_caching": str(self.limits.has_prefix_cache),
            "gpu_memory_utilization": f"{self.limits.gpu_memory_utilization:g}",
        }
        self._gauge("vllm:cache_config_info", 1, **info)
        self._gauge(
            "watchkeeper_probe_weight_load_seconds", round(float(self.rng.lognormal(np.log(_LOADING_S), 0.08)), 1)
        )

    def step(self, load: Load) -> Requests:
        """Let one scrape interval pass under this load; returns the requests that finished in it."""
        self.given_up = self.failed = 0
        if load.is_stuck:
            self._wait_in_vain(load)
            return _NOTHING
        self._waiting = 0
        now = means(load, self.limits)
        self.in_flight = now.running + now.waiting
        arrived = arrivals(self.rng, load, now)
        everything = arrived if self.running is None else self.running.joined(arrived)
        finished, self.running = everything.split(STEP.total_seconds())
        self._observe_arrivals(arrived, load)
        self._observe_finished(finished, load)
        self._observe_steps(now, load)
        self._observe_overload(now, load)
        noise = self.rng.lognormal(0, 0.05, 3)
        accepted = round(min(1.0, self.acceptance * noise[2] ** 0.5), 3)
        self._gauge("watchkeeper_probe_spec_decode_acceptance", accepted)
        self._gauge("vllm:num_requests_running", round(now.running * noise[0]))
        self._gauge("vllm:num_requests_waiting", round(now.waiting * noise[1]))
        is_pinned = now.kv > _PINNED  # a full cache stays full: what one request frees the next one takes
        self._gauge("vllm:kv_cache_usage_perc", round(min(1.0, now.kv * noise[1] ** (0.1 if is_pinned else 1)), 4))
        return finished

    def _wait_in_vain(self, load: Load) -> None:
        """
        One scrape interval of an engine that takes no step.

        Who arrives waits until the gateway gives up. What runs stays in the batch and finishes never, so that no
        histogram gets a sample, and the gauges of the batch stand still.
        """
        if self.running is not None:
            self.failed += len(self.running.done_s)
            self.running = None
        steps = STEP.total_seconds() / _GATEWAY_PATIENCE_S
        stays = float(np.exp(-steps))
        arrived = int(self.rng.poisson(load.rps * STEP.total_seconds()))
        waiting = int(self.rng.binomial(self._waiting, stays) + self.rng.binomial(arrived, (1 - stays) / steps))
        self.failed += int(self.rng.binomial(self._waiting + arrived - waiting, 1 - _TRIED_ELSEWHERE))
        self._waiting = waiting
        self._gauge("vllm:num_requests_waiting", self._waiting)

    def _observe_arrivals(self, arrived: Requests, load: Load) -> None:
        """TTFT is observed at the first token, and the prefix cache is asked when a request is scheduled."""
        self._observe("vllm:time_to_first_token_seconds", arrived.ttft_s)
        looked_up = float(arrived.prompt_tokens.sum())
        share = min(1.0, load.hit * self.rng.lognormal(0, 0.02))
        found = BLOCK_TOKENS * round(looked_up * share / BLOCK_TOKENS)  # whole blocks are found or not
        self._count("vllm:prefix_cache_queries_total", looked_up if self.limits.has_prefix_cache else 0)
        self._count("vllm:prefix_cache_hits_total", found)
        self._count("vllm:prompt_tokens_by_source_total", looked_up - found, source="local_compute")
        self._count("vllm:prompt_tokens_by_source_total", found, source="local_cache_hit")

    def _observe_finished(self, finished: Requests, load: Load) -> None:
        """Everything but TTFT is observed when the request is done, so a hung engine shows nothing."""
        self._observe("vllm:e2e_request_latency_seconds", finished.e2e_s)
        self._observe("vllm:request_queue_time_seconds", finished.queue_s)
        self._observe("vllm:request_prefill_time_seconds", finished.prefill_s)
        self._observe("vllm:request_decode_time_seconds", finished.decode_s)
        self._observe("vllm:request_inference_time_seconds", finished.prefill_s + finished.decode_s)
        self._observe("vllm:request_prompt_tokens", finished.prompt_tokens)
        self._observe("vllm:request_generation_tokens", finished.output_tokens)
        asked = np.full(len(finished.done_s), float(load.max_tokens))
        asked[::_ONE_IN] = min(_OWN_LIMIT, load.max_tokens)
        self._observe("vllm:request_params_max_tokens", asked)
        self._count("vllm:prompt_tokens_total", float(finished.prompt_tokens.sum()))
        self._count("vllm:generation_tokens_total", float(finished.output_tokens.sum()))
        others = sum(_USUALLY_ENDED.values())
        shares = [max(0.0, 1 - others - load.cut), min(load.cut, 1 - others), *_USUALLY_ENDED.values()]
        reasons = self.rng.multinomial(len(finished.done_s), shares)
        for reason, n in zip(_REASONS, reasons.tolist(), strict=True):
            self._count("vllm:request_success_total", n, finished_reason=reason)

    def _observe_overload(self, now: Means, load: Load) -> None:
        """Callers who gave up while they waited, and requests that lost their place in the KV cache."""
        preempted = int(self.rng.poisson(now.preemptions_per_s * STEP.total_seconds()))
        self._count("vllm:num_preemptions_total", preempted)
        if now.given_up:
            self.given_up = int(self.rng.poisson(load.rps * now.given_up * STEP.total_seconds()))
            self._count("vllm:request_success_total", self.given_up, finished_reason="abort")

    def _observe_steps(self, now: Means, load: Load) -> None:
        """
        One ITL per generated token and one iteration per engine step, from a few hundred samples each.

        An engine with nothing to do makes no steps.
        """
        if not load.rps and not (self.running and self.running.done_s.size):
            return
        step_s = STEP.total_seconds()
        tokens = int(self.rng.poisson(load.rps * (1 - now.given_up) * load.output_tokens * step_s))
        iterations = int(self.rng.poisson(step_s / now.itl_s))
        self._observe("vllm:inter_token_latency_seconds", lognormal(self.rng, now.itl_s, 0.2, 256), tokens // 256)
        drafts = round(tokens / (1 + _DRAFTED * self.acceptance))
        self._count("vllm:spec_decode_num_drafts_total", drafts)
        self._count("vllm:spec_decode_num_draft_tokens_total", _DRAFTED * drafts)
        accepted = int(self.rng.binomial(_DRAFTED * drafts, self.acceptance))
        self._count("vllm:spec_decode_num_accepted_tokens_total", accepted)
        batch = max(1.0, now.running + load.rps * load.prompt_tokens * (1 - load.hit) * now.itl_s)
        self._observe("vllm:iteration_tokens_total", np.rint(lognormal(self.rng, batch, 0.4, 16)), iterations // 16)

    def _observe(self, name: str, samples: Floats, weight: int = 1) -> None:
        self.registry.observe(self._histograms[name], samples, weight)

    def _count(self, name: str, amount: float, **labels: str) -> None:
        self.registry.add(_FAMILIES[name], {**self.labels, **labels}, amount)

    def _gauge(self, name: str, value: float, **labels: str) -> None:
        self.registry.set(_FAMILIES[name], {**self.labels, **labels}, value)
