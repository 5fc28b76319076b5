"""Questions of one moment travel together: a diagnosis asks a hundred, and each request has its price."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

_TICKS = 3
"""Turns of the event loop in which questions gather: those of one moment, no longer."""


@dataclass(kw_only=True)
class _Departure(Generic[_Question, _Answer]):
    questions: list[_Question] = field(default_factory=list)
    answers: asyncio.Future[Sequence[_Answer | Exception]] | None = None


class Together(Generic[_Key, _Question, _Answer]):
    """
    Hands the questions with the same key that come in the same moment to `ask`, `most` at once; one answer for each.

    An error among the answers is raised where its question was asked, one that `ask` raises everywhere. Who stops
    waiting does not take the answer from the others.
    """

    def __init__(
        self, ask: Callable[[_Key, Sequence[_Question]], Awaitable[Sequence[_Answer | Exception]]], *, most: int
    ) -> None:
        self._ask = ask
        self._most = most
        self._waiting: dict[_Key, _Departure[_Question, _Answer]] = {}

    async def answer(self, key: _Key, question: _Question) -> _Answer:
        departure = self._waiting.get(key)
        if departure is None or len(departure.questions) >= self._most:
            departure = self._waiting[key] = _Departure()
        place = len(departure.questions)
        departure.questions.append(question)
        if departure.answers is None:
            departure.answers = asyncio.ensure_future(self._depart(key, departure))
            departure.answers.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait
        found = (await asyncio.shield(departure.answers))[place]
        if isinstance(found, Exception):
            raise found
        return found

    async def _depart(self, key: _Key, departure: _Departure[_Question, _Answer]) -> Sequence[_Answer | Exception]:
        for _ in range(_TICKS):
            await asyncio.sleep(0)
        if self._waiting.get(key) is departure:
            del self._waiting[key]
        return await self._ask(key, departure.questions)
