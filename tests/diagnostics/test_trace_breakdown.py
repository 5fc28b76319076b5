"""The check on traces: which stage slow requests wait for, retries and tools, and when it may not say."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import pytest

from diagnostics.checks import CHECKS, with_traces
from diagnostics.diagnosis import Diagnosis
from diagnostics.findings import Finding, Measure, Status
from diagnostics.runner import Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import TelemetryError
from diagnostics.traces.model import Span, Trace
from diagnostics.traces.tempo import TempoTraces
from tests import synthetic
from tests.diagnosed import frame_of, recorded
from tests.traced import TempoServer, at, span, trace

Kind = Callable[[random.Random], Trace]
TARGET = Target(service="chat")
FRAME = frame_of()
UNSEEN = ("llm_app_", "rest_responses")


class Sampled:
    """A trace source that draws so many traces per window: of one kind now, of another in the baseline."""

    name = "traces"

    def __init__(
        self, now: Kind, then: Kind, *, count: int = 120, count_then: int | None = None, seed: int = 0
    ) -> None:
        self._now = (now, count)
        self._then = (then, count if count_then is None else count_then)
        self._seed = seed
        self.asked: list[tuple[datetime, datetime]] = []

    async def traces(self, start: datetime, end: datetime) -> Sequence[Trace]:
        self.asked.append((start, end))
        kind, count = self._now if end == FRAME.at else self._then
        draw = random.Random(f"{self._seed} {start}")
        return [kind(draw) for _ in range(count)]


def requests(
    *,
    retrieval: float = 0.12,
    rail: float = 0.06,
    decode: float = 4.8,
    tool: float = 0.5,
    tools: int = 1,
    fails: float = 0.01,
    retries: float = 0.02,
) -> Kind:
    """Requests with these means in seconds, each spread by a third."""

    def one(draw: random.Random) -> Trace:
        def about(mean: float) -> float:
            return draw.uniform(mean * 0.5, mean * 1.5)

        parts: list[tuple[float, dict[str, Any]]] = [
            (about(rail), {"rail__type": "input"}),
            (about(retrieval), {"gen_ai__operation__name": "retrieval"}),
        ]
        if draw.random() < retries:
            parts.append((0.3, {"gen_ai__operation__name": "chat", "error__type": "timeout"}))
        parts.append((about(decode), {"gen_ai__operation__name": "chat"}))
        for _ in range(tools):
            failed = {"error__type": "timeout"} if draw.random() < fails else {}
            parts.append(
                (about(tool), {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "crm"} | failed)
            )
        return trace(*_laid_out(parts))

    return one


def _laid_out(parts: Sequence[tuple[float, dict[str, Any]]]) -> list[Span]:
    """One part after another below a root that ends with the last."""
    root = span(0, sum(seconds for seconds, _ in parts), name="POST /chat")
    clock, spans = 0.0, [root]
    for seconds, attributes in parts:
        spans.append(span(clock, clock + seconds, of=root, **attributes))
        clock += seconds
    return spans


async def test_chance_rarely_complains() -> None:
    """Of sixty looks at unchanged requests with a long tail, at most one calls them slower, failing or retried."""

    def long_tailed(draw: random.Random) -> Trace:
        return requests(decode=draw.expovariate(1 / 4.8))(draw)

    answers = [await answer(Sampled(long_tailed, long_tailed, count=60, seed=seed)) for seed in range(60)]

    assert sum(one.status is Status.BAD for one in answers) <= 1


async def answer(source: Sampled, target: Target = TARGET) -> Finding:
    return await with_traces(CHECKS, source)["trace_breakdown"](target, recorded("none"), FRAME)


def of(finding: Finding, signal: str, *scope: tuple[str, str]) -> Measure:
    [found] = [one for one in finding.measures if one.signal == signal and one.scope == scope]
    return found


async def test_without_a_trace_source_it_is_unknown() -> None:
    """The reason names the setting; nothing is asked."""
    finding = await CHECKS["trace_breakdown"](TARGET, recorded("none"), FRAME)

    assert finding.status is Status.UNKNOWN
    assert "[service.traces]" in finding.summary


async def test_the_same_requests_as_before_are_ok() -> None:
    """Chance alone moves no stage; the recent window and the baseline are asked, once each."""
    source = Sampled(requests(), requests())

    finding = await answer(source)

    assert finding.status is Status.OK, finding.summary
    assert of(finding, "trace_retrieval_share").value == 0
    assert source.asked == [(FRAME.at - FRAME.recent, FRAME.at), (FRAME.baseline_start, FRAME.baseline_end)]


@pytest.mark.parametrize(
    ("changed", "stage"),
    [
        ({"retrieval": 3.0}, "retrieval"),
        ({"rail": 2.5}, "guardrail"),
        ({"tool": 3.0}, "tool"),
        ({"decode": 9.0}, "model"),
    ],
)
async def test_the_stage_that_got_slower_is_named(changed: dict[str, Any], stage: str) -> None:
    """Its seconds beside the baseline's, and its share of the slowdown as a signal."""
    finding = await answer(Sampled(requests(**changed), requests()))

    assert finding.status is Status.BAD
    assert f"of the change is {stage}" in finding.summary
    seconds = of(finding, "trace_stage", ("stage", stage))
    assert seconds.value == pytest.approx(next(iter(changed.values())), rel=0.1)
    shares = {one.signal: one.value or 0.0 for one in finding.measures if one.signal.endswith("_share")}
    assert {signal for signal, share in shares.items() if share > 0.5} == (
        set() if stage == "model" else {f"trace_{stage}_share"}
    )


