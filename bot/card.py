"""The card as a projection: reads everything that is known of an incident and says what Slack should show of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from bot import narrate
from bot.config import Config
from bot.config.entries import PrometheusSource
from bot.incidents import ASKS_A_PERSON, Incident, IncidentState, NotAllowedError, NotFoundError, PlanState
from bot.policy import AUTO, POLICY, Policy, person_of
from bot.respond import HITS, diagnosis_of
from bot.similar import seen_before
from bot.slack import portrait
from bot.slack.view import CardState, CardView, Deed, PlanLine, StepState
from bot.store.audit import AuditLog, AuditRow
from bot.store.break_glass import BREAK_GLASS
from bot.store.incidents import Incidents, Run
from bot.store.journal import Journal, JournalEntry
from bot.store.kill_switch import KillSwitch
from bot.store.outbox import Outbox
from bot.store.past import PastIncidents
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from bot.store.votes import Tally, Votes
from diagnostics.diagnosis import Diagnosis
from diagnostics.findings import Status
from diagnostics.impact import who_is_hurt
from diagnostics.key_signals import graph_url
from retrieval.documents import Hit
from runbooks.engine.plan import lasting_steps
from runbooks.engine.records import Intent, Outcome, Probed, Settled, Verified, record_from_json
from runbooks.engine.run import changed_steps
from runbooks.engine.values import Happened, Plan, PlannedStep

_OVER = frozenset(
    {
        PlanState.VERIFIED,
        PlanState.DONE,
        PlanState.NOT_VERIFIED,
        PlanState.FAILED,
        PlanState.DENIED,
        PlanState.EXPIRED,
        PlanState.STALE,
        PlanState.STOPPED,
    }
)
_MAY_BE_UNDONE = frozenset(
    {PlanState.VERIFIED, PlanState.DONE, PlanState.NOT_VERIFIED, PlanState.FAILED, PlanState.STOPPED}
)
_LIVE = frozenset({PlanState.PROPOSED, PlanState.APPROVED, PlanState.RUNNING, *ASKS_A_PERSON})
_DEEDS = {
    "incident.acknowledge": "acknowledged the incident",
    "incident.resolve": "resolved the incident",
    "diagnosis.requested": "asked for another diagnosis",
    "plan.requested": "requested another fix",
    "narrow.asked": "chose other values for the fix",
    "plan.approve": "approved the fix",
    "plan.escalated": "asked for the secondary",
    "plan.break_glass": "broke the glass and started the fix alone",
    "break_glass.reviewed": "reviewed the broken glass",
    "plan.approved_in_advance": "takes the fix back, as was approved with it",
    "plan.deny": "denied the fix",
    "plan.revoke": "took the approval back before the fix began",
    "step.settled": "answered for a step in doubt",
    "incident.gone": "does not have the incident any more, so it ends here",
    "refused": "was refused",
}


class Cards:
    """Builds views; reads only."""

    def __init__(
        self,
        *,
        incidents: Incidents,
        plans: Plans,
        journal: Journal,
        outbox: Outbox,
        switch: KillSwitch,
        record: AuditLog,
        past: PastIncidents,
        votes: Votes,
        config: Config,
        policy: Policy,
    ) -> None:
        self._incidents = incidents
        self._plans = plans
        self._journal = journal
        self._outbox = outbox
        self._switch = switch
        self._record = record
        self._past = past
        self._votes = votes
        self._config = config
        self._policy = policy

    async def view(self, incident_id: str, number: int | None = None) -> CardView:
        """The incident as it stands; with `number` what that diagnosis found. Raises NotFoundError."""
        incident = await self._incidents.get(incident_id)
        run = await self._incidents.run(incident_id, incident.run if number is None else number)
        found = diagnosis_of(run)
        service = self._config.service(incident.service) if incident.service else None
        view = CardView(
            incident_id=incident_id,
            title=incident.title,
            service=incident.service or incident.pagerduty_service_name or incident.pagerduty_service,
            state=_state(incident, run),
            paged_at=incident.created_at,
            number=incident.number,
            environment=service.environment if service else "",
            url=incident.url,
            urgency=incident.urgency,
            assignees=tuple(incident.assignees.values()),
            is_configured=service is not None,
            offers_fixes=service is None or service.mode in ("approve", AUTO),
            shows_fixes=service is None or service.mode != "observe",
            run=incident.run if number is None else number,
            acknowledged_by=self._name(incident.acknowledged_by),
            resolved_by=self._name(incident.resolved_by),
            stopped="" if incident.state is IncidentState.RESOLVED else await self._stopped(),
            deeds=self._deeds(await self._record.about(incident_id)),
            troubles=(*(run.notes or () if run else ()), *await self._outbox.undeliverable(incident_id)),
        )
        if incident.merged_into:
            view = await self._merged(view, incident.merged_into)
        if run is not None and run.hits:
            view = _with_runbooks(view, HITS.validate_python(run.hits), await self._votes.tallies(incident_id))
        view = await self._with_past(view, run)
        view = self._with_diagnosis(view, found) if found else view
        return await self._with_plans(view, incident)

    async def _stopped(self) -> str:
        state = await self._switch.read()
        return narrate.stopped(state.who, state.reason, state.at, datetime.now(UTC)) if state.is_stopped else ""

    async def _merged(self, view: CardView, target_id: str) -> CardView:
        """Where the story goes on; the address of one that we do not know is like ours."""
        try:
            target = await self._incidents.get(target_id)
        except NotFoundError:
            url = f"{view.url.rpartition('/')[0]}/{target_id}"
            return replace(view, merged_into=f"PagerDuty {target_id}", merged_url=url)
        name = f"PagerDuty #{target.number}" if target.number is not None else target.title
        return replace(view, merged_into=name, merged_url=target.url)

    async def _with_past(self, view: CardView, run: Run | None) -> CardView:
        if run is None or run.similar is None:
            return view
        found = await seen_before(self._past, run.similar)
        return replace(view, seen=tuple(portrait.seen(each, view.paged_at) for each in found))

    async def _with_plans(self, view: CardView, incident: Incident) -> CardView:
        rows = await self._plans.of_incident(incident.incident_id)
        lines = [(row, await self.plan_line(row, incident, taken_back(rows))) for row in rows]
        shown = _on_the_card(rows)
        plan = next((line for row, line in lines if row is shown), None)
        choices = portrait.choices(
            row.plan for row in rows if row.state is PlanState.ALTERNATIVE and row.run == incident.run
        )
        may_choose = not view.is_over and (shown is None or shown.state not in (PlanState.APPROVED, PlanState.RUNNING))
        return replace(
            view,
            plan=plan,
            earlier_plans=tuple(line for row, line in lines if row is not shown and row.state in _OVER),
            other_fixes=choices if may_choose else (),
            no_plan_because="" if plan else next((n for n in view.troubles if n.startswith("No fix")), ""),
            troubles=tuple(note for note in view.troubles if plan or not note.startswith("No fix")),
        )

    async def plan_line(self, row: PlanRow, incident: Incident, undone: Collection[str]) -> PlanLine:
        """One plan with the progress of its steps; `undone` are the plans that were taken back."""
        entries = await self._journal.read(row.plan.plan_id)
        requirement = self._policy.requirement(row.plan)
        approvers = tuple(
            f"{self._name(each.person_id)} ({each.role}{', alone' if each.decision == BREAK_GLASS else ''})"
            for each in row.approvals
            if each.decision in ("approve", BREAK_GLASS)
        )
        denier = next((each.person_id for each in row.approvals if each.decision == "deny"), None)
        progress = {step.index: _progress(step, entries) for step in row.plan.steps}
        line = portrait.plan(
            row.plan,
            row.state,
            may_approve=(self._policy.approvers(row.plan, incident),),
            needed=requirement.count if requirement else 1,
            approved_by=approvers,
            decided_by=self._name(denier),
            requester=self._name(row.plan.requester),
            why=row.why,
            doubt_step=_doubtful_step(row, progress),
            progress=progress,
        )
        if row.state is PlanState.PROPOSED:
            line = replace(line, hold=self._hold(row), on_failure=self._on_failure(row.plan))
        may_undo = may_be_undone(row) and row.plan.plan_id not in undone
        needs_code = requirement is not None and requirement.step_up
        return replace(line, can_undo=may_undo and _can_be_taken_back(row.plan, entries), needs_code=needs_code)

    def _hold(self, row: PlanRow) -> str:
        """Why it cannot be approved now, whoever clicks."""
        service = self._config.service(row.plan.service)
        if service is not None and service.mode == "suggest":
            return narrate.SHOWN_ONLY.format(service=service.name)
        return self._policy.frozen(row.plan, datetime.now(UTC))

    def _on_failure(self, item: Plan) -> str:
        """What whoever approves has to know of its undo; nothing where it is only offered, or nothing runs at all."""
        service = self._config.service(item.service)
        if not item.undoes_itself or service is None or service.mode == "suggest":
            return ""
        lasting = [index + 1 for index in lasting_steps(item)]
        return narrate.taken_back(lasting, may_start_itself=service.mode == AUTO)

    def _with_diagnosis(self, view: CardView, found: Diagnosis) -> CardView:
        culprit, others = portrait.suspects(found)
        return replace(
            view,
            since=found.since,
            user_impact=found.user_impact,
            impact=who_is_hurt(found),
            scope=portrait.scope(found.scope),
            causes=portrait.causes(found),
            evidence=portrait.evidence(found, self._graphs(found)),
            suspect=culprit,
            other_suspects=others,
            blind_spots=portrait.blind_spots(found),
            asked=len(found.findings),
            unanswered=sum(finding.status is Status.UNKNOWN for finding in found.findings),
            next_check=portrait.next_check(found),
            diagnosis_s=found.seconds,
        )

    def _graphs(self, found: Diagnosis) -> Callable[[str], str]:
        """Where a signal's graph is seen: in the Prometheus that was asked; the recorder has no page."""
        service = self._config.service(found.service)
        source = self._config.datasource(service.datasource) if service and service.datasource else None
        if service is None or not isinstance(source, PrometheusSource):
            return lambda _: ""
        return partial(graph_url, source.url, service.target(), found.frame.at)

    def _name(self, person_id: str | None) -> str:
        if person_id is None:
            return ""
        try:
            return person_of(self._config, person_id).name
        except NotAllowedError:
            return {"watchkeeper": "Watchkeeper", "pagerduty": "PagerDuty", POLICY: "the policy"}.get(
                person_id, person_id
            )

    def _deeds(self, rows: Sequence[AuditRow]) -> tuple[Deed, ...]:
        return tuple(Deed(at=row.at, who=self._name(row.actor), did=_did(row)) for row in rows if row.action in _DEEDS)


