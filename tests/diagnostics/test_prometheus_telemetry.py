"""What Prometheus' HTTP API may answer, and what we make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from diagnostics.telemetry.model import Aggregation, Function, Query, TelemetryError
from diagnostics.telemetry.prometheus import PrometheusTelemetry

AT = datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)
BY_POD = Query(metric="up", by=("pod",))
MINUTE = timedelta(minutes=1)


def _answers(result: list[Any], kind: str = "vector", **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": {"resultType": kind, "result": result}, **more})


class _Prometheus:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.requests[-1].content.decode())


def _telemetry(prometheus: _Prometheus, **settings: Any) -> PrometheusTelemetry:
    client = httpx.AsyncClient(transport=httpx.MockTransport(prometheus), headers={"Authorization": "Bearer secret"})
    return PrometheusTelemetry("http://prometheus:9090/", client=client, **settings)


async def test_a_vector_is_asked_for_by_post_with_the_clients_headers() -> None:
    """A long query does not fit a URL, and a query in a URL ends up in access logs."""
    prometheus = _Prometheus(lambda _: _answers([{"metric": {"pod": "a"}, "value": [1, "2.5"]}]))

    answer = await _telemetry(prometheus).vector(BY_POD, AT)

    [request] = prometheus.requests
    assert answer == {("a",): 2.5}
    assert (request.method, str(request.url)) == ("POST", "http://prometheus:9090/api/v1/query")
    assert request.headers["Authorization"] == "Bearer secret"
    assert prometheus.form == {"query": ["sum by (pod)(up)"], "time": ["1772359200.250"], "timeout": ["5s"]}


async def test_what_is_no_number_is_absent() -> None:
    """NaN (0/0) and infinity are no measurements; a label that a series lacks is empty."""
    series = [
        {"metric": {"pod": "a"}, "value": [1, "NaN"]},
        {"metric": {"pod": "b"}, "value": [1, "+Inf"]},
        {"metric": {}, "value": [1, "0"]},
    ]

    assert await _telemetry(_Prometheus(lambda _: _answers(series))).vector(BY_POD, AT) == {("",): 0.0}


async def test_a_remark_is_no_warning() -> None:
    """Prometheus 2.48 to 2.53 calls it a warning that a counter's name has no _total; the answer is whole."""
    remark = 'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "up" (1:5)'
    series = [{"metric": {"pod": "a"}, "value": [1, "2.5"]}]
    answer = await _telemetry(_Prometheus(lambda _: _answers(series, warnings=[remark]))).vector(BY_POD, AT)
    assert answer == {("a",): 2.5}


async def test_a_warning_about_one_question_spoils_no_other() -> None:
    """A histogram with a broken bucket: only whoever asked for it goes without an answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        text = parse_qs(request.content.decode())["query"][0]
        warnings = ["PromQL warning: bucket label le is missing"] if "broken" in text else []
        return _answers([{"metric": {"pod": "a"}, "value": [1, "2.5"]}], warnings=warnings)

    telemetry = _telemetry(_Prometheus(answer))
    broken = Query(metric="broken", by=("pod",))
    good, bad = await asyncio.gather(telemetry.vector(BY_POD, AT), telemetry.vector(broken, AT), return_exceptions=True)
    assert good == {("a",): 2.5}
    assert isinstance(bad, TelemetryError)


async def test_a_matrix_keeps_the_instants_of_its_points() -> None:
    """The end is asked for only as far as steps reach, and groups without any number are absent."""
    series = [
        {"metric": {"pod": "a"}, "values": [[1772359200.25, "1"], [1772359260.25, "NaN"], [1772359320.25, "3"]]},
        {"metric": {"pod": "b"}, "values": [[1772359200.25, "NaN"]]},
    ]
    prometheus = _Prometheus(lambda _: _answers(series, "matrix"))

    answer = await _telemetry(prometheus).matrix(BY_POD, AT, AT + timedelta(seconds=150), MINUTE)

    assert answer == {("a",): [(AT, 1.0), (AT + 2 * MINUTE, 3.0)]}
    assert (prometheus.form["start"], prometheus.form["end"]) == (["1772359200.250"], ["1772359320.250"])
    assert prometheus.form["step"] == ["60.000"]


async def test_exported_asks_for_any_sample_of_the_last_hour() -> None:
    """Zero series is an answer here: not exported."""
    prometheus = _Prometheus(lambda _: _answers([]))
    there = _Prometheus(lambda _: _answers([{"metric": {"__name__": "up"}, "value": [1, "4"]}]))

    assert await _telemetry(prometheus).exported("up", AT, {"pod": "a"}) is False
    assert prometheus.form["query"] == ['count by (__name__) (last_over_time({__name__=~"up", pod="a"}[3600s]))']
    assert await _telemetry(there).exported("up", AT) is True


async def test_names_asked_for_at_once_are_one_question() -> None:
    """Each gets its own answer; other matchers, or another moment, are another question."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(parse_qs(request.content.decode())["query"][0])
        return _answers([{"metric": {"__name__": "vllm:b"}, "value": [1, "4"]}])

    telemetry = _telemetry(_Prometheus(answer))
    found = await asyncio.gather(
        *(telemetry.exported(name, AT, {"pod": "a"}) for name in ("c", "vllm:b", "a")), telemetry.exported("c", AT)
    )

    assert found == [False, True, False, False]
    assert sorted(asked) == [
        'count by (__name__) (last_over_time({__name__=~"a|c|vllm:b", pod="a"}[3600s]))',
        'count by (__name__) (last_over_time({__name__=~"c"}[3600s]))',
    ]
    assert await telemetry.exported("vllm:b", AT, {"pod": "a"})
    assert len(asked) == 3


