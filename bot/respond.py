"""
The story of one incident, from the page to the verdict; readable from top to bottom in `tell`.

    alerts -> diagnosis -> runbooks -> plans -> verdict

Each step is checkpointed by the workflow engine and writes what it found to the run's row, from which the card is
drawn. Nobody waits here for a person: the story ends when the verdict stands, and a click begins the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import structlog
from dbos import DBOS, DBOSConfiguredInstance
from pydantic import TypeAdapter

from bot import narrate
from bot.approvals import Approvals
from bot.config import Config, Service
from bot.incidents import Alert, AlreadyDecidedError, Incident, NotAllowedError, PlanState, StaleError
from bot.pagerduty_client import PagerDutyError
from bot.policy import AUTO, ITSELF, Policy
from bot.question import alert_name_in, question_of
from bot.redact import safe_text, safe_values
from bot.store.incidents import Incidents, Run
from bot.store.outbox import Outbox
from bot.store.plans import Plans
from bot.stories import Checkpoint, Stories
from diagnostics.diagnosis import Diagnosis, Frame, Suspect
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import TelemetryError
from retrieval.candidates import WORTH_A_LOOK
from retrieval.documents import Hit, Question
from retrieval.ranking import RunbookSearch
from runbooks.engine.otherwise import by_hand_otherwise
from runbooks.engine.plan import PlanContext, plan
from runbooks.engine.run import MANUAL
from runbooks.engine.values import Action, CannotPlanError, Plan, Runbook

log = structlog.get_logger()

PROPOSE_FROM = 0.3
"""A runbook for a cause less likely than this is offered on request, never proposed."""

MOST_PLANS = 4

ALERTS = TypeAdapter(list[Alert])
DIAGNOSIS = TypeAdapter(Diagnosis)
HITS = TypeAdapter(list[Hit])
FRAME = TypeAdapter(Frame)


class AlertReader(Protocol):
    """The part of PagerDuty that diagnosis needs."""

    async def alerts(self, incident_id: str) -> list[Alert]:
        """The incident's alerts with their details. Raises PagerDutyError."""