def may_be_undone(row: PlanRow) -> bool:
    """It ran, and is no undo itself."""
    return row.state in _MAY_BE_UNDONE and row.plan.undoes is None


def taken_back(rows: Sequence[PlanRow]) -> set[str]:
    """The plans whose undo is approved, runs or ran."""
    return {
        row.plan.undoes
        for row in rows
        if row.plan.undoes and row.state in (*_LIVE, PlanState.DONE) and row.state is not PlanState.PROPOSED
    }


def _did(row: AuditRow) -> str:
    return f"{_DEEDS[row.action]}: {row.details['what']}" if row.action == "refused" else _DEEDS[row.action]


def _state(incident: Incident, run: Run | None) -> CardState:
    if incident.state is IncidentState.RESOLVED:
        return CardState.RESOLVED
    if run is not None and run.state != "done":
        return CardState.DIAGNOSING
    return CardState.ACKNOWLEDGED if incident.state is IncidentState.ACKNOWLEDGED else CardState.OPEN


def _on_the_card(rows: Sequence[PlanRow]) -> PlanRow | None:
    """The plan that matters most now: what runs, then what waits, then what ended last."""
    for wanted in (PlanState.IN_DOUBT, PlanState.WAITING, PlanState.RUNNING, PlanState.APPROVED, PlanState.PROPOSED):
        for row in rows:
            if row.state is wanted:
                return row
    over = [row for row in rows if row.state in _OVER]
    return max(over, key=lambda row: row.state_at, default=None)


