"""
Which stage do slow requests wait for, and do they retry or call tools more, as their traces show?

Takes up to 200 traces of the recent window and as many of the baseline from Tempo or Jaeger, walks each request's
critical path and compares the means per stage: what metrics do not separate (retrieval, tools, guardrails, a single
service) is seen here. Also counts model calls, retries and tool calls per request, failing tools, and errors by
operation. Bad when requests got slower and a stage carries at least half of it, when tools fail more beyond chance, or
when retries per request do. Traces are a sample, and a sampler that keeps slow ones keeps more of them in an incident:
believe the shares, not the seconds. Below 50 traces in either window the answer is unknown.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from diagnostics.checks.verdicts import measure
from diagnostics.compute_thread import in_compute_thread
from diagnostics.diagnosis import Frame, Stage
from diagnostics.findings import Finding, Measure
from diagnostics.latency import dominant, is_regression, shares
from diagnostics.look import CannotTellError, Compared
from diagnostics.proportions import ENOUGH_VOTES, SURE, Share
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.traces.model import Trace, TraceSource
from diagnostics.traces.requests import STAGES, TracedRequest, read_request
from diagnostics.wording import compared, number

ENOUGH = 50
"""Traces that each window needs: below, a mean says more about the sampler than about the service."""

_ENOUGH_CALLS = 20
_MORE_FAIL = 0.05
_MORE_RETRIES = 0.15
_MOST_ERRORS = 5
_LEAST_CALLS = 0.1  # a service that calls hardly any tools has no fan-out whose growth means something
_SURELY = 1.5  # times the two standard errors that are asked of metrics: traces are few, and their tails heavy
_SIGNALS = {
    "guardrail": "trace_guardrail_share",
    "retrieval": "trace_retrieval_share",
    "tool": "trace_tool_share",
}

Number = Callable[[TracedRequest], float]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The requests of both windows."""

    now: Sequence[TracedRequest]
    then: Sequence[TracedRequest]

    def mean(self, of: Number) -> Compared:
        return Compared(now=fmean(map(of, self.now)), baseline=fmean(map(of, self.then)))

    def error(self, of: Number) -> float:
        """The standard error of the change of a mean."""
        return math.sqrt(sum(variance(map(of, window)) / len(window) for window in (self.now, self.then)))


async def run(target: Target, _telemetry: Telemetry, frame: Frame, source: TraceSource | None = None) -> Finding:
    if source is None:
        raise CannotTellError("no trace source is configured; name one of kind tempo or jaeger in [service.traces]")
    windows = (frame.at - frame.recent, frame.at), (frame.baseline_start, frame.baseline_end)
    now, then = await asyncio.gather(*(source.traces(start, end) for start, end in windows))
    return await in_compute_thread(_judged, target, now, then)


def _judged(target: Target, now: Sequence[Trace], then: Sequence[Trace]) -> Finding:
    sample = Sample(now=_requests(now, target, "recent window"), then=_requests(then, target, "baseline"))
    total, stages = _stages(sample)
    is_slow = is_regression(total, _SURELY * sample.error(lambda one: sum(one.seconds.values())))
    reason = dominant(stages) if is_slow else None
    complaints, measures = [], [*_stage_measures(stages, is_slow=is_slow), *_counts(sample)]
    if reason is not None:
        complaints.append(_slow(sample, total, next(stage for stage in stages if stage.stage == reason)))
    said, more = _tools(sample)
    complaints += [*said, *_more_retries(sample)]
    measures += [*more, *_errors(sample)]
    counted = f"{len(sample.now)} traces, {len(sample.then)} before"
    if complaints:
        return Finding.bad("trace_breakdown", f"{' '.join(complaints)} Read from {counted}.", *measures)
    text = f"Requests wait for the same stages as before: {compared(total, 's')} on the critical path ({counted})."
    return Finding.ok("trace_breakdown", text, *measures)


def _requests(traces: Sequence[Trace], target: Target, window: str) -> list[TracedRequest]:
    """The complete requests among the traces. Raises CannotTellError where they are too few."""
    found = [one for trace in traces if (one := read_request(trace, target)) is not None]
    if len(found) < ENOUGH:
        raise CannotTellError(
            f"only {len(found)} of {len(traces)} traces read from the {window} are whole and of LLM requests, and "
            f"{ENOUGH} are needed; sample more of them, and give their spans OpenTelemetry's gen_ai attributes"
        )
    return found


def _stages(sample: Sample) -> tuple[Compared, tuple[Stage, ...]]:
    cells, errors = {}, {}
    for name in STAGES:
        cell = sample.mean(_time_in(name))
        if cell.now or cell.baseline:
            cells[name], errors[name] = cell, sample.error(_time_in(name))
    return shares(cells, errors)


def _time_in(stage: str) -> Number:
    return lambda one: one.stage(stage)


def _time_within(stage: str, service: str) -> Number:
    return lambda one: one.seconds.get((stage, service), 0.0)