async def test_a_failed_question_about_names_fails_for_everybody_who_asked() -> None:
    """Nobody takes it for "not exported"."""
    telemetry = _telemetry(_Prometheus(_refuse))
    answers = await asyncio.gather(*(telemetry.exported(name, AT) for name in ("a", "b")), return_exceptions=True)
    assert [type(answer) for answer in answers] == [TelemetryError, TelemetryError]


async def test_values_asked_for_at_once_are_one_question() -> None:
    """Each gets its own groups; another instant is another question."""
    prometheus = _Prometheus(
        lambda _: _answers(
            [
                {"metric": {"pod": "a", "watchkeeper_question": "0"}, "value": [1, "2"]},
                {"metric": {"watchkeeper_question": "1"}, "value": [1, "3"]},
                {"metric": {"watchkeeper_question": "1"}, "value": [1, "NaN"]},
            ]
        )
    )
    telemetry = _telemetry(prometheus)
    counted = Query(metric="up", aggregation=Aggregation.COUNT)

    found = await asyncio.gather(*(telemetry.vector(query, AT) for query in (BY_POD, counted, Query(metric="down"))))

    assert found == [{("a",): 2.0}, {(): 3.0}, {}]
    assert prometheus.form["query"] == [
        (
            'label_replace(sum by (pod)(up), "watchkeeper_question", "0", "", "")'
            ' or label_replace(count(up), "watchkeeper_question", "1", "", "")'
            ' or label_replace(sum(down), "watchkeeper_question", "2", "", "")'
        )
    ]
    await asyncio.gather(telemetry.vector(BY_POD, AT), telemetry.vector(BY_POD, AT + MINUTE))
    assert len(prometheus.requests) == 3


async def test_a_question_that_is_refused_does_not_spoil_the_others() -> None:
    """When Prometheus says that a joint question is at fault, each is asked alone, and one fails."""

    def answer(request: httpx.Request) -> httpx.Response:
        if "down" in request.content.decode():
            refusal = {"status": "error", "errorType": "execution", "error": "too many samples"}
            return httpx.Response(422, json=refusal)
        return _answers([{"metric": {"pod": "a"}, "value": [1, "2"]}])

    telemetry = _telemetry(_Prometheus(answer))
    well, refused = await asyncio.gather(
        telemetry.vector(BY_POD, AT), telemetry.vector(Query(metric="down"), AT), return_exceptions=True
    )

    assert well == {("a",): 2.0}
    assert isinstance(refused, TelemetryError)
    assert "too many samples" in str(refused)


