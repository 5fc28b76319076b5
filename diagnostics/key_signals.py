"""
The few signals that show a trouble at a glance: which they are, how their history is asked, and that as PromQL.

A check's own arithmetic (tests of chance, the slowest of many) is not repeated here: a curve shows the plain signal,
the number beside it is the check's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from diagnostics import gpus, latency
from diagnostics.causes import knowledge
from diagnostics.causes.knowledge import Expected, Knowledge
from diagnostics.causes.observation import Observation, observe
from diagnostics.diagnosis import Diagnosis
from diagnostics.engines import speaking
from diagnostics.minutes import HISTORY, STEP, WINDOW
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Function, Matrix, Query, Telemetry
from diagnostics.telemetry.promql import duration, to_promql

MOST_SIGNALS = 4
MOST_QUERIES = 6
"""What a picture may cost the Prometheus that it asks; a ratio or a mean costs two."""

_REQUESTS = "llm_app_requests_total"


@dataclass(frozen=True, kw_only=True)
class Question:
    """`above`, or above / below / `scale`; with `is_share` events without a numerator count as zero, not unknown."""

    above: Query
    below: Query | None = None
    is_share: bool = False
    scale: float = 1.0

    @property
    def cost(self) -> int:
        return 1 if self.below is None else 2

    def promql(self) -> str:
        """For a person's own Prometheus; our label names and the configured selectors, nothing that was read."""
        text = to_promql(self.above)
        if self.below is not None:
            text = f"{text} / {to_promql(self.below)}"
        return text if self.scale == 1.0 else f"{text} * {self.scale:g}"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A signal's last hundred minutes, oldest first, beside what its check measured."""

    signal: str
    words: str
    unit: str
    now: float | None
    baseline: float | None
    points: Sequence[tuple[datetime, float]]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """How a signal is asked, before the service's selectors are known; `part` makes it a share."""

    family: str
    metric: str
    function: Function = Function.RATE
    aggregation: Aggregation = Aggregation.SUM
    of: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    part: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0


def _mean(histogram: str, family: str = "serving", **where: str) -> _Asked:
    return _Asked(family=family, metric=f"{histogram}_sum", of=f"{histogram}_count", where=tuple(where.items()))


def _rate(metric: str, family: str = "serving", scale: float = 1.0, **where: str) -> _Asked:
    return _Asked(family=family, metric=metric, scale=scale, where=tuple(where.items()))


def _share(metric: str, family: str = "application", **part: str) -> _Asked:
    return _Asked(family=family, metric=metric, of=metric, part=tuple(part.items()))


def _level(metric: str, family: str, aggregation: Aggregation) -> _Asked:
    return _Asked(family=family, metric=metric, function=Function.AVG_OVER_TIME, aggregation=aggregation)


def _failed(status: str) -> _Asked:
    return _Asked(
        family="gateway",
        metric="litellm_deployment_failure_responses_total",
        of="litellm_deployment_total_requests_total",
        part=(("exception_status", status),),
    )


_STAGE = "llm_app_stage_seconds"
QUESTIONS: Mapping[str, _Asked] = {
    "ttft": _mean(latency.TTFT),
    "prefill": _mean(latency.PREFILL),
    "queue": _mean(latency.QUEUE),
    "itl": _mean(latency.ITL),
    "prompt_tokens": _mean(latency.PROMPT_TOKENS),
    "output_tokens": _mean(latency.OUTPUT_TOKENS),
    "prefix_hit_ratio": _Asked(family="serving", metric=latency.PREFIX_HITS, of=latency.PREFIX_QUERIES),
    "kv_usage": _level("vllm:kv_cache_usage_perc", "serving", Aggregation.MAX),
    "waiting": _level("vllm:num_requests_waiting", "serving", Aggregation.MAX),
    "running": _level("vllm:num_requests_running", "serving", Aggregation.SUM),
    "preemptions_per_s": _rate("vllm:num_preemptions_total"),
    "steps_per_s": replace(_rate("vllm:iteration_tokens_total_count"), aggregation=Aggregation.AVG),
    "draft_acceptance": _Asked(
        family="serving",
        metric="vllm:spec_decode_num_accepted_tokens_total",
        of="vllm:spec_decode_num_draft_tokens_total",
    ),
    "sm_clock": _level(gpus.CLOCK[0], "gpu", Aggregation.MIN),
    "gpu_temperature": _level(gpus.TEMPERATURE[0], "gpu", Aggregation.MAX),
    "gpu_power": _level(gpus.POWER[0], "gpu", Aggregation.MIN),
    "provider_429_ratio": _failed("429"),
    "provider_5xx_ratio": _failed("~5.."),
    "provider_auth_ratio": _failed("~401|403"),
    "ready_ratio": replace(
        _level("kube_deployment_status_replicas_available", "kubernetes", Aggregation.SUM),
        of="kube_deployment_spec_replicas",
    ),
    "requests_per_s": _rate(_REQUESTS, "application"),
    "tokens_per_s": _rate("llm_app_tokens_total", "application"),
    "cost_per_hour": _rate("llm_app_cost_usd_total", "application", scale=3600.0),
    "error_5xx_ratio": _share(_REQUESTS, status="~5..?|5xx"),
    "error_4xx_ratio": _share(_REQUESTS, status="~4xx|4[013-9].|42[0-8]"),
    "error_429_ratio": _share(_REQUESTS, status="429"),
    "abort_ratio": _share(_REQUESTS, status="aborted"),
    "requests_per_session": _Asked(family="application", metric=_REQUESTS, of="llm_app_sessions_total"),
    "retrieval": _mean(_STAGE, "application", stage="retrieval"),
    "gateway": _mean(_STAGE, "application", stage="gateway"),
    "guardrail": _mean(_STAGE, "application", stage="~guardrail_in|guardrail_out"),
    "retrieval_empty_ratio": _share("llm_app_retrieval_total", outcome="empty"),
    "retrieval_error_ratio": _share("llm_app_retrieval_total", outcome="error"),
    "retrieval_timeout_ratio": _share("llm_app_retrieval_total", outcome="timeout"),
    "retrieval_score": _mean("llm_app_retrieval_score", "application"),
    "guardrail_block_ratio": _share("llm_app_guardrail_total", decision="block"),
    "refusal_ratio": _share("llm_app_responses_total", outcome="refusal"),
    "empty_answer_ratio": _share("llm_app_responses_total", outcome="empty"),
    "length_finish_ratio": _share("llm_app_responses_total", outcome="truncated"),
    "format_valid_ratio": _share("llm_app_format_checks_total", result="valid"),
    "thumbs_down_ratio": _share("llm_app_feedback_total", rating="down"),
    "judge_score": _mean("llm_app_judge_score", "application"),
    "tool_error_ratio": _share("llm_app_tool_calls_total", outcome="error"),
    "input_drift_auc": _level("llm_app_input_drift_auc", "application", Aggregation.MAX),
    "injection_ratio": _Asked(
        family="application", metric="llm_app_injection_detections_total", of=_REQUESTS, part=(("surface", "user"),)
    ),
    "injection_retrieved_ratio": _Asked(
        family="application",
        metric="llm_app_injection_detections_total",
        of=_REQUESTS,
        part=(("surface", "~retrieved|tool"),),
    ),
    "sensitive_ratio": _Asked(
        family="application", metric="llm_app_sensitive_output_total", of=_REQUESTS, part=(("kind", "~.+"),)
    ),
}


