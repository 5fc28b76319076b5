"""
What people read outside Slack: incidents, plans, and what happened when and by whom.

Everything here reads, and is the same to everybody who signed in: one deployment serves one organisation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bot import narrate
from bot.card import Cards, taken_back
from bot.config import Config
from bot.config.entries import NO_PERSON
from bot.incidents import Incident, NotAllowedError, Person, PlanState
from bot.policy import POLICY, Policy, person_of
from bot.respond import diagnosis_of
from bot.slack import portrait
from bot.slack.picture import draw
from bot.slack.view import CardView, PlanLine
from bot.step_up import StepUp
from bot.store.audit import AuditLog, AuditRow
from bot.store.incidents import Incidents
from bot.store.listing import Listing, RunLine
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans

PAGE = 50

_WORDS: Mapping[str, str] = {
    "incident.seen": "paged",
    "incident.triggered": "says it is triggered",
    "incident.acknowledged": "says it is acknowledged",
    "incident.resolved": "says it is resolved",
    "incident.acknowledge": "acknowledged the incident",
    "incident.resolve": "resolved the incident",
    "diagnosis.made": "made diagnosis {run}: {cause}",
    "diagnosis.requested": "asked for diagnosis {run}",
    "plan.proposed": "proposed a fix: {effects}",
    "plan.alternative": "found another possible fix: {effects}",
    "plan.requested": "requested another fix",
    "undo.asked": "asked for the fix to be taken back",
    "narrow.asked": "chose other values for the fix",
    "plan.approve": "approved the fix as {role}",
    "plan.approved_in_advance": "takes the fix back, as was approved with it",
    "plan.deny": "denied the fix as {role}",
    "plan.revoke": "took the approval back as {role}, before the fix began",
    "plan.started": "started the fix",
    "step.intent": "is about to act",
    "step.outcome": "acted",
    "step.probed": "looked whether the step took effect: {happened}",
    "step.verified": "verified by the telemetry: {status}. {summary}",
    "step.settled": "said what the step did: {answer}",
    "operator.added": "gave {subject} an operator's token",
    "operator.revoked": "revoked an operator's token of {subject}",
    "operator.signed_in": "signed in to the web page",
    "operator.signed_out": "signed out of the web page",
    "plan.escalated": "asked PagerDuty for the secondary",
    "plan.break_glass": "broke the glass as {role}, and started the fix alone: {reason}",
    "break_glass.reviewed": "reviewed the broken glass of {plan}: {says}",
    "roles.read": "read who has a role: {came} came, {went} went",
    "step_up.set_up": "set up one-time codes for {subject}",
    "step_up.removed": "removed the one-time codes of {subject}",
    "step_up.proved": "gave a one-time code for {plan}",
    "step_up.refused": "gave a one-time code that does not count ({why}) for {plan}",
    "step_up.locked": "takes no more codes from {subject} until {until}",
    "switch.stopped": "stopped everything: {reason}",
    "switch.released": "ended the stop",
    "ranking.offered": "learned a ranking from votes: {digest}",
    "ranking.adopted": "adopted the learned ranking {digest}",
    "ranking.rolled_back": "took the learned ranking {former} back",
    "runbook.voted": "found the runbook {runbook} {verdict}",
    "runbook.vote_withdrawn": "took back what they found of the runbook {runbook}",
    "refused": "was refused ({what}): {why}",
}
_ENDED = {f"plan.{state.value}": words for state, words in narrate.PLAN_STATE.items()}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One thing that happened: who did what, in words, and everything that the record says of it as JSON."""

    seq: int
    at: datetime
    subject: str
    who: str
    what: str
    details: str


@dataclass(frozen=True, kw_only=True)
class IncidentStory:
    """Everything about one incident; `has_picture` when a latency breakdown was measured."""

    incident: Incident
    view: CardView
    runs: Sequence[RunLine]
    moments: Sequence[Moment]
    plans: Sequence[tuple[PlanRow, PlanLine]]
    has_picture: bool

    @property
    def is_moving(self) -> bool:
        """Is a fix under way, so that it is worth looking again?"""
        return any(row.state in (PlanState.APPROVED, PlanState.RUNNING) for row, _ in self.plans)


@dataclass(frozen=True, kw_only=True)
class PlanStory:
    """One plan as one person sees it; `refusal` says why they may not decide on it, "" when they may."""

    incident: Incident
    row: PlanRow
    line: PlanLine
    refusal: str
    may_break_glass: bool = False
    names: Mapping[str, str] = field(default_factory=dict)  # of who decided on it
    code_missing: str = ""  # what this reader has to set up before they can give the code that it needs

    @property
    def asks(self) -> str:
        """What a person can do now: `decide`, `revoke` its approval, `settle` a doubt, `undo` it; "" for nothing."""
        if self.row.state is PlanState.PROPOSED:
            return "decide"
        if self.row.state is PlanState.APPROVED:
            return "revoke"
        if self.line.doubt_step is not None:
            return "settle"
        return "undo" if self.line.can_undo else ""


