"""Whole diagnoses over telemetry that lies, babbles or half works: unknown with a reason, no crash, no verdict."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import httpx
import pytest

from diagnostics.diagnosis import Diagnosis
from diagnostics.findings import Status
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import Matrix, Query, Telemetry, TelemetryError, Vector
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.application_signals import counter, gauge, text
from tests.diagnosed import recorded

MANY_BYTES = 10 * 2**20
FIRST, LAST = synthetic.ONSET.timestamp(), synthetic.END.timestamp()


def result(kind: str, series: object) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": {"resultType": kind, "result": series}})


def every_question(value: object) -> Callable[[httpx.Request], httpx.Response]:
    """Answers instants and ranges with this as every value, each series twice."""

    def answer(request: httpx.Request) -> httpx.Response:
        labels = {"__name__": "up", "pod": "a", "watchkeeper_question": "0"}
        if request.url.path.endswith("query_range"):
            return result("matrix", [{"metric": labels, "values": [[FIRST, value], [LAST, value]]}] * 2)
        return result("vector", [{"metric": labels, "value": [LAST, value]}] * 2)

    return answer


def large(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b'{"status":"success","data":"' + b"x" * MANY_BYTES + b'"}')


def large_and_cut(_: httpx.Request) -> httpx.Response:
    return httpx.Response(
        200, content=b'{"status":"success","data":{"resultType":"vector","result":[' + b"[" * MANY_BYTES
    )


NONSENSE: Mapping[str, Callable[[httpx.Request], httpx.Response]] = {
    "HTML": lambda _: httpx.Response(200, text="<html>Log in"),
    "a gateway's error": lambda _: httpx.Response(502, text="<html>Bad Gateway"),
    "an empty answer": lambda _: httpx.Response(200, content=b""),
    "10 MB": large,
    "10 MB of brackets": large_and_cut,
    "half a sentence": lambda _: httpx.Response(200, content=b'{"status":"success","data":{"resultType":"vec'),
    "no text at all": lambda _: httpx.Response(200, content=bytes(range(256))),
    "a scalar": lambda _: result("scalar", [LAST, "1"]),
    "NaN": every_question("NaN"),
    "infinity": every_question("+Inf"),
    "words": every_question("plenty"),
    "an object": every_question({"value": 1}),
    "null": every_question(None),
    "numbers without an end": every_question("9" * 400),
    "another time": lambda _: result("matrix", [{"metric": {}, "values": [[1e300, "1"]]}]),
    "a list of numbers": lambda _: result("vector", [1, 2, 3]),
}


async def diagnosed(telemetry: Telemetry) -> Diagnosis:
    return await Diagnoser(telemetry, patience_s=20.0).diagnose(synthetic.target(), at=synthetic.END)


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_is_no_evidence(answer: Callable[[httpx.Request], httpx.Response]) -> None:
    """No check answers, none fails by its own defect, each says why, and nobody is accused or acquitted."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        diagnosis = await diagnosed(PrometheusTelemetry("http://prometheus:9090", client=client))

    assert {finding.status for finding in diagnosis.findings} == {Status.UNKNOWN}
    assert [finding.summary for finding in diagnosis.findings if "itself failed" in finding.summary] == []
    assert all(finding.summary for finding in diagnosis.findings)
    assert diagnosis.causes[0].cause == "other"
    assert diagnosis.causes[0].probability < 0.5
    assert not diagnosis.user_impact
    json.dumps([cause.probability for cause in diagnosis.causes], allow_nan=False)


@pytest.mark.parametrize("large", [1e160, 1e300])
async def test_a_sum_beyond_all_bounds_is_no_crash(large: float) -> None:
    """A counter that jumps so far that its square overflows: the diagnosis comes back all the same."""
    name = "vllm:time_to_first_token_seconds"
    series = [gauge("vllm:num_requests_running", 3, 3), counter(f"{name}_count", 6), counter(f"{name}_sum", 2, large)]
    diagnosis = await diagnosed(load_openmetrics(text(series, selector={"namespace": "chat", "pod": "a"})))

    assert [finding.summary for finding in diagnosis.findings if "itself failed" in finding.summary] == []
    json.dumps([cause.probability for cause in diagnosis.causes], allow_nan=False)


class HalfDead:
    """Answers some questions as the telemetry behind it does, and refuses the others."""

    def __init__(self, telemetry: Telemetry, *, seed: int, share: float) -> None:
        self._telemetry = telemetry
        self._random = random.Random(seed)
        self._share = share

    async def now(self) -> datetime:
        return await self._telemetry.now()

    async def vector(self, query: Query, at: datetime) -> Vector:
        await self._maybe()
        return await self._telemetry.vector(query, at)

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        await self._maybe()
        return await self._telemetry.matrix(query, start, end, step)

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        await self._maybe()
        return await self._telemetry.exported(metric, at, where)

    async def _maybe(self) -> None:
        await asyncio.sleep(0)
        if self._random.random() < self._share:
            raise TelemetryError("Prometheus answered 503, unavailable: out of memory")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(4))
async def test_what_half_works_never_accuses_the_wrong_one(seed: int, share: float) -> None:
    """The prefix cache's collapse: named, or not known; never something else with confidence."""
    diagnosis = await diagnosed(HalfDead(recorded("S04"), seed=seed, share=share))

    top = diagnosis.causes[0]
    assert top.cause == "S04" or top.probability < 0.8, (top.cause, top.probability)
    assert [finding.summary for finding in diagnosis.findings if "itself failed" in finding.summary] == []
    assert any(finding.status is Status.UNKNOWN for finding in diagnosis.findings)
