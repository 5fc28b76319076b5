"""A diagnosis, a runbook hit and a plan -> the lines of a card; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from bot.incidents import PlanState
from bot.slack.picture import LatencyPicture, StageBar
from bot.slack.view import CauseLine, Choice, EvidenceLine, PlanLine, RunbookLine, StepLine, StepState, SuspectLine
from diagnostics.diagnosis import Diagnosis, Scope, Suspect
from diagnostics.findings import Finding, Measure, Status
from retrieval.documents import Hit
from runbooks.engine.values import Plan, PlannedStep

_ORDER = {Status.BAD: 0, Status.UNKNOWN: 1, Status.OK: 2}


def causes(diagnosis: Diagnosis) -> tuple[CauseLine, ...]:
    return tuple(
        CauseLine(
            cause=cause.cause,
            title=cause.title,
            probability=cause.probability,
            evidence_for=cause.evidence_for,
            evidence_against=cause.evidence_against,
        )
        for cause in diagnosis.causes
    )


def evidence(diagnosis: Diagnosis) -> tuple[EvidenceLine, ...]:
    """Findings as lines: what is bad first, and among these what moved most."""
    ordered = sorted(diagnosis.findings, key=lambda finding: (_ORDER[finding.status], -_moved(_main(finding))))
    return tuple(_evidence_line(finding) for finding in ordered)


def _evidence_line(finding: Finding) -> EvidenceLine:
    """The sentence; its main number is added unless the sentence has numbers already."""
    main = _main(finding)
    if main is None or any(letter.isdigit() for letter in finding.summary):
        return EvidenceLine(status=finding.status, summary=finding.summary)
    return EvidenceLine(
        status=finding.status,
        summary=finding.summary,
        label=main.signal.replace("_", " "),
        now=main.value,
        baseline=main.baseline,
        unit=main.unit,
    )


def _main(finding: Finding) -> Measure | None:
    known = [measure for measure in finding.measures if measure.value is not None]
    return max(known, key=_moved, default=None)


def _moved(measure: Measure | None) -> float:
    """How far a number is from its baseline, relative to the larger of the two: 0 to 2."""
    if measure is None or measure.value is None or measure.baseline is None:
        return 0.0
    size = max(abs(measure.value), abs(measure.baseline))
    return abs(measure.value - measure.baseline) / size if size else 0.0


def suspect(item: Suspect, onset: datetime | None) -> SuspectLine:
    change = item.change
    return SuspectLine(
        summary=change.summary,
        at=change.at,
        author=change.author or "",
        source=change.source,
        before_onset_s=(onset - change.at).total_seconds() if onset else None,
        score=item.score,
        reasons=item.reasons,
        diff=item.diff,
        url=change.url,
    )


def suspects(diagnosis: Diagnosis) -> tuple[SuspectLine | None, tuple[SuspectLine, ...]]:
    """The culprit, if the diagnosis names one, and the others."""
    culprit = next((s for s in diagnosis.suspects if s.change.id == diagnosis.culprit_change), None)
    others = tuple(suspect(s, diagnosis.since) for s in diagnosis.suspects if s is not culprit)
    return (suspect(culprit, diagnosis.since) if culprit else None), others


def scope(where: Scope | None) -> str:
    """ "node: gpu-3, gpu-4", "the whole fleet", or nothing when it is not known."""
    if where is None:
        return ""
    if where.dimension == "fleet":
        return "the whole fleet"
    return f"{where.dimension.replace('_', ' ')}: {', '.join(where.values[:8])}"


def blind_spots(diagnosis: Diagnosis) -> tuple[str, ...]:
    return tuple(f"{spot.check.replace('_', ' ')} ({spot.why})" for spot in diagnosis.blind_spots)


def runbook(hit: Hit) -> RunbookLine:
    return RunbookLine(title=hit.title, reasons=hit.reasons, url=hit.url, heading=hit.heading, score=hit.score)


def plan(
    item: Plan,
    state: PlanState,
    *,
    may_approve: Sequence[str],
    needed: int = 1,
    approved_by: Sequence[str] = (),
    decided_by: str = "",
    requester: str = "",
    why: str = "",
    doubt_step: int | None = None,
    progress: Mapping[int, tuple[StepState, str]] | None = None,
) -> PlanLine:
    """
    A plan as people read it; names are display names, `progress` maps a step's index to its state and outcome.

    The undo in words is the literal parameters that would be sent: nothing to interpret.
    """
    known = progress or {}
    return PlanLine(
        plan_id=item.plan_id,
        title=item.title,
        state=state,
        tier=item.tier,
        steps=tuple(_step(step, *known.get(step.index, (StepState.WAITING, ""))) for step in item.steps),
        may_approve=tuple(may_approve),
        needed=needed,
        approved_by=tuple(approved_by),
        decided_by=decided_by,
        requester=requester,
        expires_at=item.expires_at,
        why=why,
        doubt_step=doubt_step,
        can_undo=any(step.undo is not None for step in item.steps),
        is_undo=item.undoes is not None,
    )


def _step(step: PlannedStep, state: StepState, note: str) -> StepLine:
    undo = ""
    if step.undo is not None:
        undo = f"{step.undo_action} " + ", ".join(
            f"{name}: {value}" for name, value in step.undo.items() if value is not None
        )
    return StepLine(index=step.index, title=step.title, effect=step.effect, undo=undo, state=state, note=note)


def latency_picture(
    found: Diagnosis, *, budget_s: float | None, ttft: Sequence[tuple[datetime, float]] = ()
) -> LatencyPicture:
    """Where the time to the first token goes; `ttft` are (time, seconds) pairs for the line, if they are known."""
    return LatencyPicture(
        service=found.service,
        stages=tuple(
            StageBar(stage=stage.stage, now_s=stage.now_s, baseline_s=stage.baseline_s) for stage in found.stages
        ),
        ttft=tuple(ttft),
        since=found.since,
        budget_s=budget_s,
        budget_label="budget (p95)",
    )


def choices(plans: Iterable[Plan]) -> tuple[Choice, ...]:
    """Alternatives by the effect that tells them apart, since one runbook may give several."""
    return tuple(
        Choice(plan_id=item.plan_id, title=item.steps[0].effect if item.steps else item.title, tier=item.tier)
        for item in plans
    )