async def test_a_busy_prometheus_is_not_asked_ten_times_as_often() -> None:
    """It did not refuse the question, it has no time: asking each alone would make that worse."""
    busy = {"status": "error", "errorType": "timeout", "error": "query timed out"}
    prometheus = _Prometheus(lambda _: httpx.Response(503, json=busy))
    telemetry = _telemetry(prometheus)
    many = [Query(metric=f"metric_{number}") for number in range(10)]

    found = await asyncio.gather(*(telemetry.vector(query, AT) for query in many), return_exceptions=True)

    assert {type(each) for each in found} == {TelemetryError}
    assert len(prometheus.requests) == 1


def _refuse(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_refuse, "cannot be asked: ConnectError: connection refused"),
        (
            lambda _: httpx.Response(400, json={"status": "error", "errorType": "bad_data", "error": "parse error"}),
            "400, bad_data: parse error",
        ),
        (
            lambda _: httpx.Response(503, json={"status": "error", "errorType": "timeout", "error": "query timed out"}),
            "503, timeout: query timed out",
        ),
        (lambda _: httpx.Response(502, text="<html>Bad Gateway"), "502 and no JSON, but '<html>Bad Gateway'"),
        (lambda _: httpx.Response(200, text="<html>Log in"), "200 and no JSON"),
        (lambda _: httpx.Response(302, headers={"Location": "http://elsewhere/"}), "302 and no JSON"),
        (lambda _: httpx.Response(200, json=["success"]), "no object"),
        (lambda _: httpx.Response(200, json={"status": "success"}), "without a vector"),
        (lambda _: _answers([], "matrix"), "without a vector"),
        (lambda _: _answers([], warnings=["store 2 is away"]), "may be partial: .*store 2 is away"),
        (lambda _: _answers([], warnings=7), "may be partial: .*7"),
        (lambda _: _answers([{"metric": {"pod": "a"}}]), "not the form of its API: KeyError"),
        (lambda _: _answers([{"metric": {"pod": "a"}, "value": [1, "much"]}]), "not the form of its API"),
        (lambda _: _answers([7]), "not the form of its API"),
        (lambda _: httpx.Response(200, content=b"[" * 60_000), "no JSON"),
        (lambda _: httpx.Response(200, content=b" " * 2**20), "larger than 65536 bytes"),
    ],
)
async def test_every_failure_is_one_clear_error(answer: Callable[[httpx.Request], httpx.Response], words: str) -> None:
    """No failure may look like missing data."""
    prometheus = _Prometheus(answer)

    with pytest.raises(TelemetryError, match=words):
        await _telemetry(prometheus, most_bytes=2**16).vector(BY_POD, AT)
    assert len(prometheus.requests) == 1


class _Drip(httpx.AsyncByteStream):
    """A body that never ends, in pieces that each come in time."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield b" "


async def test_a_dripping_answer_is_given_up() -> None:
    """The limit is on the whole answer: a body that drips would reset a limit per read for ever."""
    telemetry = _telemetry(_Prometheus(lambda _: httpx.Response(200, stream=_Drip())), timeout_s=0.05)

    with pytest.raises(TelemetryError, match=r"did not answer within 0\.05 s"):
        await telemetry.vector(BY_POD, AT)


async def test_no_more_questions_at_once_than_allowed() -> None:
    """A diagnosis asks a hundred questions at once, and the Prometheus of an incident is busy already."""
    running, most = 0, 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return _answers([])

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    telemetry = PrometheusTelemetry("http://prometheus:9090", client=client, max_concurrency=3)
    await asyncio.gather(*(telemetry.vector(BY_POD, AT + number * MINUTE) for number in range(20)))

    assert most == 3


async def test_more_points_than_prometheus_gives_are_not_asked_for() -> None:
    """11,000 points per series are its limit."""
    prometheus = _Prometheus(lambda _: _answers([], "matrix"))
    query = Query(metric="x", function=Function.RATE, window=MINUTE)

    with pytest.raises(TelemetryError, match="more than 11000 points"):
        await _telemetry(prometheus).matrix(query, AT, AT + timedelta(seconds=11_000), timedelta(seconds=1))
    assert prometheus.requests == []


async def test_now_is_the_clock_that_was_passed_in() -> None:
    """Prometheus lives by the wall clock; a test or a drill brings its own."""
    telemetry = _telemetry(_Prometheus(lambda _: _answers([])), clock=lambda: AT)

    assert await telemetry.now() == AT
