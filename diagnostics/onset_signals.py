"""The signals whose history tells since when: what is asked of each, and how far it must leave its normal level."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from diagnostics import latency
from diagnostics.checks.error_ratio import kind_of
from diagnostics.minutes import HISTORY, STEP, WINDOW
from diagnostics.target import Target
from diagnostics.telemetry.ask import mean_matrix, ratio_matrix
from diagnostics.telemetry.model import Function, Matrix, Query, Telemetry

STEPS = "vllm:iteration_tokens_total_count"
REQUESTS = "llm_app_requests_total"
GATEWAY_SPEND = "litellm_spend_metric_total"
GATEWAY_REQUESTS = "litellm_proxy_total_requests_metric_total"


@dataclass(frozen=True, kw_only=True)
class Level:
    """How far, and to which side (+1, -1, or 0 for either), a signal must leave its normal level to count."""

    side: int = 0
    relative: float = 0.0
    absolute: float = 0.0

    def is_left(self, value: float, normal: float, noise: float) -> bool:
        least = max(self.relative * abs(normal), self.absolute, 2 * noise)
        gain = value - normal
        return (gain * self.side if self.side else abs(gain)) > least


Question = tuple[str, Level, Coroutine[None, None, Matrix]]

_MEANS = {
    "ttft": (latency.TTFT, Level(side=1, relative=0.15)),
    "queue": (latency.QUEUE, Level(side=1, absolute=0.1)),
    "prefill": (latency.PREFILL, Level(relative=0.15)),
    "itl": (latency.ITL, Level(side=1, relative=0.08)),
    "prompt_tokens": (latency.PROMPT_TOKENS, Level(relative=0.15)),
    "output_tokens": (latency.OUTPUT_TOKENS, Level(relative=0.15)),
}

_SHARES: tuple[tuple[str, str, Mapping[str, Level]], ...] = (
    (REQUESTS, "status", dict.fromkeys(("5xx", "4xx", "429", "aborted"), Level(side=1, absolute=0.005))),
    (
        "llm_app_responses_total",
        "outcome",
        {
            "refusal": Level(side=1, absolute=0.01),
            "truncated": Level(side=1, absolute=0.03),
            "empty": Level(side=1, absolute=0.005),
        },
    ),
    ("llm_app_format_checks_total", "result", {"invalid": Level(side=1, absolute=0.01)}),
    ("llm_app_feedback_total", "rating", {"down": Level(side=1, absolute=0.03)}),
    ("llm_app_guardrail_total", "decision", {"block": Level(side=1, absolute=0.004)}),
    ("llm_app_tool_calls_total", "outcome", {"error": Level(side=1, absolute=0.02)}),
    ("llm_app_tool_calls_total", "verb", {"write": Level(side=1, absolute=0.05)}),
    (
        "llm_app_retrieval_total",
        "outcome",
        dict.fromkeys(("empty", "error", "timeout"), Level(side=1, absolute=0.03)),
    ),
)
"""A counter, the label whose values share it out, and the values that tell of trouble when their share grows."""

_SPEND = Level(side=1, relative=0.25)
_PER_REQUEST = {
    "llm_app_injection_detections_total": Level(side=1, relative=0.8, absolute=0.001),
    "llm_app_sensitive_output_total": Level(side=1, relative=0.8, absolute=0.0005),
    "llm_app_provider_errors_total": Level(side=1, relative=0.5, absolute=0.002),
    "llm_app_cost_usd_total": _SPEND,
}
"""Counters that grow with the requests, and are held against them."""


def questions(telemetry: Telemetry, target: Target, at: datetime) -> list[Question]:
    """Everything that is asked for the onset; the coroutines are the caller's to await."""
    asked: list[Question] = []
    history = _History(telemetry, at)
    if (serving := target.selectors.get("serving")) is not None:
        asked += _serving(history, serving)
    if (application := target.selectors.get("application")) is not None:
        asked += _application(history, application)
    if (gateway := target.selectors.get("gateway")) is not None:
        asked += _gateway(history, gateway, application)
    if (kubernetes := target.selectors.get("kubernetes")) is not None:
        ready = history.matrix(Query(metric="kube_deployment_status_replicas_available", where=kubernetes))
        asked.append(("ready_replicas", Level(side=-1, absolute=0.5), ready))
    return asked