class Chronicle:
    """Reads for the web page and the command line. Raises NotFoundError, StoreUnavailableError."""

    def __init__(
        self,
        *,
        listing: Listing,
        incidents: Incidents,
        plans: Plans,
        cards: Cards,
        record: AuditLog,
        config: Config,
        policy: Policy,
        step_up: StepUp,
    ) -> None:
        self._step_up = step_up
        self._listing = listing
        self._incidents = incidents
        self._plans = plans
        self._cards = cards
        self._record = record
        self._config = config
        self._policy = policy

    async def incidents(self, *, service: str = "", state: str = "", page: int = 1) -> tuple[Sequence[Incident], bool]:
        """A page of incidents, what is open first; and whether there is another page."""
        return await self._listing.incidents(service=service, state=state, offset=(page - 1) * PAGE, limit=PAGE)

    async def services(self) -> list[str]:
        """What incidents can be filtered by."""
        return sorted({*await self._listing.services(), *(service.name for service in self._config.services)})

    async def incident(self, incident_id: str) -> IncidentStory:
        """One incident with its evidence, plans and timeline."""
        incident = await self._incidents.get(incident_id)
        found = diagnosis_of(await self._incidents.run(incident_id, incident.run))
        rows = await self._plans.of_incident(incident_id)
        return IncidentStory(
            incident=incident,
            view=await self._cards.view(incident_id),
            runs=await self._listing.runs(incident_id),
            moments=[self.moment(row) for row in await self._record.about(incident_id)],
            plans=[(row, await self._cards.plan_line(row, incident, taken_back(rows))) for row in rows],
            has_picture=found is not None and any(stage.now_s is not None for stage in found.stages),
        )

    async def plan(self, plan_id: str, reader: Person) -> PlanStory:
        """One plan, and whether this reader may decide on it."""
        row = await self._plans.get(plan_id)
        incident = await self._incidents.get(row.plan.incident_id)
        refusal = ""
        try:
            self._policy.grant(reader, row.plan, incident)
        except NotAllowedError as error:
            refusal = str(error)
        if row.state is PlanState.APPROVED and any(each.person_id == reader.person_id for each in row.approvals):
            refusal = ""  # whoever gave it may take it back, also without the role in which they gave it
        undone = taken_back(await self._plans.of_incident(incident.incident_id))
        line = await self._cards.plan_line(row, incident, undone)
        may_break_glass = row.state is PlanState.PROPOSED and self._may_break_glass(reader, row, incident)
        asks_code = line.needs_code or may_break_glass
        missing = await self._step_up.missing(reader.person_id) if asks_code else ""
        return PlanStory(
            incident=incident,
            row=row,
            line=line,
            refusal=refusal,
            may_break_glass=may_break_glass,
            names={each.person_id: self._name(each.person_id) for each in row.approvals},
            code_missing=missing,
        )

    def _may_break_glass(self, reader: Person, row: PlanRow, incident: Incident) -> bool:
        try:
            self._policy.may_break_glass(reader, row.plan, incident)
        except NotAllowedError:
            return False
        return True

    async def picture(self, incident_id: str) -> bytes | None:
        """The latency picture of the latest diagnosis as a PNG; None when nothing was measured."""
        incident = await self._incidents.get(incident_id)
        found = diagnosis_of(await self._incidents.run(incident_id, incident.run))
        if found is None or not any(stage.now_s is not None for stage in found.stages):
            return None
        return await draw(portrait.latency_picture(found))

    async def record(self, *, subject: str, actor: str, before: int | None) -> tuple[Sequence[Moment], int | None]:
        """A page of the record, newest first; and where the next one begins, None at the end."""
        rows = await self._record.newest(subject=subject, actor=actor, before=before, limit=PAGE + 1)
        shown = rows[:PAGE]
        return [self.moment(row) for row in shown], (shown[-1].seq if len(rows) > PAGE else None)

    def moment(self, row: AuditRow) -> Moment:
        """A row of the record in words."""
        return Moment(
            seq=row.seq,
            at=row.at,
            subject=row.subject,
            who=self._name(row.actor),
            what=_in_words(row),
            details=json.dumps(dict(row.details), indent=2, sort_keys=True, ensure_ascii=False),
        )

    def _name(self, actor: str) -> str:
        if actor in NO_PERSON:
            return {"watchkeeper": "Watchkeeper", "pagerduty": "PagerDuty", POLICY: "the policy"}[actor]
        try:
            return person_of(self._config, actor).name
        except NotAllowedError:
            return actor


class _Shown(dict[str, Any]):
    """What a sentence can name; nothing where the row does not say it."""

    def __missing__(self, key: str) -> str:
        return ""


def _in_words(row: AuditRow) -> str:
    facts = {"subject": row.subject.partition(":")[2], **row.details, **(row.details.get("record") or {})}
    step = f", step {facts['step'] + 1}" if isinstance(facts.get("step"), int) else ""
    if isinstance(facts.get("effects"), list):
        facts["effects"] = " ".join(map(str, facts["effects"]))
    if row.action == "step.outcome":
        ending = "done" if facts.get("ok") else "refused, and nothing was changed"
        return f"acted{step}: {ending}. {facts.get('detail') or ''}".strip()
    if isinstance(facts.get("happened"), str):
        facts["happened"] = facts["happened"].replace("_", " ")
    if facts.get("already"):
        return f"saw that the step had happened already{step}; nobody acted"
    if row.action in _ENDED and row.action not in _WORDS:
        return f"the fix is {_ENDED[row.action]}. {facts.get('why') or ''}".strip()
    words = _WORDS.get(row.action, row.action.replace(".", " ").replace("_", " "))
    said = words.format_map(_Shown(facts)).strip()
    return f"{said}{step}" if row.action == "step.intent" else said
