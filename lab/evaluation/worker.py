"""
A process that reads cases: a job per line in, an answer per line out, until its input ends.

`python -m lab.evaluation.worker`, started by `lab.evaluation.workers`. A case that cannot be read is answered with the
reason; one that crashes the process is the parent's to notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any, TextIO

import structlog

from diagnostics.answer import CaseError
from lab.evaluation.reading import Job, read
from lab.evaluation.real_prometheus import PrometheusError


def answer_to(line: str) -> dict[str, Any]:
    """`{"outcome": ...}`, or `{"skipped": why}` with the type of an error that nobody foresaw."""
    job = Job(**json.loads(line))
    outcome = asyncio.run(_outcome(job))
    if isinstance(outcome, CaseError | PrometheusError):
        return {"skipped": str(outcome)}
    if isinstance(outcome, Exception):
        return {"skipped": f"it crashed: {type(outcome).__name__}: {outcome}"}
    if isinstance(outcome, BaseException):
        raise outcome
    return {"outcome": outcome}


async def _outcome(job: Job) -> dict[str, Any] | BaseException:
    """What reading came to, an error being a value like any other: one case must not take the next ones down."""
    outcomes = await asyncio.gather(read(job), return_exceptions=True)
    return outcomes[0]


def main() -> None:
    """Answer on what was standard output; whatever else is printed goes to standard error."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with _answers() as answers:
        for line in sys.stdin:
            answers.write(json.dumps(answer_to(line)) + "\n")
            answers.flush()


def _answers() -> TextIO:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    main()