def _stage_measures(stages: Sequence[Stage], *, is_slow: bool) -> list[Measure]:
    """Every stage's seconds, and which part of a slowdown each stage that causes reason with carries (else none)."""
    found = [
        measure("trace_stage", Compared(now=stage.now_s, baseline=stage.baseline_s), "s", ("stage", stage.stage))
        for stage in stages
    ]
    carried = {stage.stage: max(stage.share or 0.0, 0.0) for stage in stages}
    for name, signal in _SIGNALS.items():
        value = carried.get(name, 0.0) if is_slow else 0.0
        found.append(Measure(signal=signal, value=value, unit="ratio"))
    return found


def _counts(sample: Sample) -> list[Measure]:
    numbers: Mapping[str, Number] = {
        "trace_turns": lambda one: one.turns,
        "trace_tool_calls": lambda one: len(one.tools),
        "trace_retry_ratio": lambda one: one.retries,
    }
    cells = {signal: sample.mean(of) for signal, of in numbers.items()}
    return [
        measure(signal, cell, "1/request")
        for signal, cell in cells.items()
        if signal == "trace_retry_ratio" or min(cell.now or 0.0, cell.baseline or 0.0) >= _LEAST_CALLS
    ]


def _slow(sample: Sample, total: Compared, stage: Stage) -> str:
    cell = Compared(now=stage.now_s, baseline=stage.baseline_s)
    carried = number(stage.share, "ratio")
    words = f"On the critical path a request takes {compared(total, 's')}; {carried} of the change is {stage.stage}"
    return f"{words}, {compared(cell, 's')}{_where(sample, stage.stage)}."


def _where(sample: Sample, stage: str) -> str:
    """The service whose part of the stage grew most, where more than one has a part in it."""
    services = {service for one in (*sample.now, *sample.then) for name, service in one.seconds if name == stage}
    if len(services) < 2 and stage != "other":
        return ""
    grown = {service: sample.mean(_time_within(stage, service)) for service in services}
    top = max(sorted(grown), key=lambda service: grown[service].gain or 0.0)
    return f" (above all in service {top})" if top else ""


def _tools(sample: Sample) -> tuple[list[str], list[Measure]]:
    """The tools that fail more often than they did, and how long the one takes that got slower most."""
    names = {call.tool for one in (*sample.now, *sample.then) for call in one.tools}
    failing = {name: _failing(sample, name) for name in sorted(names)}
    everything = sum(failing.values(), Share())
    measures = []
    if min(everything.all_now, everything.all_then) >= ENOUGH_VOTES:
        measures.append(measure("trace_tool_error_ratio", everything.compared(ENOUGH_VOTES), "ratio"))
    measures += _slowest_tool(sample, names)
    worse = {name: cell for name, cell in failing.items() if _is_worse(cell)}
    for name, cell in worse.items():
        measures.append(measure("trace_tool_error_ratio", cell.compared(_ENOUGH_CALLS), "ratio", ("tool", name)))
    said = [
        f"Calls of the tool {name} fail: {compared(cell.compared(_ENOUGH_CALLS), 'ratio')}."
        for name, cell in list(worse.items())[:3]
    ]
    return said, measures


def _failing(sample: Sample, tool: str) -> Share:
    now, then = (
        [call.is_failed for one in window for call in one.tools if call.tool == tool]
        for window in (sample.now, sample.then)
    )
    return Share(hits_now=sum(now), all_now=len(now), hits_then=sum(then), all_then=len(then))


def _is_worse(cell: Share) -> bool:
    gain = cell.compared(_ENOUGH_CALLS).gain
    return gain is not None and gain >= _MORE_FAIL and cell.chance < SURE


def _slowest_tool(sample: Sample, names: set[str]) -> list[Measure]:
    """The mean seconds of one call, for the tool that takes longest now."""
    found: dict[str, Compared] = {}
    for name in names:
        now, then = (
            [call.seconds for one in window for call in one.tools if call.tool == name]
            for window in (sample.now, sample.then)
        )
        if len(now) >= _ENOUGH_CALLS:
            found[name] = Compared(now=fmean(now), baseline=fmean(then) if len(then) >= _ENOUGH_CALLS else None)
    if not found:
        return []
    top = max(sorted(found), key=lambda name: found[name].now or 0.0)
    return [measure("trace_tool_time", found[top], "s", ("tool", top))]


def _more_retries(sample: Sample) -> list[str]:
    cell = sample.mean(lambda one: one.retries)
    gain = cell.gain or 0.0
    is_more = gain >= _MORE_RETRIES and gain > 3 * sample.error(lambda one: one.retries)
    return [f"Retries per request: {compared(cell)}."] if is_more else []


def _errors(sample: Sample) -> list[Measure]:
    """The commonest errors now, by operation and type, per request."""
    now, then = (sum((Counter(one.errors) for one in window), Counter()) for window in (sample.now, sample.then))
    return [
        Measure(
            signal="trace_errors",
            value=count / len(sample.now),
            baseline=then[kind] / len(sample.then),
            unit="1/request",
            scope=(("operation", kind[0]), ("error_type", kind[1])),
        )
        for kind, count in now.most_common(_MOST_ERRORS)
    ]
