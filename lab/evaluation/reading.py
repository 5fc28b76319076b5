"""One case diagnosed, and the baselines' answers to it: what a worker does. It never opens the truth."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from diagnostics.answer import Case, RecordedChanges, as_answer, load_case, metrics_file
from diagnostics.causes import knowledge
from diagnostics.causes.knowledge import Knowledge
from diagnostics.diagnosis import Diagnosis, Scope
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from lab.evaluation.baselines import alert_name, latest_change, nearest_signature
from lab.evaluation.fixed_thresholds import fixed_thresholds
from lab.evaluation.real_prometheus import prometheus_over
from lab.evaluation.scoring import Answer

Source = Literal["recorder", "prometheus"]
CHECK_PATIENCE_S = 30.0  # an evaluation waits; a slow machine must not look like a blind diagnosis


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to read: a case's folder, which telemetry to ask, and the causes that are taken out of the knowledge."""

    folder: str
    source: Source
    without: tuple[str, ...] = ()


async def read(job: Job) -> dict[str, Any]:
    """
    The answer in the form of `diagnose --json`, how long loading took, and what each baseline answers.

    Raises CaseError, PrometheusError.
    """
    folder, known = Path(job.folder), knowledge.load().without(*job.without)
    began = time.perf_counter()
    if job.source == "recorder":
        case = await asyncio.to_thread(load_case, folder)
        return await _diagnosed(folder, case, known, time.perf_counter() - began)
    with prometheus_over(metrics_file(folder)) as url:
        async with httpx.AsyncClient(trust_env=False) as client:
            telemetry = PrometheusTelemetry(url, client=client, timeout_s=CHECK_PATIENCE_S)
            case = load_case(folder, telemetry)
            return await _diagnosed(folder, case, known, time.perf_counter() - began)


def to_answer(answer: dict[str, Any]) -> Answer:
    """What is scored of an answer in the form of `diagnose --json`."""
    scope = answer["scope"]
    return Answer(
        ranked=tuple((cause["cause"], cause["probability"]) for cause in answer["causes"]),
        scope=None if scope is None else Scope(dimension=scope["dimension"], values=tuple(scope["values"])),
        culprit=answer["culprit_change"],
        hurts_users=answer["user_impact"],
        seconds=answer["seconds"],
    )


async def _diagnosed(folder: Path, case: Case, known: Knowledge, load_s: float) -> dict[str, Any]:
    diagnoser = Diagnoser(case.telemetry, [RecordedChanges(case.changes)], patience_s=CHECK_PATIENCE_S, known=known)
    await diagnoser.warm_up()
    diagnosis = await diagnoser.diagnose(case.target, at=case.at, alert=case.alert)
    baselines = await _baselines(folder, case, diagnosis, known)
    return {
        "answer": as_answer(diagnosis),
        "load_s": round(load_s, 3),
        "baselines": {name: _as_json(answer) for name, answer in baselines.items()},
    }


async def _baselines(folder: Path, case: Case, diagnosis: Diagnosis, known: Knowledge) -> dict[str, Answer]:
    page = (folder / "alert.json").read_text(encoding="utf-8")
    return {
        "latest_change": latest_change(case.changes, case.at, known),
        "alert_name": alert_name(f"{case.alert} {page}", known),
        "fixed_thresholds": await fixed_thresholds(case.target, case.telemetry, diagnosis.frame, known),
        "nearest_signature": nearest_signature(diagnosis.findings, known),
    }


def _as_json(answer: Answer) -> dict[str, Any]:
    scope = answer.scope
    return {
        "user_impact": answer.hurts_users,
        "causes": [{"cause": cause, "probability": probability} for cause, probability in answer.ranked],
        "scope": None if scope is None else {"dimension": scope.dimension, "values": list(scope.values)},
        "culprit_change": answer.culprit,
        "seconds": answer.seconds,
    }
