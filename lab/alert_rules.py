"""
The alert rules of the lab's service.

Thresholds and `for` are those of the reference alert pack. Rules on the application's own signals are ours, since no
standard metric exists: each limit is several times the service's usual level and well below what the fault brings
(usual: 0.8 % invalid formats, 1.5 % refusals, 2 % empty retrievals, 0.7 % failing tool calls, 0.8 % blocked requests).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from diagnostics.telemetry.model import Aggregation, Function
from lab.conditions import FIVE_MINUTES, FullWhile, MeanAboveBaseline, RateAboveBaseline, ShareBeyond
from lab.level_conditions import AnyOf, LevelAbove, MeanBelowBaseline, ReplicasMissing, ScrapeLost, StandsStill
from lab.rule import Condition, Rule

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

_CRITICAL_XIDS = (
    "46|48|61|62|64|74|79|95|109|110|119|120|136|140|143|14[4-9]|150|155|156|158|167|169|171|172"  # NVIDIA's catalogue
)
_GPU = ("Hostname", "gpu", "UUID")


def _rule(name: str, condition: Condition, summary: str, wait_minutes: float = 5) -> Rule:
    wait = timedelta(minutes=wait_minutes)
    return Rule(
        name=name, condition=condition, summary=summary, wait=wait, keep_firing_for=_KEEP_FIRING, labels=_LABELS
    )


def _share(
    metric: str, label: str, value: str, by: tuple[str, ...], above: float, window: timedelta = FIVE_MINUTES
) -> ShareBeyond:
    """Which part of a counter's events has this value, in each group."""
    return ShareBeyond(part=metric, where={label: value}, whole=metric, by=by, above=above, window=window)


def _more(metric: str, label: str, factor: float, where: Mapping[str, str]) -> RateAboveBaseline:
    """So many times as much as an hour ago, in each group; the lab's past begins two hours ago."""
    return RateAboveBaseline(
        metric=metric,
        where=where,
        factor=factor,
        window=FIVE_MINUTES,
        baseline_window=timedelta(hours=1),
        baseline_offset=timedelta(minutes=45),
        by=(label,),
    )


def _nvlink(kind: str) -> LevelAbove:
    metric = f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL"
    rate = Function.RATE
    return LevelAbove(metric=metric, above=0, by=_GPU, function=rate, window=FIVE_MINUTES, aggregation=Aggregation.MAX)


_GATEWAY_LATENCY = AnyOf(
    conditions=(
        MeanAboveBaseline(metric="litellm_overhead_latency_metric", factor=10, by=("model_group",)),
        MeanAboveBaseline(metric="litellm_request_total_latency_metric", factor=1.3, by=("model_group",)),
    )
)

_XID = LevelAbove(
    metric="DCGM_EXP_XID_ERRORS_COUNT",
    where={"xid": f"~{_CRITICAL_XIDS}"},
    above=0,
    by=(*_GPU, "xid"),
    function=Function.MAX_OVER_TIME,
    window=FIVE_MINUTES,
    aggregation=Aggregation.MAX,
)

_ROW_REMAPPED = AnyOf(
    conditions=(
        LevelAbove(metric="DCGM_FI_DEV_ROW_REMAP_PENDING", above=0, by=_GPU, aggregation=Aggregation.MAX),
        LevelAbove(
            metric="DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
            above=0,
            by=_GPU,
            function=Function.DELTA,
            window=timedelta(hours=1),
            aggregation=Aggregation.MAX,
        ),
    )
)

