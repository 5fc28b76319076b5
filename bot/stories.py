"""How a story is told durably: its steps remembered by DBOS, its task known, the bell rung after each step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from dbos import DBOS, StepOptions

from bot.incidents import StoreUnavailableError

log = structlog.get_logger()

Checkpoint = Callable[..., Awaitable[Any]]
"""Runs a step: `await step("name", function, *arguments)`. The engine's remembers results; a test's just calls."""

DATABASE_PATIENCE_S = 1800.0
_RETRY_EVERY_S = 2.0


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailableError)


class Stories:
    """What the durable stories share."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self.told: set[str] = set()
        """The ids of the workflows that are told here and now."""

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """
        A crash before the result is stored runs the step again from its start.

        So does a database that does not answer, for half an hour; every step is written for being run again.
        """
        options = StepOptions(
            name=name,
            retries_allowed=True,
            should_retry=_is_passing,
            interval_seconds=_RETRY_EVERY_S,
            backoff_rate=1.0,
            max_attempts=int(DATABASE_PATIENCE_S / _RETRY_EVERY_S),
        )
        result = await DBOS.run_step_async(options, function, *arguments)
        self._ring()
        return result

    async def tell(self, story: Coroutine[Any, Any, None], broke_off: Callable[[str], Awaitable[None]]) -> None:
        """
        The whole story, in a task that `interrupt` finds.

        A defect of ours must not leave a card that says "diagnosing" or "running" for ever: `broke_off` is told.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a story is told in a task")
        if self._is_over:  # DBOS gives out stories until it is destroyed; this one is for somebody else
            story.close()
            raise asyncio.CancelledError
        self._tasks.add(task)
        name = DBOS.workflow_id or ""
        self.told.add(name)
        try:
            await story
        except Exception as error:  # the outer boundary of one story
            if self._is_over:  # whatever breaks while everything is taken down is no defect of the story
                raise asyncio.CancelledError from error
            log.exception("a story broke off")
            try:
                await broke_off(type(error).__name__)
            except StoreUnavailableError as away:  # left as by a crash: it is taken up again, and breaks off again
                raise asyncio.CancelledError from away
        finally:
            self._tasks.discard(task)
            self.told.discard(name)
            self._ring()

    async def interrupt(self) -> None:
        """Stop in the middle, as a crash would: DBOS records nothing of a cancelled task and resumes it at a start."""
        self._is_over = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