async def test_faster_requests_are_no_complaint() -> None:
    """A stage that shrinks leaves others a larger part of the whole, and no slowdown to carry."""
    finding = await answer(Sampled(requests(decode=2.0), requests()))

    assert finding.status is Status.OK
    assert of(finding, "trace_retrieval_share").value == 0


async def test_failing_calls_of_one_tool_are_named() -> None:
    """Beyond chance; the tool is the measure's scope, and the error's type is counted by operation."""
    finding = await answer(Sampled(requests(fails=0.4), requests()))

    assert finding.status is Status.BAD
    assert "Calls of the tool crm fail" in finding.summary
    assert of(finding, "trace_tool_error_ratio", ("tool", "crm")).value == pytest.approx(0.4, abs=0.12)
    assert of(finding, "trace_errors", ("operation", "tool"), ("error_type", "timeout")).value is not None


async def test_retries_are_counted_per_request() -> None:
    """Every second request tries its model twice."""
    finding = await answer(Sampled(requests(retries=0.5), requests()))

    assert "Retries per request: 0.5" in finding.summary
    assert of(finding, "trace_retry_ratio").value == pytest.approx(0.5, abs=0.12)
    assert of(finding, "trace_turns").value == 1


async def test_the_fan_out_to_tools_is_measured() -> None:
    """Tool calls per request beside the baseline's, and how long the slowest tool takes."""
    finding = await answer(Sampled(requests(tools=4), requests()))

    calls = of(finding, "trace_tool_calls")
    assert (calls.value, calls.baseline) == (4, 1)
    assert of(finding, "trace_tool_time", ("tool", "crm")).value == pytest.approx(0.5, rel=0.1)


async def test_a_stray_tool_call_is_no_growth() -> None:
    """Where hardly any tool is called, twice as many are still hardly any, and no signal."""

    def strays(share: float) -> Kind:
        return lambda draw: requests(tools=int(draw.random() < share))(draw)

    finding = await answer(Sampled(strays(0.06), strays(0.0)))

    assert "trace_tool_calls" not in {one.signal for one in finding.measures}
    assert "trace_tool_error_ratio" not in {one.signal for one in finding.measures}


@pytest.mark.parametrize(("now", "then"), [(49, 120), (120, 49), (0, 0)])
async def test_few_traces_say_nothing(now: int, then: int) -> None:
    """Below fifty in either window the sampler says more than the service; not even a signal is measured."""
    finding = await answer(Sampled(requests(retrieval=3.0), requests(), count=now, count_then=then))

    assert finding.status is Status.UNKNOWN
    assert f"only {min(now, then)} of {min(now, then)} traces" in finding.summary
    assert not finding.measures


async def test_traces_of_something_else_do_not_count() -> None:
    """Two hundred health checks are no sample of an LLM's requests."""
    finding = await answer(Sampled(lambda _: trace(span(0, 1)), requests()))

    assert finding.status is Status.UNKNOWN
    assert "only 0 of 120" in finding.summary


async def test_a_source_that_cannot_be_asked_is_unknown() -> None:
    """With its reason, like any telemetry."""

    class Broken(Sampled):
        async def traces(self, start: datetime, end: datetime) -> Sequence[Trace]:
            raise TelemetryError("tempo did not answer within 2 s")

    finding = await answer(Broken(requests(), requests()))

    assert finding.status is Status.UNKNOWN
    assert "tempo did not answer within 2 s" in finding.summary


async def test_the_service_in_which_time_is_lost_is_named() -> None:
    """What no attribute explains is at least somewhere."""

    def somewhere(seconds: float) -> Kind:
        def one(draw: random.Random) -> Trace:
            took = draw.uniform(seconds * 0.8, seconds * 1.2)
            root = span(0, took + 3)
            return trace(
                root, span(0, took, of=root, service="billing"), span(took, took + 2, of=root, gen_ai__system="m")
            )

        return one

    finding = await answer(Sampled(somewhere(4), somewhere(1)))

    assert "of the change is other" in finding.summary
    assert "service billing" in finding.summary


async def test_a_diagnosis_reasons_with_its_traces() -> None:
    """An application without metrics of its own: traces over real HTTP point at the vector database."""
    blind = await Diagnoser(recorded("none", UNSEEN), patience_s=30).diagnose(synthetic.target(), at=FRAME.at)
    frame = blind.frame
    windows = ((frame.at - frame.recent, frame.at), (frame.baseline_start, frame.baseline_end))
    slow = Sampled(requests(retrieval=3.0), requests())
    stored = [at(one, start + (end - start) / 2) for start, end in windows for one in await slow.traces(start, end)]
    server = TempoServer(token="Bearer t", stored=stored)
    async with server.running(), httpx.AsyncClient(headers={"Authorization": "Bearer t"}) as client:
        source = TempoTraces(name="tempo", url=server.url, client=client, service="chat", patience_s=20)
        diagnoser = Diagnoser(recorded("none", UNSEEN), patience_s=30, traces=source)
        seeing = await diagnoser.diagnose(synthetic.target(), at=FRAME.at)

    [finding] = [one for one in seeing.findings if one.check == "trace_breakdown"]
    assert finding.status is Status.BAD, finding.summary
    assert next(one.cause for one in seeing.causes if one.cause != "none") == "I05"
    assert weight(seeing, "I05") > 3 * weight(blind, "I05")


def weight(diagnosis: Diagnosis, cause: str) -> float:
    return next((one.probability for one in diagnosis.causes if one.cause == cause), 0.0)