class Respond:
    """The steps of the story as plain functions over our own store; `tell` puts them in order."""

    def __init__(
        self,
        *,
        incidents: Incidents,
        plans: Plans,
        outbox: Outbox,
        config: Config,
        approvals: Approvals,
        diagnosers: Mapping[str, Diagnoser],
        search: RunbookSearch,
        by_experience: Callable[[Question, list[Hit]], Awaitable[list[Hit]]],
        runbooks: Callable[[], Mapping[str, Runbook]],
        actions: Mapping[str, Action],
        pagerduty: AlertReader,
    ) -> None:
        self._incidents = incidents
        self._plans = plans
        self._outbox = outbox
        self._config = config
        self._policy = Policy(config)
        self._approvals = approvals
        self._diagnosers = diagnosers
        self._search = search
        self._by_experience = by_experience
        self._runbooks = runbooks
        self._actions = actions
        self._pagerduty = pagerduty

    async def tell(self, incident_id: str, number: int, step: Checkpoint) -> None:
        """Everything that happens between the page and the verdict."""
        await step("alerts", self.read_alerts, incident_id, number)
        await step("diagnosis", self.diagnose, incident_id, number)
        await step("runbooks", self.find_runbooks, incident_id, number)
        await step("plans", self.make_plans, incident_id, number)
        await step("verdict", self.conclude, incident_id, number)

    async def read_alerts(self, incident_id: str, number: int) -> int:
        """The webhook has no alert details, so PagerDuty is asked; without them the title has to do."""
        try:
            alerts = await self._pagerduty.alerts(incident_id)
        except PagerDutyError as error:
            await self._add_note(incident_id, number, f"PagerDuty did not give the alert's details: {error}")
            alerts = []
        await self._incidents.record(incident_id, number, alerts=ALERTS.dump_python(alerts, mode="json"))
        return len(alerts)

    async def diagnose(self, incident_id: str, number: int) -> str | None:
        """Ask the telemetry and the change sources; returns the first cause's id."""
        incident = await self._incidents.get(incident_id)
        service = self._service(incident)
        diagnoser = self._diagnosers.get(service.name) if service else None
        if service is None or diagnoser is None:
            why = "has no datasource" if service else "is not in the configuration"
            await self._add_note(incident_id, number, f"The service {why}, so nothing could be measured.")
            return None
        run = await self._run(incident_id, number)
        try:
            found = await diagnoser.diagnose(service.target(), alert=alert_name(incident, run))
        except TelemetryError as error:
            await self._add_note(incident_id, number, f"The telemetry cannot be asked: {error}")
            return None
        await self._incidents.record(incident_id, number, diagnosis=DIAGNOSIS.dump_python(found, mode="json"))
        return found.causes[0].cause if found.causes else None

    async def find_runbooks(self, incident_id: str, number: int) -> int:
        """Up to three runbooks that fit, or none."""
        incident = await self._incidents.get(incident_id)
        asked = question(incident, await self._run(incident_id, number))
        hits = await self._by_experience(asked, await self._search.search(asked, limit=WORTH_A_LOOK))
        await self._incidents.record(
            incident_id, number, hits=safe_values(HITS.dump_python(hits, mode="json"), ("doc_id", "url"))
        )
        return len(hits)

    async def make_plans(self, incident_id: str, number: int) -> int:
        """The best runbook's fix is proposed; other suspects and other runbooks are kept as alternatives."""
        incident = await self._incidents.get(incident_id)
        service = self._service(incident)
        run = await self._run(incident_id, number)
        found = diagnosis_of(run)
        if service is None or found is None:
            return 0
        if service.mode == "observe":
            await self._add_note(incident_id, number, "This service is in mode observe: no fix is offered.")
            return 0
        plans, refusals = await self._drafts(incident, service, found, run)
        for rank, (item, treats) in enumerate(plans):
            state = PlanState.PROPOSED if rank == 0 and treats else PlanState.ALTERNATIVE
            await self._plans.save(item, run=number, rank=rank, state=state, now=item.made_at)
        if service.mode == AUTO:
            await self._leave_to_the_policy(incident_id, number)
        if not plans:
            why = refusals[0] if refusals else "no runbook fits"
            await self._add_note(incident_id, number, f"No fix can be offered: {why}.")
        return len(plans)

    async def _leave_to_the_policy(self, incident_id: str, number: int) -> None:
        """Mode auto: the policy approves what is proposed, the same way as people; the rest waits for them."""
        for row in await self._plans.of_incident(incident_id):
            if (row.run, row.state, row.plan.undoes) == (number, PlanState.PROPOSED, None):
                try:
                    await self._approvals.approve(row.plan.plan_id, by=ITSELF, now=datetime.now(UTC))
                except (NotAllowedError, StaleError, AlreadyDecidedError) as refusal:
                    await self._add_note(incident_id, number, narrate.NOT_BY_ITSELF.format(why=refusal))

    async def _drafts(
        self, incident: Incident, service: Service, found: Diagnosis, run: Run
    ) -> tuple[list[tuple[Plan, bool]], list[str]]:
        """Plans with whether they treat a likely cause, best first, and why others could not be made."""
        runbooks = self._runbooks()
        likely = [cause.cause for cause in found.causes if cause.probability >= PROPOSE_FROM]
        drafts: list[tuple[Plan, list[int]]] = []
        refusals: list[str] = []
        seen: set[str] = set()
        for hit in HITS.validate_python(run.hits or []):
            if (runbook := runbooks.get(hit.doc_id)) is None:
                continue
            for item in await self._possible(runbook, incident, service, found, refusals):
                effects = "\n".join(step.effect for step in item.steps)
                if effects not in seen and len(drafts) < MOST_PLANS:
                    seen.add(effects)
                    places = [place for place, cause in enumerate(likely) if cause in runbook.causes]
                    drafts.append((item, places if _is_for_the_guilty(item, found) else []))
        drafts.sort(key=lambda draft: _order(*draft))
        return [(item, bool(places)) for item, places in drafts], refusals

    async def _possible(
        self, runbook: Runbook, incident: Incident, service: Service, found: Diagnosis, refusals: list[str]
    ) -> list[Plan]:
        """
        The runbook's plans, for each suspect and for none; why others could not be made is added to `refusals`.

        Where none is for the guilty one, a person is asked for what the steps say `otherwise`.
        """
        made: list[Plan] = []
        for suspect in (*found.suspects, None):
            context = context_of(incident, service, found, suspect, policy_version=self._config.policy_version)
            try:
                made.append(await self._plan(runbook, context))
            except CannotPlanError as refusal:
                refusals.append(str(refusal))
        if any(_is_for_the_guilty(item, found) for item in made) or not any(step.otherwise for step in runbook.steps):
            return made
        culprits = [suspect for suspect in found.suspects if suspect.change.id == found.culprit_change]
        for culprit in (*culprits, None):
            context = context_of(incident, service, found, culprit, policy_version=self._config.policy_version)
            try:
                reduced = await by_hand_otherwise(runbook, context, self._actions)
                return [*made, await self._plan(reduced, context)]
            except CannotPlanError as refusal:
                refusals.append(str(refusal))
        return made

    async def _plan(self, runbook: Runbook, context: PlanContext) -> Plan:
        return self._policy.timed(without_secrets(await plan(runbook, context, self._actions)))

    async def conclude(self, incident_id: str, number: int) -> None:
        """Put the verdict on record, its evidence in the thread, and a note in PagerDuty."""
        run = await self._run(incident_id, number)
        found = diagnosis_of(run)
        first = found.causes[0] if found and found.causes else None
        now = datetime.now(UTC)
        await self._incidents.finish(
            incident_id,
            number,
            now=now,
            cause=first.cause if first else "unknown",
            probability=first.probability if first else 0.0,
        )
        for lane, kind in (
            ("slack", "evidence"),
            ("slack", "picture"),
            ("slack", "signals"),
            ("pagerduty", "verdict"),
        ):
            if found is not None:
                key = f"{incident_id}:{number}:{kind}"
                await self._outbox.post(key=key, incident_id=incident_id, lane=lane, kind=kind, now=now, run=number)
        log.info("verdict", incident=incident_id, run=number, cause=first.cause if first else None)

    async def broke_off(self, incident_id: str, number: int, why: str) -> None:
        """A defect of ours ended the diagnosis: the card says so instead of waiting for ever."""
        await self._add_note(
            incident_id,
            number,
            f"The diagnosis broke off ({why}, see Watchkeeper's log). Diagnose again, or go on by hand.",
        )
        await self._incidents.finish(incident_id, number, now=datetime.now(UTC), cause="unknown", probability=0.0)

    async def _run(self, incident_id: str, number: int) -> Run:
        found = await self._incidents.run(incident_id, number)
        if found is None:
            raise LookupError(f"run {number} of incident {incident_id} is not in the store")
        return found

    async def _add_note(self, incident_id: str, number: int, note: str) -> None:
        run = await self._run(incident_id, number)
        notes, said = list(run.notes or []), safe_text(note)
        if said not in notes:
            await self._incidents.record(incident_id, number, notes=[*notes, said])

    def _service(self, incident: Incident) -> Service | None:
        return self._config.service(incident.service) if incident.service else None


