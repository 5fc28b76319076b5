"""Who may approve a step, and why: the policy's own answers, with every rule, role and bound that led to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.config import AutomationAction, Command, Config, HttpEndpoint, Limit, PolicyRule, Service, Workflow
from bot.config.errors import did_you_mean
from bot.incidents import Incident, IncidentState, NotAllowedError, Person, WatchkeeperError
from bot.limits import HOUR, Act, counts, described
from bot.policy import AT_LEAST_FOR_R3, ITSELF, ON_CALL, OWNER, Policy, person_of
from runbooks.engine.values import Action, Plan, PlannedStep, Runbook, StepTemplate, Tier, TieredAction


@dataclass(frozen=True, kw_only=True)
class Question:
    """Who asks about what; `step` is a number from 1 or a title."""

    user: str
    runbook: str
    step: str
    service: str | None
    environment: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True)
class RuleLine:
    """One [[policy]] entry by its place in the file, and why it decides or does not."""

    number: int
    rule: str
    decides: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class RoleLine:
    """A role, and where it comes from."""

    role: str
    source: str


@dataclass(frozen=True, kw_only=True)
class LimitLine:
    """A limit that counts this step; `used` in the last hour, None when the database cannot be asked."""

    limit: str
    per_hour: int | None
    per_target_per_hour: int | None
    used: int | None
    used_by_target: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """
    The whole answer. `verdict` is `yes`, `on_call` (only while PagerDuty has assigned the incident to them) or `no`.

    A fix is approved as a whole, so `plan_tier`, that of the runbook's riskiest step, decides; steps whose condition
    the diagnosis does not meet are left out of a real plan, which may then be of a lower tier.
    """

    person: str
    name: str
    team: str
    runbook: str
    step: int
    title: str
    action: str
    tier: str
    plan_tier: str
    service: str
    environment: str
    at: datetime
    mode: str
    verdict: str
    why: str
    roles: tuple[RoleLine, ...]
    rules: tuple[RuleLine, ...]
    count: int | None
    other_team: bool
    step_up: bool
    expires_min: float | None
    start_within_min: float | None
    who: str
    freeze: str
    limits: tuple[LimitLine, ...]
    by_itself: str


def explain(
    config: Config,
    runbooks: Mapping[str, Runbook],
    actions: Mapping[str, Action],
    question: Question,
    acts: Sequence[Act] | None,
) -> Explained:
    """Ask the policy as a click would. Raises WatchkeeperError, with the nearest name, for what does not exist."""
    person = _person(config, question.user)
    book = _named(question.runbook, runbooks, "runbook")
    number, template = _step(book, question.step)
    service = _service(config, book, question.service)
    environment = question.environment or service.environment
    item = _plan(config, book, actions, service.name, environment, question.at)
    policy = Policy(config)
    verdict, why = _verdict(policy, person, item, service, question.at)
    requirement = policy.requirement(item)
    return Explained(
        person=person.person_id,
        name=person.name,
        team=policy.team_of(person.person_id),
        runbook=book.runbook_id,
        step=number,
        title=template.title,
        action=template.action,
        tier=_tier(config, actions, template).name,
        plan_tier=item.tier.name,
        service=service.name,
        environment=environment,
        at=question.at,
        mode=service.mode,
        verdict=verdict,
        why=why,
        roles=tuple(_roles(person, service)),
        rules=tuple(_rules(config.policy, item)),
        count=requirement.count if requirement else None,
        other_team=bool(requirement and requirement.other_team),
        step_up=bool(requirement and requirement.step_up),
        expires_min=_minutes(requirement.expires) if requirement else None,
        start_within_min=_minutes(requirement.start_within) if requirement else None,
        who=policy.who(item, _incident(service, None, question.at)),
        freeze=policy.frozen(item, question.at),
        limits=tuple(_limits(config.limits, item, number, acts, question.at)),
        by_itself=_by_itself(policy, item, service, question.at),
    )


def _person(config: Config, user: str) -> Person:
    known = {each.id: each.id for each in config.people} | {each.name.lower(): each.id for each in config.people}
    found = known.get(user) or known.get(user.lower())
    if found is None:
        ids = [each.id for each in config.people]
        near = did_you_mean(user, known, f"there are {', '.join(ids) or 'none'}")
        raise WatchkeeperError(f"nobody is called {user!r} in {config.path}; {near}")
    return person_of(config, found)


def _named(name: str, known: Mapping[str, Runbook], kind: str) -> Runbook:
    if name not in known:
        raise WatchkeeperError(f"there is no {kind} {name!r}; {did_you_mean(name, known, 'runbooks/ holds them')}")
    return known[name]


def _step(book: Runbook, wanted: str) -> tuple[int, StepTemplate]:
    titles = [each.title for each in book.steps]
    for number, step in enumerate(book.steps, 1):
        if wanted in (str(number), step.title) or wanted.lower() == step.title.lower():
            return number, step
    if not titles:
        raise WatchkeeperError(f"{book.runbook_id} has no step that can be run; `watchkeeper runbook lint` says why")
    near = did_you_mean(wanted, titles, "")
    listed = ", ".join(f"{number} {title}" for number, title in enumerate(titles, 1))
    raise WatchkeeperError(f"{book.runbook_id} has no step {wanted!r}; {f'{near} ' if near else ''}There are: {listed}")


def _service(config: Config, book: Runbook, wanted: str | None) -> Service:
    names = [each.name for each in config.services]
    if wanted is not None:
        if (found := config.service(wanted)) is None:
            near = did_you_mean(wanted, names, f"there are {', '.join(names) or 'none'}")
            raise WatchkeeperError(f"there is no service {wanted!r} in {config.path}; {near}")
        return found
    fitting = [each for each in config.services if not book.services or each.name in book.services]
    if len(fitting) != 1:
        raise WatchkeeperError(f"name the service: --service {' | '.join(names) or 'NAME (none is configured)'}")
    return fitting[0]


def _plan(
    config: Config, book: Runbook, actions: Mapping[str, Action], service: str, environment: str, at: datetime
) -> Plan:
    """A plan as the policy looks at it: tiers and actions, without parameters or targets, which are not known yet."""
    steps = [
        PlannedStep(
            index=index,
            title=each.title,
            action=each.action,
            tier=_tier(config, actions, each),
            target=f"?/{index}",
            params={},
            before={},
            effect="",
            undo=None,
            verify=(),
            settle_s=0.0,
        )
        for index, each in enumerate(book.steps)
    ]
    return Plan(
        plan_id="",
        incident_id="",
        service=service,
        environment=environment,
        runbook_id=book.runbook_id,
        runbook_revision=book.revision,
        title=book.title,
        steps=tuple(steps),
        policy_version=config.policy_version,
        nonce="",
        made_at=at,
        expires_at=at,
    )


def _tier(config: Config, actions: Mapping[str, Action], step: StepTemplate) -> Tier:
    """The action's; where an entry of the configuration chooses it and the step names one, that entry's."""
    action = actions[step.action]
    if isinstance(action, TieredAction):
        entries: tuple[Command | HttpEndpoint | Workflow | AutomationAction, ...]
        entries = (*config.commands, *config.http_endpoints, *config.workflows, *config.automation_actions)
        tiers = {each.name: Tier[each.tier] for each in entries}
        named = [tiers[value] for value in step.params.values() if isinstance(value, str) and value in tiers]
        return max(named, default=action.tier)
    return action.tier


def _verdict(policy: Policy, person: Person, item: Plan, service: Service, at: datetime) -> tuple[str, str]:
    try:
        granted = policy.grant(person, item, _incident(service, None, at))
    except NotAllowedError as refusal:
        try:
            policy.grant(person, item, _incident(service, person.pagerduty, at))
        except NotAllowedError:
            return "no", str(refusal)
        return "on_call", f"as {ON_CALL}, only while PagerDuty has assigned the incident to them ({person.pagerduty})"
    return "yes", f"as {granted.role}"


def _by_itself(policy: Policy, item: Plan, service: Service, at: datetime) -> str:
    """Why it does not run without a person; "" when it does."""
    try:
        policy.grant(ITSELF, item, _incident(service, None, at))
    except NotAllowedError as refusal:
        return str(refusal)
    return ""


def _incident(service: Service, assignee: str | None, at: datetime) -> Incident:
    return Incident(
        incident_id="",
        number=None,
        title="",
        state=IncidentState.TRIGGERED,
        state_at=at,
        created_at=at,
        pagerduty_service="",
        pagerduty_service_name="",
        service=service.name,
        url="",
        urgency="",
        assignees={assignee: ""} if assignee else {},
        run=1,
        revision=1,
    )


def _roles(person: Person, service: Service) -> Iterator[RoleLine]:
    for role in sorted(person.roles):
        yield RoleLine(role=role, source=f"roles of [[person]] {person.person_id}")
    if person.person_id in service.owners:
        yield RoleLine(role=OWNER, source=f"owners of [[service]] {service.name}")
    for role, people in service.approvers.items():
        if person.person_id in people:
            yield RoleLine(role=role, source=f"[service.approvers] of {service.name}")
    if person.pagerduty is not None and ON_CALL not in person.roles:
        source = f"only while PagerDuty has assigned the incident to {person.pagerduty}"
        yield RoleLine(role=ON_CALL, source=source)


def _rules(rules: Iterable[PolicyRule], item: Plan) -> Iterator[RuleLine]:
    decided = 0
    for number, rule in enumerate(rules, 1):
        count = max(rule.count, AT_LEAST_FOR_R3) if rule.tier == "R3" else rule.count
        people = "1 person" if count == 1 else f"{count} people"
        text = f"{rule.tier} {rule.environment} {rule.service}: {people} of {', '.join(rule.roles)}"
        why = _mismatch(rule, item) or (f"rule {decided} matched before" if decided else "the first that matches")
        decides = not decided and not _mismatch(rule, item)
        decided = number if decides else decided
        yield RuleLine(number=number, rule=text, decides=decides, why=why)


def _mismatch(rule: PolicyRule, item: Plan) -> str:
    if rule.tier != item.tier.name:
        return f"is for {rule.tier}, not {item.tier.name}"
    if rule.environment not in ("*", item.environment):
        return f"is for {rule.environment}, not {item.environment}"
    return "" if rule.service in ("*", item.service) else f"is for {rule.service}, not {item.service}"


def _limits(
    limits: Sequence[Limit], item: Plan, number: int, acts: Sequence[Act] | None, at: datetime
) -> Iterator[LimitLine]:
    step = item.steps[number - 1]
    for limit in limits:
        about = {"tier": step.tier.name, "environment": item.environment, "service": item.service}
        if not limit.covers(**about, action=step.action):
            continue
        known = [each for each in acts or () if counts(limit, each) and at - HOUR < each.at <= at]
        targets = dict.fromkeys(each.target for each in known)
        yield LimitLine(
            limit=described(limit),
            per_hour=limit.per_hour,
            per_target_per_hour=limit.per_target_per_hour,
            used=None if acts is None else len(known),
            used_by_target={target: sum(each.target == target for each in known) for target in targets},
        )


def _minutes(value: timedelta) -> float:
    return value.total_seconds() / 60
