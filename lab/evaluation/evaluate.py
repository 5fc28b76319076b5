"""A whole evaluation: cases read by workers, answers scored against truths, baselines beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.evaluation import scoring
from lab.evaluation.cases import CaseFolder, EvaluationError, Truth, find_cases, read_manifests, sample_of
from lab.evaluation.progress import Told
from lab.evaluation.reading import Job, Source, to_answer
from lab.evaluation.scoring import Scored
from lab.evaluation.workers import read_all

MOST_SKIPPED = 0.2
SAME_WITHIN = 0.01
BASELINES = ("latest_change", "alert_name", "fixed_thresholds", "nearest_signature")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to evaluate; `left_out` names the causes nobody shall know, each with its own cases: None is none of it."""

    cases: Path
    source: Source = "recorder"
    sample: int | None = None
    seed: int = 0
    workers: int = 1
    patience_s: float = 180.0
    left_out: tuple[str, ...] | None = None
    command: str = ""


async def evaluate(options: Options, told: Told) -> dict[str, Any]:
    """The figures, their groups and baselines, and every case. Raises EvaluationError when they would mean nothing."""
    cases = _chosen(options)
    lines = await _lines(cases, options, told)
    scored = [_scored(case, line, options) for case, line in zip(cases, lines, strict=True)]
    _refuse_what_means_nothing(_skipped(scored), len(scored))
    return {
        "command": options.command,
        "telemetry": options.source,
        "left_out": None if options.left_out is None else sorted(options.left_out),
        "manifests": read_manifests(options.cases),
        **scoring.figures(scored),
        "load_p95_s": _load_p95(scored),
        "groups": scoring.grouped(scored),
        "per_class": scoring.by(scored, lambda truth: truth.family),
        "per_cause": scoring.by(scored, lambda truth: truth.name),
        "confusion": scoring.confusion(scored),
        "calibration": scoring.calibration(scored),
        "baselines": {name: _baseline(name, scored) for name in BASELINES},
        "skipped_cases": [{"case": case, "why": why} for case, why in _skipped(scored)],
        "failed_checks": _failed_checks(scored),
        "cases": [_case(one) for one in scored],
    }


async def compare(options: Options, told: Told) -> dict[str, Any]:
    """Which answers differ between the recorder and a real Prometheus over the same cases. Raises EvaluationError."""
    cases = _chosen(options)
    both = [await _lines(cases, replace(options, source=source), told) for source in ("recorder", "prometheus")]
    scored = [[_scored(case, line, options) for case, line in zip(cases, lines, strict=True)] for lines in both]
    for each in scored:
        _refuse_what_means_nothing(_skipped(each), len(each))
    pairs = list(zip(*scored, strict=True))
    return {
        "command": options.command,
        "n": len(pairs),
        "different": [
            {"case": ours.case, "why": why} for ours, theirs in pairs if (why := difference(ours, theirs)) is not None
        ],
        "recorder": scoring.figures(scored[0]),
        "prometheus": scoring.figures(scored[1]),
    }


def difference(ours: Scored, theirs: Scored) -> str | None:
    """In which way two answers to one case differ: first cause, culprit, or a probability by more than 0.01."""
    if ours.answer is None or theirs.answer is None:
        return None if ours.skipped == theirs.skipped else f"skipped: {ours.skipped or theirs.skipped}"
    if ours.answer.first != theirs.answer.first:
        return f"first {ours.answer.first}, Prometheus {theirs.answer.first}"
    if ours.answer.culprit != theirs.answer.culprit:
        return f"culprit {ours.answer.culprit}, Prometheus {theirs.answer.culprit}"
    mine, other = dict(ours.answer.ranked), dict(theirs.answer.ranked)
    for cause in sorted({*mine, *other}):
        if abs(mine.get(cause, 0.0) - other.get(cause, 0.0)) > SAME_WITHIN:
            return f"{cause} at {mine.get(cause, 0.0):.3f}, Prometheus {other.get(cause, 0.0):.3f}"
    return None