def question_of(signal: str, target: Target) -> Question | None:
    """How this service's history of a signal is asked; None where that takes more than one quotient."""
    asked = QUESTIONS.get(signal)
    selector = target.selectors.get(asked.family) if asked is not None else None
    if asked is None or selector is None:
        return None
    where = {**selector, **dict(asked.where)}
    above = Query(
        metric=asked.metric,
        where={**where, **dict(asked.part)},
        function=asked.function,
        window=WINDOW,
        aggregation=asked.aggregation,
    )
    below = None if asked.of is None else replace(above, metric=asked.of, where=where)
    return Question(above=above, below=below, is_share=bool(asked.part), scale=asked.scale)


def graph_url(prometheus: str, target: Target, at: datetime, signal: str) -> str:
    """Prometheus' own page with a signal's graph up to `at`; "" where one quotient does not ask for it."""
    question = question_of(signal, target)
    if question is None:
        return ""
    shown = {
        "g0.expr": question.promql(),
        "g0.tab": "0",
        "g0.range_input": duration(HISTORY),
        "g0.end_input": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
    }
    return f"{prometheus.rstrip('/')}/graph?{urlencode(shown)}"


def key_signals(found: Diagnosis, known: Knowledge | None = None) -> tuple[Observation, ...]:
    """
    The signals that moved, best witnesses first: the first cause's decisive ones, then what else it brings about.

    One of a group is enough for a beginning, since they move together. Where no cause is known, what moved most.
    """
    known = known or knowledge.load()
    cause = known.causes.get(found.causes[0].cause) if found.causes else None
    moved = [seen for seen in observe(found.findings, known).values() if seen.state != "flat"]

    def place(seen: Observation) -> tuple[bool, bool, float]:
        name = seen.signal.name
        if cause is None:
            return False, False, -seen.distance
        is_expected = cause.expects.get(name, Expected.FLAT) is not Expected.FLAT
        return name not in cause.decisive, not is_expected, -seen.distance

    ordered = sorted(moved, key=place)
    leaders: dict[str, Observation] = {}
    for seen in ordered:
        leaders.setdefault(seen.signal.group, seen)
    first = list(leaders.values())
    return (*first, *(seen for seen in ordered if seen not in first))


async def curves(telemetry: Telemetry, target: Target, found: Diagnosis) -> tuple[Curve, ...]:
    """The history of the key signals up to the diagnosis; one without any is left out. Raises TelemetryError."""
    chosen: list[tuple[Observation, Question]] = []
    cost = 0
    for seen in key_signals(found):
        question = question_of(seen.signal.name, target)
        if question is None or len(chosen) == MOST_SIGNALS or cost + question.cost > MOST_QUERIES:
            continue
        cost += question.cost
        chosen.append((seen, question))
    asked = speaking(telemetry, target)
    answers = await asyncio.gather(*(points_of(asked, question, found.frame.at) for _, question in chosen))
    return tuple(
        Curve(
            signal=seen.signal.name,
            words=seen.signal.words,
            unit=seen.signal.unit,
            now=seen.measure.value,
            baseline=seen.measure.baseline,
            points=points,
        )
        for (seen, _), points in zip(chosen, answers, strict=True)
        if len(points) > 1
    )


async def points_of(telemetry: Telemetry, question: Question, at: datetime) -> list[tuple[datetime, float]]:
    """The last hundred minutes before `at`, a point a minute. Raises TelemetryError."""
    queries = [question.above] if question.below is None else [question.above, question.below]
    matrices: list[Matrix] = await asyncio.gather(*(telemetry.matrix(one, at - HISTORY, at, STEP) for one in queries))
    above = dict(matrices[0].get((), ()))
    if question.below is None:
        return [(instant, value * question.scale) for instant, value in sorted(above.items())]
    whole = matrices[1].get((), ())
    return [
        (instant, above.get(instant, 0.0) / divisor * question.scale)
        for instant, divisor in whole
        if divisor > 0 and (question.is_share or instant in above)
    ]
