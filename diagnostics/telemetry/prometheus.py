"""Telemetry from Prometheus, or whatever speaks its HTTP API (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from diagnostics.compute_thread import in_compute_thread
from diagnostics.telemetry.instants import instants_between, to_datetime, to_milliseconds
from diagnostics.telemetry.model import Key, Matrix, Query, TelemetryError, Vector
from diagnostics.telemetry.promql import to_names, to_promql

EXPORTED_WITHIN = timedelta(hours=1)
_TICKS = 3
"""Turns of the event loop in which questions about names gather: those of one moment, no longer."""

_Moment = tuple[datetime, tuple[tuple[str, str], ...]]


def _wall() -> datetime:
    return datetime.now(UTC)


class PrometheusTelemetry:
    """
    Asks `url` (the part before `/api/v1`) through `client`, which brings credentials and tenant as headers.

    So that a diagnosis cannot hurt the Prometheus it asks, at most `max_concurrency` questions run at once, each told
    to give up after `timeout_s` (waiting for its turn not counted), and no answer above `most_bytes` is read.
    Redirects are not followed: they could carry the credentials elsewhere.

    An answer with warnings (Thanos: partial) is an error, since a missing group would look like silence.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient,
        timeout_s: float = 5.0,
        max_concurrency: int = 8,
        most_bytes: int = 64 * 2**20,
        clock: Callable[[], datetime] = _wall,
    ) -> None:
        self._api = f"{url.rstrip('/')}/api/v1"
        self._client = client
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(max_concurrency)
        self._most_bytes = most_bytes
        self._clock = clock
        self._wondering: dict[_Moment, tuple[set[str], asyncio.Future[frozenset[str]]]] = {}

    async def now(self) -> datetime:
        return self._clock()

    async def vector(self, query: Query, at: datetime) -> Vector:
        form = {"query": to_promql(query), "time": _seconds(to_milliseconds(at))}
        result = await self._ask("query", form, "vector")
        try:
            answer = {_key(query, series["metric"]): float(series["value"][1]) for series in result}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._not_understood(error) from error
        return {key: value for key, value in answer.items() if math.isfinite(value)}

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        instants = instants_between(start, end, step)
        if not instants:
            return {}
        form = {
            "query": to_promql(query),
            "start": _seconds(instants[0]),
            "end": _seconds(instants[-1]),
            "step": _seconds(instants.step),
        }
        result = await self._ask("query_range", form, "matrix")
        try:
            answer = {_key(query, series["metric"]): _points(series["values"]) for series in result}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise self._not_understood(error) from error
        return {key: points for key, points in answer.items() if points}

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        """Whoever asks in the same moment is asked for together: a diagnosis wonders about a hundred metrics."""
        key = (at, tuple(sorted((where or {}).items())))
        question = self._wondering.get(key)
        if question is None:
            wanted: set[str] = set()
            answer = asyncio.ensure_future(self._names(wanted, at, dict(where or {}), key))
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait any more
            question = self._wondering[key] = (wanted, answer)
        question[0].add(metric)
        return metric in await asyncio.shield(question[1])

    async def _names(self, wanted: set[str], at: datetime, where: Mapping[str, str], key: _Moment) -> frozenset[str]:
        for _ in range(_TICKS):
            await asyncio.sleep(0)
        del self._wondering[key]
        form = {"query": to_names(wanted, where, EXPORTED_WITHIN), "time": _seconds(to_milliseconds(at))}
        result = await self._ask("query", form, "vector")
        try:
            return frozenset(str(series["metric"]["__name__"]) for series in result)
        except (KeyError, TypeError) as error:
            raise self._not_understood(error) from error

    async def _ask(self, endpoint: str, form: dict[str, str], kind: str) -> list[Any]:
        async with self._turns:
            try:
                async with asyncio.timeout(self._timeout_s):
                    status, body = await self._post(endpoint, {**form, "timeout": f"{self._timeout_s:g}s"})
            except TimeoutError as error:
                raise TelemetryError(f"Prometheus did not answer within {self._timeout_s:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                raise TelemetryError(f"Prometheus cannot be asked: {type(error).__name__}: {error}") from error
        return await in_compute_thread(_read_answer, status, body, kind)

    async def _post(self, endpoint: str, form: dict[str, str]) -> tuple[int, bytes]:
        url = f"{self._api}/{endpoint}"
        async with self._client.stream("POST", url, data=form, follow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._most_bytes:
                    raise TelemetryError(f"Prometheus' answer is larger than {self._most_bytes} bytes; ask for less")
        return response.status_code, bytes(body)

    @staticmethod
    def _not_understood(error: Exception) -> TelemetryError:
        return TelemetryError(f"Prometheus' answer has not the form of its API: {type(error).__name__}: {error}")


def _read_answer(status: int, body: bytes, kind: str) -> list[Any]:
    """The result list of a whole and successful answer. Raises TelemetryError for anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        beginning = body[:80].decode(errors="replace")
        raise TelemetryError(f"Prometheus answered {status} and no JSON, but {beginning!r}") from error
    if not isinstance(answer, dict):
        raise TelemetryError(f"Prometheus answered {status} and no object")
    if status != httpx.codes.OK or answer.get("status") != "success":
        kind_of_error, text = answer.get("errorType", "no error type"), str(answer.get("error", "no reason"))
        raise TelemetryError(f"Prometheus answered {status}, {kind_of_error}: {text[:300]}")
    if warnings := answer.get("warnings"):
        raise TelemetryError(f"Prometheus' answer may be partial: {str(warnings)[:300]}")
    outcome = answer.get("data")
    if not isinstance(outcome, dict) or outcome.get("resultType") != kind:
        raise TelemetryError(f"Prometheus answered without a {kind}")
    result = outcome.get("result")
    if not isinstance(result, list):
        raise TelemetryError(f"Prometheus answered a {kind} without its list")
    return result


def _key(query: Query, labels: Mapping[str, str]) -> Key:
    return tuple(str(labels.get(label, "")) for label in query.by)


def _points(values: list[Any]) -> list[tuple[datetime, float]]:
    points = ((to_datetime(round(seconds * 1000)), float(value)) for seconds, value in values)
    return [(instant, value) for instant, value in points if math.isfinite(value)]


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