@dataclass(frozen=True)
class _History:
    """The last hundred minutes of one telemetry, minute by minute."""

    telemetry: Telemetry
    at: datetime

    def matrix(self, query: Query) -> Coroutine[None, None, Matrix]:
        return self.telemetry.matrix(query, self.at - HISTORY, self.at, STEP)

    def mean(self, histogram: str, where: Mapping[str, str], by: tuple[str, ...] = ()) -> Coroutine[None, None, Matrix]:
        return mean_matrix(self.telemetry, histogram, where, WINDOW, self.at - HISTORY, self.at, STEP, by=by)

    def ratio(self, above: Query, below: Query) -> Coroutine[None, None, Matrix]:
        return ratio_matrix(self.telemetry, above, below, self.at - HISTORY, self.at, STEP)

    async def share(self, metric: str, label: str, value: str, where: Mapping[str, str]) -> Matrix:
        """One value's share of the counter's events; where it has none, that is zero and not unknown."""
        events = await self.matrix(_rate(metric, where, by=(label,)))  # asked once for all values of a label
        every: dict[datetime, float] = {}
        mine: dict[datetime, float] = {}
        for (told,), points in events.items():
            is_mine = value == (kind_of(told) if label == "status" else told)  # 5xx, or 503
            for instant, rate in points:
                every[instant] = every.get(instant, 0.0) + rate
                if is_mine:
                    mine[instant] = mine.get(instant, 0.0) + rate
        shares = [(instant, mine.get(instant, 0.0) / rate) for instant, rate in sorted(every.items()) if rate > 0]
        return {(value,): shares} if shares else {}


def _serving(history: _History, where: Mapping[str, str]) -> Iterator[Question]:
    for name, (histogram, level) in _MEANS.items():
        yield name, level, history.mean(histogram, where)
    yield "itl", Level(side=1, relative=0.15), history.mean(latency.ITL, where, by=("pod",))
    steps = history.matrix(_rate(STEPS, where, by=("pod",)))
    yield "steps_per_s", Level(side=-1, relative=0.5), steps
    hits = history.ratio(_rate(latency.PREFIX_HITS, where), _rate(latency.PREFIX_QUERIES, where))
    yield "prefix_hit_ratio", Level(side=-1, absolute=0.08), hits


def _application(history: _History, where: Mapping[str, str]) -> Iterator[Question]:
    for metric, label, levels in _SHARES:
        for value, level in levels.items():
            yield f"{value} in {metric}", level, history.share(metric, label, value, where)
    for metric, level in _PER_REQUEST.items():
        yield metric, level, history.ratio(_rate(metric, where), _rate(REQUESTS, where))
    yield REQUESTS, Level(relative=0.25), history.matrix(_rate(REQUESTS, where))
    yield "judge_score", Level(side=-1, absolute=0.03), history.mean("llm_app_judge_score", where)
    yield "stage", Level(absolute=0.1), history.mean("llm_app_stage_seconds", where, by=("stage",))


def _gateway(history: _History, where: Mapping[str, str], application: Mapping[str, str] | None) -> Iterator[Question]:
    """What it spends; and all that it knows of requests, where no application tells of them."""
    spent = _rate(GATEWAY_SPEND, where)
    if application is not None:
        yield GATEWAY_SPEND, _SPEND, history.ratio(spent, _rate(REQUESTS, application))
        return
    asked = _rate(GATEWAY_REQUESTS, where)
    yield GATEWAY_SPEND, _SPEND, history.ratio(spent, asked)
    yield GATEWAY_REQUESTS, Level(relative=0.25), history.matrix(asked)
    for failures in ("litellm_proxy_failed_requests_metric_total", "litellm_deployment_failure_responses_total"):
        yield failures, Level(side=1, relative=0.5, absolute=0.005), history.ratio(_rate(failures, where), asked)
    for histogram in ("litellm_request_total_latency_metric", "litellm_llm_api_latency_metric"):
        yield histogram, Level(side=1, relative=0.15), history.mean(histogram, where)


def _rate(metric: str, where: Mapping[str, str], by: tuple[str, ...] = ()) -> Query:
    return Query(metric=metric, where=where, function=Function.RATE, window=WINDOW, by=by)
