"""How a story is told durably: its steps remembered by DBOS, its task known, the bell rung after each step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dbos import DBOS, StepOptions

Checkpoint = Callable[..., Awaitable[Any]]
"""Runs a step: `await step("name", function, *arguments)`. The engine's remembers results; a test's just calls."""


class Stories:
    """What the durable stories share."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._tasks: set[asyncio.Task[Any]] = set()

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """A crash before the result is stored runs the step again from its start."""
        result = await DBOS.run_step_async(StepOptions(name=name), function, *arguments)
        self._ring()
        return result

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Around the whole story, so that `interrupt` finds its task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a story is told in a task")
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def interrupt(self) -> None:
        """Stop in the middle, as a crash would: DBOS records nothing of a cancelled task and resumes it at a start."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