def _is_for_the_guilty(item: Plan, found: Diagnosis) -> bool:
    """It takes back what is held guilty, or leans on no change at all."""
    return item.suspect is None or item.suspect == found.culprit_change


def context_of(
    incident: Incident, service: Service, found: Diagnosis, suspect: Suspect | None, *, policy_version: str
) -> PlanContext:
    """What a plan is made from, where this suspect is held guilty; None holds no change guilty."""
    context = PlanContext(
        incident_id=incident.incident_id,
        service=service.name,
        environment=service.environment,
        policy_version=policy_version,
        now=datetime.now(UTC),
        namespace=service.namespace,
        cluster=service.cluster or "",
        gateway=service.gateway or "",
        undoes_itself=service.undo_on_failure == "run",
    )
    return with_diagnosis(with_names(context, service), found, suspect)


def with_names(context: PlanContext, service: Service) -> PlanContext:
    """The context with what the configuration names for placeholders."""
    deployed: dict[str, tuple[str, ...]] = {}
    for each in service.deployments:
        deployed[each.kind] = (*deployed.get(each.kind, ()), each.name)
    return replace(
        context,
        deployments=deployed.get("engine", ()),
        deployed=deployed,
        retrieval=service.retrieval.model_dump() if service.retrieval else {},
        kill_switches=dict(service.kill_switches.items()),
    )


