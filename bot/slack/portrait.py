"""A diagnosis, a runbook hit and a plan -> the lines of a card; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from bot import narrate
from bot.incidents import PlanState
from bot.past import Seen
from bot.slack.picture import ChangeMark, LatencyPicture, SignalPanel, SignalsPicture, StageBar
from bot.slack.view import (
    BlindLine,
    CauseLine,
    Choice,
    EvidenceLine,
    PlanLine,
    RunbookLine,
    SeenLine,
    StepLine,
    StepState,
    SuspectLine,
)
from diagnostics.diagnosis import Diagnosis, Scope, Suspect
from diagnostics.findings import Finding, Measure, Status
from diagnostics.key_signals import Curve, key_signals
from retrieval.documents import Hit
from runbooks.engine.chosen import as_text
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


def evidence(diagnosis: Diagnosis, graph: Callable[[str], str] = lambda _: "") -> tuple[EvidenceLine, ...]:
    """
    Findings as lines: what is bad first, and among these what moved most; who is hurt is said elsewhere.

    `graph` is the address of a signal's graph, "" where there is none.
    """
    told = [finding for finding in diagnosis.findings if finding.check != "impact" or finding.status is Status.UNKNOWN]
    ordered = sorted(told, key=lambda finding: (_ORDER[finding.status], -_moved(_main(finding))))
    return tuple(_evidence_line(finding, graph) for finding in ordered)


def _evidence_line(finding: Finding, graph: Callable[[str], str]) -> EvidenceLine:
    """The sentence; its main number is added unless the sentence has numbers already."""
    main = _main(finding)
    url = _graph_of(finding, graph) if finding.status is Status.BAD else ""
    if main is None or any(letter.isdigit() for letter in finding.summary):
        return EvidenceLine(status=finding.status, summary=finding.summary, url=url)
    return EvidenceLine(
        status=finding.status,
        summary=finding.summary,
        label=main.signal.replace("_", " "),
        now=main.value,
        baseline=main.baseline,
        unit=main.unit,
        url=url,
    )


def _graph_of(finding: Finding, graph: Callable[[str], str]) -> str:
    """The graph of whichever of its numbers moved most and has one."""
    ordered = sorted(finding.measures, key=_moved, reverse=True)
    return next((url for url in (graph(measure.signal) for measure in ordered) if url), "")


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
    return f"{where.dimension.replace('_', ' ')}: {', '.join(where.values[:8])}" if where.values else ""


def blind_spots(diagnosis: Diagnosis) -> tuple[BlindLine, ...]:
    """What nobody could check, one line per reason: first what most questions wait for."""
    by_reason: dict[str, list[str]] = {}
    for spot in diagnosis.blind_spots:
        by_reason.setdefault(spot.why, []).append(spot.check.replace("_", " "))
    groups = sorted(by_reason.items(), key=lambda group: -len(group[1]))
    return tuple(BlindLine(checks=tuple(checks), why=why) for why, checks in groups)


def next_check(diagnosis: Diagnosis) -> str:
    """What to look at next; where no cause can be named, what most questions wait for or what moved most."""
    if diagnosis.next_check or not diagnosis.causes:
        return diagnosis.next_check or ""
    unknown = [finding for finding in diagnosis.findings if finding.status is Status.UNKNOWN]
    if diagnosis.blind_spots and 2 * len(unknown) > len(diagnosis.findings):
        worst = blind_spots(diagnosis)[0]
        return f"{worst.why} ({len(worst.checks)} open question{'s' if len(worst.checks) > 1 else ''} less)"
    if diagnosis.causes[0].cause != "other":
        return ""
    moved = [seen.signal.words for seen in key_signals(diagnosis)[:3]]
    return f"what moved most: {', '.join(moved)}" if moved else "the service's own logs and its newest changes"


def runbook(hit: Hit, *, helpful: int = 0, wrong: int = 0) -> RunbookLine:
    return RunbookLine(
        title=hit.title,
        reasons=hit.reasons,
        url=hit.link,
        heading=hit.heading,
        score=hit.score,
        doc_id=hit.doc_id,
        helpful=helpful,
        wrong=wrong,
    )


def seen(item: Seen, began: datetime) -> SeenLine:
    """`began` is when the incident did that it resembles: the distance to that stays true however late it is read."""
    past, incident = item.past, item.past.incident
    name = f"#{incident.number}" if incident.number is not None else incident.incident_id
    sentence = narrate.seen(
        name,
        (began - past.began).total_seconds(),
        narrate.known_cause(past.cause, past.probability, is_confirmed=past.is_confirmed),
        narrate.OUTCOME[past.outcome].format(fix=past.fix),
        past.took.total_seconds(),
    )
    return SeenLine(
        incident_id=incident.incident_id,
        name=name,
        title=incident.title,
        service=incident.service or incident.pagerduty_service_name,
        began=past.began,
        cause=past.cause,
        cause_title=past.cause_title,
        is_confirmed=past.is_confirmed,
        fix=past.fix,
        outcome=past.outcome.value,
        took_s=past.took.total_seconds(),
        sentence=sentence,
        score=item.similar.score,
        reasons=item.similar.reasons,
        url=incident.url,
    )


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
        params=tuple((name, as_text(value)) for name, value in item.params.items()),
    )


def _step(step: PlannedStep, state: StepState, note: str) -> StepLine:
    undo = ""
    if step.undo is not None:
        undo = f"{step.undo_action} " + ", ".join(
            f"{name}: {value}" for name, value in step.undo.items() if value is not None
        )
    return StepLine(index=step.index, title=step.title, effect=step.effect, undo=undo, state=state, note=note)


def latency_picture(found: Diagnosis) -> LatencyPicture:
    """Where the time of a request goes."""
    return LatencyPicture(
        service=found.service,
        stages=tuple(
            StageBar(stage=stage.stage, now_s=stage.now_s, baseline_s=stage.baseline_s) for stage in found.stages
        ),
    )


def signals_picture(found: Diagnosis, curves: Sequence[Curve]) -> SignalsPicture:
    """The key signals with the onset and the changes."""
    return SignalsPicture(
        service=found.service,
        panels=tuple(
            SignalPanel(
                title=curve.words,
                unit=curve.unit,
                now=curve.now,
                baseline=curve.baseline,
                points=tuple(curve.points),
            )
            for curve in curves
        ),
        since=found.since,
        until=found.frame.at,
        changes=tuple(
            ChangeMark(
                at=item.change.at, summary=item.change.summary, is_culprit=item.change.id == found.culprit_change
            )
            for item in found.suspects
        ),
    )


def choices(plans: Iterable[Plan]) -> tuple[Choice, ...]:
    """Alternatives by the effect that tells them apart, since one runbook may give several."""
    return tuple(
        Choice(plan_id=item.plan_id, title=item.steps[0].effect if item.steps else item.title, tier=item.tier)
        for item in plans
    )
