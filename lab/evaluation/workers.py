"""Processes that read cases side by side: one that dies or takes too long costs its case and no other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from lab.evaluation.reading import Job

_LONGEST_ANSWER = 64 * 2**20
_LEAVE_WITHIN_S = 10.0


class LostError(Exception):
    """The worker died over a case, or did not answer in time; it has to be started anew."""


class Worker:
    """
    One process in a session of its own, so that a Prometheus it has started ends with it.

    It asks no more than one job at a time, and is started when it gets its first.
    """

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "lab.evaluation.worker")) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._words: IO[bytes] | None = None

    async def read(self, job: Job, patience_s: float) -> dict[str, Any]:
        """The worker's line for this job: `outcome`, or why the case is `skipped`."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._ask(job)
        except TimeoutError:
            await self.kill()
            return {"skipped": f"no answer within {patience_s:g} s"}
        except LostError as error:
            await self.kill()
            return {"skipped": str(error)}

    async def leave(self) -> None:
        """Let it end by itself, since its input has ended."""
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_WITHIN_S):
                await process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process and all it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if self._words is not None:
            self._words.close()

    async def _ask(self, job: Job) -> dict[str, Any]:
        process = self._process or await self._start()
        if process.stdin is None or process.stdout is None:
            raise LostError("the worker has no pipes")
        try:
            process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (OSError, ValueError) as error:  # ValueError: the line is longer than the limit
            raise LostError(f"the worker cannot be spoken to: {error}") from error
        if not line.endswith(b"\n"):
            raise LostError(f"the worker died (status {await process.wait()}): {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._words,
            limit=_LONGEST_ANSWER,
            start_new_session=True,
        )
        return self._process

    def _last_words(self) -> str:
        if self._words is None:
            return ""
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no words"


async def read_all(
    jobs: Sequence[Job],
    *,
    workers: int,
    patience_s: float,
    told: Callable[[Job], None],
    start: Callable[[], Worker] = Worker,
) -> list[dict[str, Any]]:
    """The workers' lines in the order of the jobs; `told` hears of each job that is done."""
    lines: list[dict[str, Any]] = [{} for _ in jobs]
    waiting = iter(list(enumerate(jobs)))

    async def work() -> None:
        worker = start()
        try:
            for at, job in waiting:
                lines[at] = await worker.read(job, patience_s)
                told(job)
            await worker.leave()
        finally:
            await worker.kill()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(jobs))):
            group.create_task(work())
    return lines
