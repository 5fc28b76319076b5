"""The one place that decides who may approve what. Pure: values in, an answer or a refusal out; denies by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot import narrate
from bot.config import Config, PolicyRule, Service
from bot.config.automatic import MOST_BY_ITSELF, is_limited
from bot.given_roles import EVERYWHERE, GivenRoles
from bot.incidents import Incident, NotAllowedError, Person
from bot.limits import Act, over_limit
from bot.quorum import Requirement, Voice
from runbooks.engine.values import Plan, Tier

ON_CALL = "on-call"
SECONDARY = "secondary"
OWNER = "service-owner"
PLATFORM = "platform"


POLICY = "policy"
"""The actor on record who approves in mode auto; nobody can sign in as this."""

AUTO = "auto"
ITSELF = Person(person_id=POLICY, name="the policy", channel=POLICY)

AT_LEAST_FOR_R3 = 2
"""People, one of them from another team, whatever a rule says."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Somebody may decide, in which role they do, and what the plan needs besides them."""

    person: Person
    role: str
    requirement: Requirement


class Policy:
    """
    Maps (tier, environment, service) to roles and a count, by the first rule that matches in file order.

    No rule, an unknown person, a role that nobody gave: refused. The tier is the action's own; nothing that a
    runbook, an alert or a request says can lower it.
    """

    def __init__(self, config: Config, given: GivenRoles | None = None) -> None:
        """`given` is for words alone, about people who are not here: who is here brings what they were given."""
        self._given = given or GivenRoles()
        self._rules: Sequence[PolicyRule] = config.policy
        self._config = config
        self.version = config.policy_version

    def requirement(self, plan: Plan) -> Requirement | None:
        """What the first matching rule asks for; None when no rule matches, so that nobody may."""
        rule = self._rule(plan.tier, plan.environment, plan.service)
        if rule is None:
            return None
        is_final = plan.tier is Tier.R3
        service = self._config.service(plan.service)
        home = [service.team if service else ""]
        home += [self.team_of(plan.requester)] if plan.requester else []
        return Requirement(
            roles=tuple(rule.roles),
            count=max(rule.count, AT_LEAST_FOR_R3) if is_final else rule.count,
            requester=plan.requester,
            other_team=rule.other_team or is_final,
            step_up=is_final,
            home_teams=frozenset(home),
            expires=timedelta(minutes=rule.expires_min),
            start_within=timedelta(minutes=rule.start_within_min),
        )

    def timed(self, plan: Plan) -> Plan:
        """The plan with the time to decide that its rule gives; to be asked before its digest counts for anything."""
        requirement = self.requirement(plan)
        return plan if requirement is None else replace(plan, expires_at=plan.made_at + requirement.expires)

    def voice(self, person_id: str, role: str, *, stepped_up: bool = False) -> Voice:
        """An approval of this person in this role, as it counts now."""
        return Voice(person_id=person_id, role=role, team=self.team_of(person_id), stepped_up=stepped_up)

    def team_of(self, person_id: str) -> str:
        """ "" for who has none in the configuration, or is not in it."""
        found = self._config.person(person_id)
        return found.team if found else ""

    def _rule(self, tier: Tier, environment: str, service: str) -> PolicyRule | None:
        for rule in self._rules:
            if rule.tier == tier.name and rule.environment in ("*", environment) and rule.service in ("*", service):
                return rule
        return None

    def roles_of(self, person: Person, incident: Incident) -> frozenset[str]:
        """Roles from the configuration, from the service, and `on-call` for whom PagerDuty assigned this incident."""
        service = self._service(incident)
        everywhere = {role for where, role in person.given if where == EVERYWHERE}
        roles = set(person.roles) | everywhere if service is None else _standing_roles(person, service)
        if person.pagerduty is not None and person.pagerduty in incident.assignees:
            roles.add(ON_CALL)
        return frozenset(roles)

    def grant(self, person: Person, plan: Plan, incident: Incident) -> Grant:
        """May this person decide on this plan? Raises NotAllowedError, whose message says who may."""
        self._refuse_by_mode(plan)
        if person.person_id == POLICY:
            return self._grant_itself(plan)
        requirement = self.requirement(plan)
        if requirement is None:
            raise NotAllowedError(
                f"No policy rule lets anybody approve a {plan.tier.name} action for {plan.service} in "
                f"{plan.environment}. Add a [[policy]] entry to the configuration."
            )
        if plan.requester == person.person_id:
            raise NotAllowedError("You asked for this fix, so somebody else has to approve it.")
        fitting = [role for role in requirement.roles if role in self.roles_of(person, incident)]
        if not fitting:
            raise NotAllowedError(f"This fix needs {self.who(plan, incident)}.")
        return Grant(person=person, role=fitting[0], requirement=requirement)

    def _refuse_by_mode(self, plan: Plan) -> None:
        service = self._config.service(plan.service)
        if service is None or service.mode == "observe":
            raise NotAllowedError(f"{plan.service} is in mode observe: nothing is changed from here.")
        if service.mode not in ("approve", AUTO):
            raise NotAllowedError(narrate.SHOWN_ONLY.format(service=plan.service))

    def _grant_itself(self, plan: Plan) -> Grant:
        """Mode auto: every step is of R0 or R1, named by the service and limited. Raises NotAllowedError."""
        service = self._config.service(plan.service)
        if service is None or service.mode != AUTO or service.environment != plan.environment:
            raise NotAllowedError(f"{plan.service} is not in mode auto.")
        if plan.requester is not None or plan.undoes is not None or not plan.steps:
            raise NotAllowedError("What a person asked for, a person approves.")
        for step in plan.steps:
            if step.tier > MOST_BY_ITSELF:
                raise NotAllowedError(f"{step.action} is {step.tier.name}, which a person has to approve.")
            if step.action not in service.auto:
                raise NotAllowedError(f"{step.action} is not among the actions that {plan.service} takes by itself.")
            if not is_limited(self._config.limits, tier=step.tier.name, service=service, action=step.action):
                raise NotAllowedError(f"Nothing limits how often {step.action} runs by itself.")
        return Grant(person=ITSELF, role=AUTO, requirement=Requirement(roles=(AUTO,), count=1))

    def frozen(self, plan: Plan, now: datetime) -> str:
        """Why no fix like this is approved or started now, and until when; "" when it may. Undos and R0 always may."""
        if plan.undoes is not None:
            return ""
        tiers = frozenset(step.tier.name for step in plan.steps)
        found = [
            (until, freeze)
            for freeze in self._config.freezes
            if freeze.concerns(plan.service, plan.environment, tiers) and (until := freeze.until(now))
        ]
        if not found:
            return ""
        until, freeze = max(found, key=lambda each: each[0])
        return narrate.frozen(plan.service, freeze.name, freeze.reason, until)

    def over_limit(self, plan: Plan, past: Sequence[Act], now: datetime) -> str:
        """Which limit it would break after all that started in the last hour, and until when; "" when none."""
        return over_limit(self._config.limits, plan, past, now)

    def may_act(self, person: Person, incident: Incident) -> None:
        """
        May this person acknowledge, resolve, re-diagnose or request? Anybody with a role here.

        Raises NotAllowedError.
        """
        if not self.roles_of(person, incident):
            raise NotAllowedError(
                "You have no role for this service. Whoever keeps the configuration can give you one."
            )

    def may_stop(self, person: Person, incidents: Sequence[Incident]) -> None:
        """
        May this person stop everything? Anybody with a role, for any service or any of these incidents.

        Raises NotAllowedError.
        """
        services = any(_standing_roles(person, service) for service in self._config.services)
        if not (person.roles or services or any(self.roles_of(person, incident) for incident in incidents)):
            raise NotAllowedError("You have no role here. Whoever keeps the configuration can give you one.")

    def may_release(self, person: Person) -> None:
        """
        May this person end a stop? Who has a role that approves R2 for some service; being on call does not count.

        Where no rule of the policy names R2: the service's owners and the platform team. Raises NotAllowedError.
        """
        self._refuse_below_r2(person, "end the stop")

    def may_adopt(self, person: Person) -> None:
        """May this person let a learned ranking count, or take it back? As for the end of a stop."""
        self._refuse_below_r2(person, "decide on a learned ranking")

    def _refuse_below_r2(self, person: Person, what: str) -> None:
        wanted: set[str] = set()
        for service in self._config.services:
            rule = self._rule(Tier.R2, service.environment, service.name)
            roles = set(rule.roles if rule else (OWNER, PLATFORM)) - {ON_CALL, SECONDARY}
            if roles & _standing_roles(person, service):
                return
            wanted |= roles
        raise NotAllowedError(f"Only who may approve an R2 fix may {what}: {' or '.join(sorted(wanted))}.")

    def may_break_glass(self, person: Person, plan: Plan, incident: Incident) -> str:
        """
        May this person start this plan alone, were it an emergency? The role in which they may.

        What nobody may approve nobody starts alone either; asking for the fix does not matter here. Raises
        NotAllowedError.
        """
        self._refuse_by_mode(plan)
        if self.requirement(plan) is None:
            raise NotAllowedError(f"Nobody may approve this for {plan.service}, so nobody starts it alone.")
        held = self.roles_of(person, incident)
        for rule in self._config.break_glass:
            if rule.environment in ("*", plan.environment) and rule.service in ("*", plan.service):
                if fitting := [role for role in rule.roles if role in held]:
                    return fitting[0]
                raise NotAllowedError(f"Only {' or '.join(rule.roles)} may break the glass for {plan.service}.")
        raise NotAllowedError(f"Nobody may break the glass for {plan.service}: no [[break_glass]] entry names it.")

    def who(self, plan: Plan, incident: Incident) -> str:
        """Who may approve, in words: how many, the roles, and the people who have them now."""
        requirement = self.requirement(plan)
        count = "" if requirement is None or requirement.count == 1 else f"{requirement.count} of: "
        return count + self.approvers(plan, incident)

    def approvers(self, plan: Plan, incident: Incident) -> str:
        """The same without how many of them."""
        requirement = self.requirement(plan)
        if requirement is None:
            return "a policy rule (there is none for it)"
        named = []
        for role in requirement.roles:
            people = [
                each.name
                for each in self._config.people
                if each.id != plan.requester and role in self.roles_of(self._as_given(each.id), incident)
            ]
            lost = self._given.lost(role, plan.service)
            has = [", ".join(people) or "nobody has this role", *([lost] if lost else [])]
            named.append(f"{role} ({'; '.join(has)})")
        other = ", one of them of another team" if requirement.other_team else ""
        return " or ".join(named) + other

    def _as_given(self, person_id: str) -> Person:
        return replace(person_of(self._config, person_id), given=self._given.of(person_id))

    def _service(self, incident: Incident) -> Service | None:
        return self._config.service(incident.service) if incident.service else None


def _standing_roles(person: Person, service: Service) -> set[str]:
    """What somebody is for a service whoever is on call."""
    roles = set(person.roles) | {role for where, role in person.given if where in (EVERYWHERE, service.name)}
    if person.person_id in service.owners:
        roles.add(OWNER)
    return roles | {role for role, people in service.approvers.items() if person.person_id in people}


def person_of(config: Config, person_id: str) -> Person:
    """The configured person as a value of the domain. Raises NotAllowedError when the configuration has no such."""
    found = config.person(person_id)
    if found is None:
        raise NotAllowedError(f"{person_id} is not in the configuration any more.")
    return Person(
        person_id=found.id,
        name=found.name,
        pagerduty=found.pagerduty,
        email=found.email,
        roles=frozenset(found.roles),
        slack_user=found.slack[0].partition("/")[2] if found.slack else "",
    )


def accounts(config: Config) -> list[tuple[Person, tuple[tuple[str, str], ...]]]:
    """Every person with their Slack accounts as (team, user), for the table of people."""
    return [
        (
            person_of(config, each.id),
            tuple((team, user) for team, _, user in (account.partition("/") for account in each.slack)),
        )
        for each in config.people
    ]