def _doubtful_step(row: PlanRow, progress: Mapping[int, tuple[StepState, str]]) -> int | None:
    """The step that waits for a person's answer: the one in doubt, else the first that is not done."""
    if row.state not in ASKS_A_PERSON:
        return None
    in_doubt = [index for index, (state, _) in progress.items() if state is StepState.IN_DOUBT]
    undone = [index for index, (state, _) in progress.items() if state in (StepState.WAITING, StepState.RUNNING)]
    return next(iter(in_doubt + undone), None)


def _can_be_taken_back(item: Plan, entries: Sequence[JournalEntry]) -> bool:
    """Did any step take place that can be undone, as far as anybody knows?"""
    took_place = changed_steps(item, [record_from_json(entry.record) for entry in entries])
    return any(step.undo is not None and step.index in took_place for step in item.steps)


def _progress(step: PlannedStep, entries: Sequence[JournalEntry]) -> tuple[StepState, str]:
    state, note = StepState.WAITING, ""
    for entry in entries:
        if entry.step == step.index:
            state, note = _after(entry, step, note)
    return state, note


def _after(entry: JournalEntry, step: PlannedStep, note: str) -> tuple[StepState, str]:
    acted = StepState.VERIFYING if step.is_verified else StepState.DONE
    match record_from_json(entry.record):
        case Intent():
            return StepState.RUNNING, note
        case Outcome(ok=ok, detail=detail):
            return (acted, note) if ok else (StepState.FAILED, detail)
        case Probed(already=True):
            return acted, "had happened already"
        case Probed(happened=happened):
            states = {Happened.YES: acted, Happened.NO: StepState.WAITING, Happened.CANNOT_TELL: StepState.IN_DOUBT}
            return states[happened], note
        case Verified(status=status, summary=summary):
            state = StepState.VERIFIED if status == "ok" else StepState.NOT_VERIFIED
            return state, "; ".join(filter(None, (note, summary)))
        case Settled(answer=answer):
            return {"ran": acted, "did_not_run": StepState.WAITING, "stop": StepState.SKIPPED}[answer], note


def _with_runbooks(view: CardView, hits: Sequence[Hit], tallies: Mapping[str, Tally]) -> CardView:
    votes = [tallies.get(hit.doc_id, Tally()) for hit in hits]
    lines = [portrait.runbook(hit, helpful=n.helpful, wrong=n.wrong) for hit, n in zip(hits, votes, strict=True)]
    return replace(view, runbook=lines[0] if lines else None, other_runbooks=tuple(lines[1:]))
