"""
The alert rules of the lab's service.

Thresholds and `for` are those of the reference alert pack. LLMFormatValidity is ours, since no standard metric exists:
a prompt version whose answers fail the schema check more than one time in twenty (the service's usual is 0.8 %).
"""

from __future__ import annotations

from datetime import timedelta

from lab.conditions import FullWhile, MeanAboveBaseline, RateAboveBaseline, ShareBeyond
from lab.rule import Rule

_KEEP_FIRING = timedelta(minutes=20)
"""Longer than a fix of three verified steps takes: otherwise the page ends while somebody still works on it."""

_LABELS = {"severity": "warning", "service": "chat", "namespace": "chat"}

HIGH_TTFT = Rule(
    name="LLMHighTTFT",
    condition=MeanAboveBaseline(metric="vllm:time_to_first_token_seconds", factor=1.4),
    summary="mean time to first token of {pod} is {value:.2f} s, {times:.1f} times the model's usual {limit:.2f} s",
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)

HIGH_ITL = Rule(
    name="LLMHighITL",
    condition=MeanAboveBaseline(metric="vllm:inter_token_latency_seconds", factor=1.35),
    summary="mean inter-token latency of {pod} is {value:.4f} s, {times:.1f} times the model's usual {limit:.4f} s",
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)

KV_SATURATED = Rule(
    name="LLMKVSaturated",
    condition=FullWhile(
        gauge="vllm:kv_cache_usage_perc", above=0.95, counter="vllm:num_preemptions_total", faster_than=0.1
    ),
    summary="the KV cache of {pod} is {value:.0%} full and requests are preempted",
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)

FORMAT_VALIDITY = Rule(
    name="LLMFormatValidity",
    condition=ShareBeyond(
        part="llm_app_format_checks_total",
        where={"result": "invalid"},
        whole="llm_app_format_checks_total",
        by=("prompt_name", "prompt_version"),
        above=0.05,
    ),
    summary="{value:.1%} of the answers of {prompt_name} version {prompt_version} fail the schema check",
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)

PROVIDER_429 = Rule(
    name="LLMProvider429",
    condition=ShareBeyond(
        part="litellm_deployment_failure_responses_total",
        where={"exception_status": "429"},
        whole="litellm_deployment_total_requests_total",
        by=("api_provider", "litellm_model_name"),
        above=0.1,
    ),
    summary="{api_provider} answers {value:.0%} of the requests to {litellm_model_name} with 429",
    wait=timedelta(minutes=3),
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)

SPEND = Rule(
    name="LLMSpend",
    # The reference compares with the week that ended yesterday; the lab's past begins two hours ago.
    condition=RateAboveBaseline(
        metric="litellm_spend_metric_total",
        factor=1.8,
        baseline_window=timedelta(hours=1),
        baseline_offset=timedelta(minutes=45),
    ),
    summary="spend is {times:.1f} times what it was an hour ago",
    wait=timedelta(minutes=15),
    keep_firing_for=_KEEP_FIRING,
    labels=_LABELS,
)