def with_diagnosis(context: PlanContext, found: Diagnosis, suspect: Suspect | None) -> PlanContext:
    """The context with what the diagnosis says."""
    return replace(
        context,
        suspect=suspect.change.id if suspect else None,
        suspect_undo=suspect.change.undo if suspect else {},
        scope=confined_to(found),
        frame=FRAME.dump_python(found.frame, mode="json"),
        answers={finding.check: finding.status.value for finding in found.findings},
    )


def confined_to(found: Diagnosis) -> dict[str, tuple[str, ...]]:
    """
    Where the trouble is: the diagnosis' dimension with its values, and of a single pod also the node that it ran on.

    Checks that name the pod name its node, where somebody exports that. A GPU's fault shows on a pod, and is mended on
    the node.
    """
    if found.scope is None:
        return {}
    places = {found.scope.dimension: found.scope.values}
    if found.scope.dimension == "pod" and len(found.scope.values) == 1:
        pod = ("pod", found.scope.values[0])
        measures = [measure for finding in found.findings for measure in finding.measures if pod in measure.scope]
        nodes = {value for measure in measures for label, value in measure.scope if label == "node"}
        places["node"] = tuple(sorted(nodes))
    return places


def without_secrets(item: Plan) -> Plan:
    """
    The plan with clean sentences: they go to Slack, PagerDuty and the record, which forgets nothing.

    Its parameters are what will be done and cannot be cleaned. Raises CannotPlanError when one holds a credential.
    """
    for step in item.steps:
        for name, value in step.params.items():
            if safe_values(value) != value:
                raise CannotPlanError(
                    f"{step.title}: {name} holds invisible characters or what looks like a credential"
                )
    return replace(item, steps=tuple(replace(step, effect=safe_text(step.effect)) for step in item.steps))


def _order(item: Plan, treats: Sequence[int]) -> tuple[bool, int, bool]:
    """
    Sorts plans, best first; `treats` are the places of the likely causes that the plan treats.

    Of fixes for one cause, one that we can carry out, verify and take back goes before one that asks a person.
    """
    return not treats, min(treats, default=0), all(step.action == MANUAL for step in item.steps)


def diagnosis_of(run: Run | None) -> Diagnosis | None:
    """The diagnosis in a run's row as a value."""
    return DIAGNOSIS.validate_python(run.diagnosis) if run and run.diagnosis else None


def alerts_of(run: Run | None) -> Sequence[Alert]:
    """The alerts in a run's row as values."""
    return ALERTS.validate_python(run.alerts) if run and run.alerts else []


def alert_name(incident: Incident, run: Run | None) -> str:
    """The alert rule's name; "" when there is none."""
    return alert_name_in(incident.title, alerts_of(run))


def question(incident: Incident, run: Run) -> Question:
    """What to ask of the runbooks about this run."""
    return question_of(incident.title, incident.service or "", alerts_of(run), diagnosis_of(run))


@DBOS.dbos_class()
class RespondWorkflow(DBOSConfiguredInstance):
    """The durable wrapper: its id is "<incident>:<run>", and each step's result is remembered as JSON."""

    def __init__(self, story: Respond, stories: Stories) -> None:
        super().__init__("respond")
        self._story = story
        self._stories = stories

    @DBOS.workflow()
    async def run(self, incident_id: str, number: int) -> None:
        """Tell the story; after a crash the steps that ended are not repeated."""
        await self._stories.tell(
            self._story.tell(incident_id, number, self._stories.step),
            lambda why: self._story.broke_off(incident_id, number, why),
        )