def _chosen(options: Options) -> list[CaseFolder]:
    cases = find_cases(options.cases)
    if options.left_out is not None:
        cases = [case for case in cases if case.truth is not None and case.truth.cause in options.left_out]
    if not cases:
        wanted = "" if options.left_out is None else f" of {', '.join(options.left_out)}"
        raise EvaluationError(f"there is no case{wanted} in {options.cases}")
    chosen = sample_of(cases, options.sample, options.seed)
    _refuse_what_means_nothing([(case.name, case.fault) for case in chosen if case.truth is None], len(chosen))
    return chosen


async def _lines(cases: Sequence[CaseFolder], options: Options, told: Told) -> list[dict[str, Any]]:
    """A worker's line per case; a case without a truth is not read."""
    readable = [(case, case.truth) for case in cases if case.truth is not None]
    done = 0

    def one_more(_: Job) -> None:
        nonlocal done
        done += 1
        told(done, len(readable))

    jobs = [
        Job(
            folder=str(case.folder),
            source=options.source,
            without=() if options.left_out is None else (truth.cause,),
        )
        for case, truth in readable
    ]
    lines = await read_all(jobs, workers=options.workers, patience_s=options.patience_s, told=one_more)
    by_name = {case.name: line for (case, _), line in zip(readable, lines, strict=True)}
    return [by_name.get(case.name, {"skipped": case.fault}) for case in cases]


_UNREADABLE = Truth(cause="unreadable", family="unreadable", scope=None, culprit=None, is_control=False)


def _scored(case: CaseFolder, line: dict[str, Any], options: Options) -> Scored:
    truth = case.truth or _UNREADABLE
    outcome = line.get("outcome")
    return Scored(
        case=case.name,
        truth=truth if options.left_out is None or case.truth is None else truth.left_out(),
        answer=None if outcome is None else to_answer(outcome["answer"]),
        skipped=line.get("skipped", ""),
        detail=outcome or {},
    )


def _skipped(scored: Sequence[Scored]) -> list[tuple[str, str]]:
    return [(one.case, one.skipped) for one in scored if one.answer is None]


def _refuse_what_means_nothing(skipped: Sequence[tuple[str, str]], whole: int) -> None:
    if len(skipped) > MOST_SKIPPED * whole:
        reasons = "\n".join(f"  {case}: {why}" for case, why in skipped[:20])
        raise EvaluationError(
            f"{len(skipped)} of {whole} cases were skipped, so a score would mean nothing:\n{reasons}"
        )


def _baseline(name: str, scored: Sequence[Scored]) -> dict[str, Any]:
    """A baseline's figures; where the case was skipped, it gave no answer either."""
    return scoring.figures(
        [
            replace(one, answer=to_answer(one.detail["baselines"][name]) if one.answer is not None else None)
            for one in scored
        ]
    )


def _failed_checks(scored: Sequence[Scored]) -> dict[str, int]:
    """Checks and change sources that failed by a defect of their own, and in how many cases."""
    return dict(
        Counter(
            spot["check"]
            for one in scored
            if one.answer is not None
            for spot in one.detail["answer"]["blind_spots"]
            if "itself failed" in spot["why"]
        ).most_common()
    )


def _load_p95(scored: Sequence[Scored]) -> float:
    loads = sorted(one.detail["load_s"] for one in scored if one.answer is not None)
    return float(loads[min(int(0.95 * len(loads)), len(loads) - 1)])


def _case(one: Scored) -> dict[str, Any]:
    answer = one.answer
    return {
        "case": one.case,
        "truth": one.truth.cause,
        "taken_out": one.truth.taken_out,
        "ranked": [{"cause": cause, "probability": probability} for cause, probability in answer.ranked]
        if answer
        else [],
        "culprit": answer.culprit if answer else None,
        "seconds": answer.seconds if answer else None,
        "skipped": one.skipped or None,
        "answer": one.detail.get("answer"),
    }
