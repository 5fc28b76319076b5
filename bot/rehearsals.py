"""
`watchkeeper runbook plan`: exactly what a runbook would do for a case or an incident; reads, and touches nothing.

For a recorded case nothing outside its folder is asked: the diagnosis comes from its telemetry, and the present state
from its `states.yaml`. For an incident the diagnosis is the one on record, and the actions read the far ends with the
credentials of the configuration, without being able to act.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bot.config import Config, load_config
from bot.connections import connect_actions
from bot.discretion import discreet
from bot.incidents import Incident, IncidentState, WatchkeeperError
from bot.library import vocabulary
from bot.policy import Policy
from bot.respond import PROPOSE_FROM, context_of, diagnosis_of, with_diagnosis, with_names, without_secrets
from bot.settings import Settings
from bot.store.database import Database
from bot.store.incidents import Incidents
from diagnostics.answer import Case, CaseError, diagnosed, load_case
from diagnostics.diagnosis import Diagnosis
from diagnostics.telemetry.model import TelemetryError
from runbooks.engine.chosen import WrongValueError, changed
from runbooks.engine.context import PlanContext
from runbooks.engine.declared import Plain
from runbooks.engine.library import load_file
from runbooks.engine.lint import lint
from runbooks.engine.problems import RunbookError
from runbooks.engine.rehearsal import Rehearsal, first_possible, reading, recorded
from runbooks.engine.values import CannotPlanError, JsonObject, Runbook
from runbooks.engine.yaml_block import YamlBlockError, load_document

STATES = "states.yaml"
INCIDENT = "QCASE"
UNNAMED = "case"
"""What the cluster and the gateway of a case are called, where no configuration here knows its service."""


@dataclass(frozen=True, kw_only=True)
class ReadCase:
    """A recorded case with its diagnosis and, by target, the states that reading would answer."""

    folder: Path
    case: Case
    found: Diagnosis
    states: Mapping[str, JsonObject]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """
    What would be offered, and to whom.

    `who` may approve, in words, and `needed` of them; `withheld` says why it would not be offered at all, "" when it
    would. `notes` tell what this rehearsal had to assume.
    """

    runbook: Runbook
    incident: Incident
    found: Diagnosis
    rehearsal: Rehearsal
    who: str = ""
    needed: int = 1
    withheld: str = ""
    notes: tuple[str, ...] = ()


async def read_case(folder: Path) -> ReadCase:
    """Reads the folder and diagnoses it. Raises WatchkeeperError when it is no case."""
    states = _states(folder / STATES)
    try:
        case = await asyncio.to_thread(load_case, folder)
        found = discreet(await diagnosed(case), "full")
    except (CaseError, TelemetryError) as error:
        raise WatchkeeperError(str(error)) from error
    return ReadCase(folder=folder, case=case, found=found, states=states)


async def for_case(file: Path, read: ReadCase, given: Sequence[str], settings: Settings) -> Offer:
    """Raises WatchkeeperError when the file is no runbook that would be offered, or a state does not fit its action."""
    runbook, target = usable(file), read.case.target
    config = _config_of(settings)
    service = config.service(target.service) if config else None
    context = PlanContext(
        incident_id=INCIDENT,
        service=target.service,
        environment=target.environment,
        policy_version=config.policy_version if config else "",
        now=read.case.at,
        namespace=target.namespace,
        cluster=(service.cluster if service else "") or UNNAMED,
        gateway=(service.gateway if service else "") or UNNAMED,
        deployments=tuple(each.name for each in target.deployments if each.kind == "engine"),
        params=chosen(runbook, given),
    )
    if service is not None:
        context = replace(with_names(context, service), deployments=context.deployments)
    contexts = [with_diagnosis(context, read.found, suspect) for suspect in (*read.found.suspects, None)]
    try:
        rehearsal = await first_possible(runbook, contexts, recorded(vocabulary().actions, read.states))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        fault = f"{type(error).__name__} {error}"
        raise WatchkeeperError(f"{read.folder / STATES}: a state does not fit its action: {fault}") from error
    notes = [f"The present state is what {STATES} in the case's folder says; nothing else was asked."]
    if service is None:
        notes.append(f"No configuration here knows {target.service}: cluster and gateway are called `{UNNAMED}`.")
    return _offer(runbook, _incident_of(read), read.found, rehearsal, config, notes)


async def for_incident(file: Path, incident_id: str, given: Sequence[str], settings: Settings, config: Config) -> Offer:
    """Raises WatchkeeperError when there is no such incident, or it has no diagnosis yet."""
    runbook = usable(file)
    database = Database(settings.database_url.get_secret_value())
    try:
        incidents = Incidents(database)
        incident = await incidents.get(incident_id)
        found = diagnosis_of(await incidents.run(incident_id, incident.run))
    finally:
        await database.close()
    service = config.service(incident.service) if incident.service else None
    if service is None:
        raise WatchkeeperError(f"the incident {incident_id} is of no service that {config.path} has")
    if found is None:
        raise WatchkeeperError(f"the incident {incident_id} has no diagnosis, so there is nothing to plan for")
    params = chosen(runbook, given)
    contexts = [
        replace(context_of(incident, service, found, suspect, policy_version=config.policy_version), params=params)
        for suspect in (*found.suspects, None)
    ]
    rehearsal = await first_possible(runbook, contexts, reading(connect_actions(settings, config)))
    return _offer(runbook, incident, found, rehearsal, config, [])


def usable(file: Path) -> Runbook:
    """The runbook, if its steps would be offered. Raises WatchkeeperError with all that is wrong with it."""
    try:
        runbook = load_file(file)
    except RunbookError as error:
        raise WatchkeeperError(str(error)) from error
    if wrong := lint(runbook, vocabulary()):
        raise WatchkeeperError("\n".join(("none of its steps would be offered:", *map(str, wrong))))
    return runbook


def chosen(runbook: Runbook, given: Sequence[str]) -> dict[str, Plain]:
    """`name=value` pairs as values of the types that the runbook declares. Raises WatchkeeperError."""
    if wrong := [pair for pair in given if "=" not in pair]:
        raise WatchkeeperError(f"--param {wrong[0]!r}: write name=value")
    texts = dict(pair.split("=", 1) for pair in given)
    try:
        return changed(runbook.params, {}, texts, is_approved=False)
    except WrongValueError as error:
        raise WatchkeeperError(f"--param: {error}; {runbook.runbook_id} has {_listed(runbook.params)}") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _offer(
    runbook: Runbook,
    incident: Incident,
    found: Diagnosis,
    rehearsal: Rehearsal,
    config: Config | None,
    notes: Sequence[str],
) -> Offer:
    service = config.service(incident.service) if config and incident.service else None
    offer = Offer(
        runbook=runbook,
        incident=incident,
        found=found,
        rehearsal=_clean(rehearsal),
        notes=(*notes, *_on_request(runbook, found)),
    )
    if offer.rehearsal.plan is None:
        return offer
    if config is None or service is None:
        return replace(offer, withheld="no configuration here knows the service, so nobody could approve it")
    policy = Policy(config)
    timed = policy.timed(offer.rehearsal.plan)
    requirement = policy.requirement(timed)
    withheld = f"{service.name} is in mode observe" if service.mode == "observe" else ""
    if requirement is None:
        withheld = f"no rule of the policy is for {timed.tier.name} in {service.environment}"
    return replace(
        offer,
        rehearsal=replace(offer.rehearsal, plan=timed),
        who=policy.who(timed, incident),
        needed=requirement.count if requirement else 1,
        withheld=withheld,
    )


def _clean(rehearsal: Rehearsal) -> Rehearsal:
    """Without the plan if it holds a credential: then none is offered."""
    if rehearsal.plan is None:
        return rehearsal
    try:
        return replace(rehearsal, plan=without_secrets(rehearsal.plan))
    except CannotPlanError as refusal:
        return replace(rehearsal, plan=None, refusal=str(refusal))


def _on_request(runbook: Runbook, found: Diagnosis) -> list[str]:
    likely = [cause.cause for cause in found.causes if cause.probability >= PROPOSE_FROM]
    if set(likely) & set(runbook.causes):
        return []
    seen = f"It is for {_listed(runbook.causes)}, and the diagnosis says {_listed(likely)}"
    return [f"{seen}: offered on request only."]


def _config_of(settings: Settings) -> Config | None:
    """The configuration, where there is one; a case needs none."""
    path = settings.watchkeeper_config
    return load_config(path, prometheus_url=settings.prometheus_url) if path.exists() else None


def _states(path: Path) -> Mapping[str, JsonObject]:
    """By target, what reading would answer; none where the case tells none."""
    if not path.exists():
        return {}
    try:
        states: Any = load_document(path.read_text(encoding="utf-8")).value
    except (OSError, UnicodeDecodeError) as error:
        raise WatchkeeperError(f"{path} cannot be read: {error}") from error
    except YamlBlockError as error:
        raise WatchkeeperError(f"{path}:{error.line + 1}: {error.message} ({error.remedy})") from error
    if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
        raise WatchkeeperError(f"{path}: write a mapping of targets to states, as `given.states` of a test has it")
    return states


def _incident_of(read: ReadCase) -> Incident:
    case = read.case
    return Incident(
        incident_id=INCIDENT,
        number=None,
        title=case.alert or read.folder.resolve().name,
        state=IncidentState.TRIGGERED,
        state_at=case.at,
        created_at=case.at,
        pagerduty_service="",
        pagerduty_service_name=case.target.service,
        service=case.target.service,
        url="",
        urgency="high",
        assignees={},
        run=1,
        revision=1,
    )
