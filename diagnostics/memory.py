"""Telemetry that is asked each question once per diagnosis, however many checks ask it, and not without end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from diagnostics.telemetry.model import Matrix, Query, Telemetry, TelemetryError, Vector

_Answer = TypeVar("_Answer")

MOST_QUESTIONS = 1_000
"""A diagnosis asks some 300; a label with a value per user must not make it ask one for each."""


class RememberedTelemetry:
    """
    The same answers as the telemetry behind it, each asked for once; `close` cancels what nobody waits for any more.

    A check that is left behind does not take the answer away from the others that wait for it. After `most_questions`
    different ones, another raises TelemetryError.
    """

    def __init__(self, telemetry: Telemetry, *, most_questions: int = MOST_QUESTIONS) -> None:
        self._telemetry = telemetry
        self._most_questions = most_questions
        self._asked: dict[Hashable, asyncio.Task[Any]] = {}

    @property
    def is_silent(self) -> bool:
        """Whether it was asked, and no question at all has got an answer or an error yet."""
        return bool(self._asked) and not any(task.done() for task in self._asked.values())

    async def now(self) -> datetime:
        return await self._telemetry.now()

    async def vector(self, query: Query, at: datetime) -> Vector:
        return await self._once(("vector", _key(query), at), lambda: self._telemetry.vector(query, at))

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        key = ("matrix", _key(query), start, end, step)
        return await self._once(key, lambda: self._telemetry.matrix(query, start, end, step))

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        key = ("exported", metric, at, tuple(sorted((where or {}).items())))
        return await self._once(key, lambda: self._telemetry.exported(metric, at, where))

    async def close(self) -> None:
        """Cancel the questions that are still open."""
        open_questions = [task for task in self._asked.values() if not task.done()]
        for task in open_questions:
            task.cancel()
        await asyncio.gather(*open_questions, return_exceptions=True)

    async def _once(self, key: Hashable, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        task = self._asked.get(key)
        if task is None:
            if len(self._asked) >= self._most_questions:
                raise TelemetryError(f"the diagnosis has asked its {self._most_questions} questions and asks no more")
            task = asyncio.ensure_future(ask())
            task.add_done_callback(_notice)
            self._asked[key] = task
        return cast(_Answer, await asyncio.shield(task))


def _notice(task: asyncio.Task[Any]) -> None:
    """Look at a failure that every waiter gave up on, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()


def _key(query: Query) -> Hashable:
    matchers = tuple(sorted(query.where.items()))
    return (query.metric, matchers, query.function, query.window, query.by, query.aggregation, query.quantile)
