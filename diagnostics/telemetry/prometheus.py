"""Telemetry from Prometheus, or whatever speaks its HTTP API (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from diagnostics.compute_thread import in_compute_thread
from diagnostics.telemetry.instants import instants_between, to_datetime, to_milliseconds
from diagnostics.telemetry.model import Key, Matrix, Query, TelemetryError, Vector
from diagnostics.telemetry.promql import PLACE, to_names, to_promql, to_union
from diagnostics.telemetry.together import Together

EXPORTED_WITHIN = timedelta(hours=1)
_NAMES_AT_ONCE = 200
_VALUES_AT_ONCE = 10
"""Prometheus works them off one after the other, and two cores should both have something to do."""

_Moment = tuple[datetime, tuple[tuple[str, str], ...]]


_THE_QUESTIONS_FAULT = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY})

_REMARK = "PromQL info: "
"""A remark on the question (a counter without _total in its name); Prometheus 2.48 to 2.53 calls it a warning."""


class _RefusedError(TelemetryError):
    """Prometheus is well, and does not answer this question."""


def _wall() -> datetime:
    return datetime.now(UTC)


class PrometheusTelemetry:
    """
    Asks `url` (the part before `/api/v1`) through `client`, which brings credentials and tenant as headers.

    So that a diagnosis cannot hurt the Prometheus it asks, at most `max_concurrency` questions run at once, each told
    to give up after `timeout_s` (waiting for its turn not counted), and no answer above `most_bytes` is read.
    Redirects are not followed: they could carry the credentials elsewhere.

    An answer with warnings (Thanos: partial) is an error, since a missing group would look like silence. A warning of
    PromQL itself is that of one question, and spoils no other that travelled with it.
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
        self._names = Together(self._ask_names, most=_NAMES_AT_ONCE)
        self._values: Together[datetime, tuple[Query, str], Vector] = Together(self._ask_values, most=_VALUES_AT_ONCE)

    async def now(self) -> datetime:
        return self._clock()

    async def vector(self, query: Query, at: datetime) -> Vector:
        """Questions of one moment about the same instant are asked together; a refused one does not spoil the rest."""
        return await self._values.answer(at, (query, to_promql(query)))

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
        return await self._names.answer((at, tuple(sorted((where or {}).items()))), metric)

    async def _ask_names(self, moment: _Moment, wanted: Sequence[str]) -> list[bool]:
        at, where = moment
        form = {"query": to_names(wanted, dict(where), EXPORTED_WITHIN), "time": _seconds(to_milliseconds(at))}
        result = await self._ask("query", form, "vector")
        try:
            found = frozenset(str(series["metric"]["__name__"]) for series in result)
        except (KeyError, TypeError) as error:
            raise self._not_understood(error) from error
        return [metric in found for metric in wanted]

    async def _ask_values(self, at: datetime, asked: Sequence[tuple[Query, str]]) -> list[Vector | TelemetryError]:
        is_alone = len(asked) == 1
        text = asked[0][1] if is_alone else to_union([text for _, text in asked])
        try:
            result = await self._ask("query", {"query": text, "time": _seconds(to_milliseconds(at))}, "vector")
        except _RefusedError as error:
            if is_alone:
                return [error]
            return [answer for one in asked for answer in await self._ask_values(at, [one])]
        answers: list[dict[Key, float]] = [{} for _ in asked]
        try:
            for series in result:
                place = 0 if is_alone else int(series["metric"][PLACE])
                value = float(series["value"][1])
                if math.isfinite(value):
                    answers[place][_key(asked[place][0], series["metric"])] = value
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._not_understood(error) from error
        return list(answers)

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
        refusal = _RefusedError if status in _THE_QUESTIONS_FAULT else TelemetryError
        raise refusal(f"Prometheus answered {status}, {kind_of_error}: {text[:300]}")
    if warnings := _warnings(answer):
        is_one_questions = all(text.startswith("PromQL ") or text.endswith(" omitted") for text in warnings)
        partial = _RefusedError if is_one_questions else TelemetryError
        raise partial(f"Prometheus' answer may be partial: {str(warnings)[:300]}")
    outcome = answer.get("data")
    if not isinstance(outcome, dict) or outcome.get("resultType") != kind:
        raise TelemetryError(f"Prometheus answered without a {kind}")
    result = outcome.get("result")
    if not isinstance(result, list):
        raise TelemetryError(f"Prometheus answered a {kind} without its list")
    return result


def _warnings(answer: Mapping[str, Any]) -> list[str]:
    """What it warns of, remarks aside; further warnings that it only counts ("3 more ... omitted") may be any."""
    told = answer.get("warnings") or []
    texts = [str(each) for each in told] if isinstance(told, list) else [str(told)]
    return [text for text in texts if not text.startswith(_REMARK)]


def _key(query: Query, labels: Mapping[str, str]) -> Key:
    return tuple(str(labels.get(label, "")) for label in query.by)


def _points(values: list[Any]) -> list[tuple[datetime, float]]:
    points = ((to_datetime(round(seconds * 1000)), float(value)) for seconds, value in values)
    return [(instant, value) for instant, value in points if math.isfinite(value)]


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
