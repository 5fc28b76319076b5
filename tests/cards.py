"""Cards for tests: one incident (S04: a prompt change broke the prefix cache) in every state that people meet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bot.incidents import PlanState
from bot.slack.view import (
    BlindLine,
    CardState,
    CardView,
    CauseLine,
    Choice,
    Deed,
    EvidenceLine,
    PlanLine,
    RunbookLine,
    StepLine,
    StepState,
    SuspectLine,
)
from diagnostics.findings import Status
from runbooks.engine.values import Tier

PAGED = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
ONSET = PAGED - timedelta(minutes=12)

GRAPH = "http://prometheus.example.com/graph?g0.expr=sum%28x%29&g0.tab=0"

STEP = StepLine(
    index=0,
    title="Move the label back",
    effect="Move label production of prompt chat-system from version 8 to version 7.",
    undo="Move label production of prompt chat-system from version 7 to version 8.",
)

PROPOSED = PlanLine(
    plan_id="p-1",
    title="Roll the prompt back",
    state=PlanState.PROPOSED,
    tier=Tier.R1,
    steps=(STEP,),
    may_approve=("prompt-owner", "service-owner"),
    expires_at=PAGED + timedelta(minutes=15),
    can_undo=True,
)

DIAGNOSED = CardView(
    incident_id="Q1INCIDENT0001",
    number=42,
    title="LLMHighTTFT chat",
    service="chat",
    state=CardState.OPEN,
    paged_at=PAGED,
    environment="prod",
    url="https://acme.pagerduty.com/incidents/Q1INCIDENT0001",
    urgency="high",
    assignees=("Alice Ahn",),
    since=ONSET,
    user_impact=True,
    impact="4.1 % of requests fail (normally 0.2 %), 2 of 60 tenants are hit. Hit: acme, globex.",
    scope="prompt version: 8",
    causes=(
        CauseLine(
            cause="S04",
            title="A prompt change broke the prefix cache",
            probability=0.91,
            evidence_for=("prefix hits fell from 40 % to 3 %",),
            evidence_against=("queueing grew a little too",),
        ),
        CauseLine(cause="S01", title="More load than capacity", probability=0.05),
    ),
    evidence=(
        EvidenceLine(
            status=Status.BAD, summary="Prefill is slower.", label="prefill", now=0.67, baseline=0.43, unit="s"
        ),
        EvidenceLine(status=Status.BAD, summary="Prefix hits fell.", now=0.03, baseline=0.40, unit="ratio", url=GRAPH),
        EvidenceLine(status=Status.OK, summary="The GPUs are healthy."),
        EvidenceLine(status=Status.UNKNOWN, summary="Token cost is not exported."),
    ),
    suspect=SuspectLine(
        summary="prompt chat-system: label production moved from version 7 to 8",
        at=ONSET - timedelta(minutes=1),
        author="dana",
        before_onset_s=60,
        score=0.9,
        reasons=("one minute before the trouble began", "touches the prompt's beginning"),
        diff="@@ -1 +1,2 @@\n+Now: {{timestamp}}\n You are a helpful assistant.",
    ),
    runbook=RunbookLine(
        title="Prefix cache collapse",
        url="https://git.example.com/runbooks/prefix-cache-collapse.md",
        heading="Roll the prompt back",
        reasons=("declares cause S04", "declares the alert LLMHighTTFT"),
    ),
    other_runbooks=(RunbookLine(title="High TTFT"),),
    plan=PROPOSED,
    other_fixes=(Choice(plan_id="p-2", title="Roll back chat-summary", tier=Tier.R1),),
    blind_spots=(BlindLine(checks=("token cost",), why="llm_app_cost_usd_total is not exported"),),
    deeds=(Deed(at=PAGED + timedelta(minutes=1), who="Mallory", did="was refused: approve"),),
    diagnosis_s=3.2,
)


def with_plan(state: PlanState, **more: object) -> CardView:
    return replace(DIAGNOSED, plan=replace(PROPOSED, state=state, **more))  # type: ignore[arg-type]  # fields by name


VARIANTS: dict[str, CardView] = {
    "paged": CardView(
        incident_id="Q1",
        title="LLMHighTTFT",
        service="chat",
        state=CardState.DIAGNOSING,
        paged_at=PAGED,
        number=1,
        assignees=("Alice",),
    ),
    "not configured": CardView(
        incident_id="Q2",
        title="Disk full",
        service="Storage",
        state=CardState.OPEN,
        paged_at=PAGED,
        is_configured=False,
        offers_fixes=False,
        shows_fixes=False,
    ),
    "proposed": DIAGNOSED,
    "needs two": replace(
        DIAGNOSED, plan=replace(PROPOSED, tier=Tier.R3, needed=2, approved_by=("Bob",), requester="Carol")
    ),
    "nobody may": replace(DIAGNOSED, plan=replace(PROPOSED, may_approve=())),
    "observe": replace(DIAGNOSED, plan=None, offers_fixes=False, shows_fixes=False, other_fixes=()),
    "no plan": replace(DIAGNOSED, plan=None, no_plan_because="no runbook fits", other_fixes=(), next_check="node logs"),
    "not sure": replace(
        DIAGNOSED, causes=tuple(replace(c, probability=0.4) for c in DIAGNOSED.causes), plan=None, runbook=None
    ),
    "nothing wrong": replace(
        DIAGNOSED, causes=(CauseLine(cause="none", title="Healthy", probability=0.9),), plan=None, suspect=None
    ),
    "nothing can be told": replace(
        DIAGNOSED,
        causes=(CauseLine(cause="none", title="Healthy", probability=0.5),),
        evidence=(),
        suspect=None,
        plan=None,
        impact="",
        asked=40,
        unanswered=40,
        blind_spots=(BlindLine(checks=("queue", "kv cache", "prefill", "replicas"), why="no answer within 3 s"),),
        next_check="no answer within 3 s (4 open questions less)",
    ),
    "no cause": replace(DIAGNOSED, causes=(), evidence=(), suspect=None, runbook=None, plan=None, since=None),
    "acknowledged": replace(DIAGNOSED, state=CardState.ACKNOWLEDGED, acknowledged_by="Alice Ahn"),
    "approved": with_plan(PlanState.APPROVED, approved_by=("Bob",)),
    "running": with_plan(
        PlanState.RUNNING, approved_by=("Bob",), steps=(replace(STEP, state=StepState.VERIFYING, note="sample 1 of 2"),)
    ),
    "verified": with_plan(
        PlanState.VERIFIED,
        approved_by=("Bob",),
        steps=(replace(STEP, state=StepState.VERIFIED, note="TTFT 740 ms to 467 ms"),),
    ),
    "not verified": with_plan(
        PlanState.NOT_VERIFIED, approved_by=("Bob",), why="TTFT is still 740 ms (normally 466 ms)."
    ),
    "not verified, no undo": with_plan(PlanState.NOT_VERIFIED, can_undo=False),
    "failed": with_plan(PlanState.FAILED, why="Langfuse refused: 403.", can_undo=False),
    "in doubt": with_plan(PlanState.IN_DOUBT, doubt_step=0, approved_by=("Bob",)),
    "denied": with_plan(PlanState.DENIED, decided_by="Bob"),
    "expired": with_plan(PlanState.EXPIRED),
    "stale": with_plan(PlanState.STALE, why="The label is on version 9 now."),
    "superseded": with_plan(PlanState.SUPERSEDED),
    "done": with_plan(PlanState.DONE),
    "undo proposed": with_plan(PlanState.PROPOSED, is_undo=True, may_approve=("prompt-owner",)),
    "resolved": replace(
        with_plan(PlanState.VERIFIED, approved_by=("Bob",)), state=CardState.RESOLVED, resolved_by="Watchkeeper"
    ),
    "resolved with an open offer": replace(DIAGNOSED, state=CardState.RESOLVED),
    "resolved in doubt": replace(with_plan(PlanState.IN_DOUBT, doubt_step=0), state=CardState.RESOLVED),
    "degraded": replace(DIAGNOSED, troubles=("PagerDuty did not give the alert's details: 503",)),
    "second try": replace(
        DIAGNOSED, earlier_plans=(replace(PROPOSED, plan_id="p-0", state=PlanState.NOT_VERIFIED),), run=2
    ),
}


def flooded(text: str) -> CardView:
    """Every field from outside is this text, and every list is long."""
    step = StepLine(index=0, title=text, effect=text, undo=text, state=StepState.FAILED, note=text)
    return CardView(
        incident_id="Q1",
        number=7,
        title=text,
        service=text,
        state=CardState.OPEN,
        paged_at=PAGED,
        environment=text,
        url=text,
        urgency=text,
        assignees=(text,) * 30,
        since=ONSET,
        user_impact=True,
        scope=text,
        causes=tuple(
            CauseLine(cause=text, title=text, probability=0.3, evidence_for=(text,) * 9, evidence_against=(text,) * 9)
            for _ in range(12)
        ),
        evidence=tuple(
            EvidenceLine(status=status, summary=text, label=text, now=1.0, baseline=2.0, unit=text, url=text)
            for status in Status
            for _ in range(30)
        ),
        suspect=SuspectLine(summary=text, at=ONSET, author=text, before_onset_s=5, reasons=(text,) * 9, diff=text),
        other_suspects=(SuspectLine(summary=text, at=ONSET, diff="\n".join([text] * 50)),) * 5,
        runbook=RunbookLine(title=text, url=text, heading=text, reasons=(text,) * 9),
        other_runbooks=(RunbookLine(title=text, url=text),) * 5,
        plan=replace(
            PROPOSED,
            title=text,
            steps=tuple(replace(step, index=index) for index in range(30)),
            may_approve=(text,) * 9,
            approved_by=(text,) * 9,
            needed=3,
            requester=text,
            why=text,
        ),
        earlier_plans=(replace(PROPOSED, title=text, state=PlanState.FAILED),) * 5,
        other_fixes=tuple(Choice(plan_id=f"p-{number}", title=text, tier=Tier.R2) for number in range(130)),
        blind_spots=(BlindLine(checks=(text,) * 9, why=text),) * 40,
        asked=40,
        unanswered=39,
        impact=text,
        next_check=text,
        deeds=(Deed(at=PAGED, who=text, did=text),) * 9,
        troubles=(text,) * 9,
        diagnosis_s=1.0,
    )
