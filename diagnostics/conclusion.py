"""What the findings, the onset and the changes amount to: a diagnosis. Pure; no questions are asked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diagnostics.causes import engine, knowledge
from diagnostics.causes.knowledge import Knowledge
from diagnostics.causes.look_alikes import next_check
from diagnostics.causes.observation import observe
from diagnostics.causes.scope import scope_of
from diagnostics.changes.change import Change
from diagnostics.changes.ranking import Scene, culprit, rank_changes
from diagnostics.diagnosis import BlindSpot, Diagnosis, Frame, RankedCause, Stage, Suspect
from diagnostics.findings import Finding, Status
from diagnostics.onset import Onset
from diagnostics.target import Target

USER_FACING = frozenset(
    {
        "time_to_first_token",
        "inter_token_latency",
        "latency_breakdown",
        "queue",
        "engine_progress",
        "error_ratio",
        "provider_errors",
        "output_length",
        "output_quality",
        "retrieval",
        "guardrails",
        "tool_calls",
        "answers_apart",
        "sensitive_output",
        "impact",
        "trace_breakdown",
    }
)
"""Checks that are bad only when a user notices; a bad GPU counter alone hurts nobody."""

MOST_SUSPECTS = 4  # unlikely ones too: a person may know better, and can ask for their rollback


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that was read for one diagnosis; `changes_known` says that every change source answered."""

    frame: Frame
    onset: Onset | None
    findings: Sequence[Finding]
    stages: Sequence[Stage]
    changes: Sequence[Change]
    changes_known: bool
    blind_spots: Sequence[BlindSpot]


def conclude(target: Target, gathered: Gathered, *, seconds: float, known: Knowledge | None = None) -> Diagnosis:
    """
    Rank the causes, hold the changes against them, and rank again with the changes as evidence.

    The first ranking knows no changes, so that a change is judged by what was measured and not by itself.
    `known` is the packaged knowledge by default.
    """
    known = known or knowledge.load()
    observed = observe(gathered.findings, known)
    measured = engine.rank(observed, (), known, changes_known=False)
    scene = Scene(
        service=target.service,
        engines=frozenset(one.name for one in target.deployments if one.kind == "engine"),
        onset=gathered.onset,
        causes=measured,
        knowledge=known.causes,
        measures=[measure for finding in gathered.findings for measure in finding.measures],
    )
    suspects = rank_changes(gathered.changes, scene)
    causes = engine.rank(observed, suspects, known, changes_known=gathered.changes_known)
    top = causes[0]
    guilty = culprit(suspects, top, known.causes)
    return Diagnosis(
        service=target.service,
        frame=gathered.frame,
        since=None if gathered.onset is None or top.cause == "none" else gathered.onset.at,
        user_impact=_hurts_users(gathered.findings, top),
        causes=causes,
        findings=tuple(gathered.findings),
        stages=tuple(gathered.stages),
        scope=scope_of(top.cause, gathered.findings, _change(suspects, guilty), known),
        suspects=suspects[:MOST_SUSPECTS],
        culprit_change=guilty,
        blind_spots=(*gathered.blind_spots, *_unknown(gathered.findings)),
        next_check=next_check(causes, observed, known),
        seconds=seconds,
    )


def _hurts_users(findings: Sequence[Finding], top: RankedCause) -> bool:
    if top.cause == "none":
        return False
    return any(finding.status is Status.BAD and finding.check in USER_FACING for finding in findings)


def _change(suspects: Sequence[Suspect], identity: str | None) -> Change | None:
    return next((suspect.change for suspect in suspects if suspect.change.id == identity), None)


def _unknown(findings: Sequence[Finding]) -> list[BlindSpot]:
    return [
        BlindSpot(check=finding.check, why=finding.reason or finding.summary)
        for finding in findings
        if finding.status is Status.UNKNOWN
    ]