_FAILURES, _CALLS = "litellm_deployment_failure_responses_total", "litellm_deployment_total_requests_total"

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        HIGH_TTFT,
        HIGH_ITL,
        KV_SATURATED,
        FORMAT_VALIDITY,
        PROVIDER_429,
        SPEND,
        _rule(
            "LLMHighE2E",
            MeanAboveBaseline(metric="vllm:e2e_request_latency_seconds", factor=2),
            "a request to {pod} takes {value:.1f} s, {times:.1f} times the model's usual {limit:.1f} s",
        ),
        _rule(
            "GatewayHighLatency",
            _GATEWAY_LATENCY,
            "{model_group} answers in {value:.1f} s, {times:.1f} times the usual",
        ),
        _rule(
            "LLMQueueBacklog",
            LevelAbove(metric="vllm:num_requests_waiting", above=8, by=("model_name", "pod")),
            "{value:.0f} requests wait for {pod}",
            3,
        ),
        _rule(
            "LLMEngineStalled",
            StandsStill(counter="vllm:iteration_tokens_total_count", gauge="vllm:num_requests_running"),
            "{pod} holds {value:.0f} requests and takes no step",
            1,
        ),
        _rule(
            "LLM4xx",
            _share("http_requests_total", "status", "4xx", ("handler",), 0.05),
            "{value:.0%} of the requests to {handler} get 4xx",
        ),
        _rule(
            "LLMTruncation",
            _share(
                "vllm:request_success_total",
                "finished_reason",
                "length",
                ("model_name",),
                0.2,
                window=timedelta(minutes=15),
            ),
            "{value:.0%} of the answers are cut off by the length limit",
            15,
        ),
        _rule("LLMReplicaLoss", ReplicasMissing(), "{deployment} has {value:.0%} of its replicas", 2),
        _rule("LLMMetricsAbsent", ScrapeLost(), "the engines in {namespace} are not scraped"),
        _rule(
            "LLMProviderErrors",
            ShareBeyond(
                part=_FAILURES, where={"exception_status": "~5.."}, whole=_CALLS, by=("api_provider",), above=0.1
            ),
            "{api_provider} fails {value:.0%} of the requests",
            3,
        ),
        _rule(
            "LLMAuthErrors",
            LevelAbove(
                metric=_FAILURES,
                where={"exception_status": "~401|403"},
                above=0.05,
                by=("api_provider",),
                function=Function.RATE,
                window=FIVE_MINUTES,
            ),
            "{api_provider} refuses {value:.2f} requests per second as not permitted",
            2,
        ),
        _rule("GPUXidCritical", _XID, "XID {xid} on GPU {gpu} of {Hostname}", 0),
        _rule("GPURowRemapInfo", _ROW_REMAPPED, "GPU {gpu} of {Hostname} remapped a row", 0),
        _rule(
            "GPUNVLink",
            AnyOf(conditions=tuple(_nvlink(kind) for kind in ("REPLAY", "RECOVERY", "CRC_FLIT"))),
            "the links of GPU {gpu} of {Hostname} repeat what they lost",
            2,
        ),
        _rule(
            "LLMRefusalRate",
            _share("llm_app_responses_total", "outcome", "refusal", ("prompt_name", "prompt_version"), 0.06),
            "{value:.0%} of the answers of {prompt_name} version {prompt_version} refuse",
        ),
        _rule(
            "LLMJudgeDrop",
            MeanBelowBaseline(
                metric="llm_app_judge_score", factor=0.92, window=timedelta(minutes=20), by=("model", "pod")
            ),
            "the judge's mean score of {model} {pod} is {value:.2f}, usually {limit:.2f}",
        ),
        _rule(
            "LLMInputDrift",
            LevelAbove(metric="llm_app_input_drift_auc", above=0.65, by=("segment",), aggregation=Aggregation.MAX),
            "questions in {segment} differ from the reference week's: AUC {value:.2f}",
        ),
        _rule(
            "LLMRetrievalEmpty",
            _share("llm_app_retrieval_total", "outcome", "empty", ("data_source",), 0.1),
            "{value:.0%} of the searches in {data_source} bring nothing",
        ),
        _rule(
            "LLMToolErrors",
            _share("llm_app_tool_calls_total", "outcome", "error", ("tool",), 0.1),
            "{value:.0%} of the calls of {tool} fail",
        ),
        _rule(
            "LLMToolRate",
            _more("llm_app_tool_calls_total", "agent", 2.5, {"verb": "write"}),
            "{agent} writes {times:.1f} times as often as usual",
        ),
        _rule(
            "LLMGuardBlock",
            _share("llm_app_guardrail_total", "decision", "block", ("rail", "policy_version"), 0.04),
            "the {rail} rail of policy {policy_version} blocks {value:.0%}",
        ),
        _rule(
            "LLMInjection",
            _more("llm_app_injection_detections_total", "surface", 4, {}),
            "injections by way of {surface} are {times:.0f} times as frequent as usual",
        ),
        _rule(
            "LLMSensitiveOutput",
            _more("llm_app_sensitive_output_total", "kind", 4, {}),
            "answers hold {times:.0f} times as much {kind} as usual",
        ),
    )
}
"""The rule of every alert by which a scenario of the catalogue first pages."""
