"""Approval: who decided what about which exact plan, and whether that still holds when the plan starts."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from bot import narrate
from bot.incidents import (
    AlreadyDecidedError,
    Incident,
    IncidentState,
    NotAllowedError,
    Person,
    PlanState,
    StaleError,
)
from bot.kill_switch import StopFile
from bot.policy import ITSELF, POLICY, Grant, Policy
from bot.quorum import Requirement, Voice, lacking
from bot.standing import Accounts, NobodySays, refuse_lost
from bot.step_up import Proof, Unproven
from bot.store.break_glass import BREAK_GLASS
from bot.store.incidents import Incidents
from bot.store.people import PeopleTable
from bot.store.plan_rows import Approval, PlanRow
from bot.store.plans import Plans
from runbooks.engine.values import Plan

ACT_WITHIN = timedelta(hours=1)
"""However long the process was away: no step begins later than this after the last person's word."""

_LEFT_ALONE = frozenset(
    {PlanState.ALTERNATIVE, PlanState.PROPOSED, PlanState.SUPERSEDED, PlanState.EXPIRED, PlanState.STALE}
)
"""Fixes that nothing came of: none of them was begun, and nobody refused one."""


async def _nobody_verifies() -> str:
    return "Nobody verifies the record here, so nothing runs by itself."


class Approvals:
    """
    Decides on plans.

    A decision binds the plan's SHA-256. It is checked twice: at the click, and again when the plan starts, since a
    person can lose a role, the policy can change and the incident can end in between.
    """

    def __init__(
        self,
        *,
        plans: Plans,
        incidents: Incidents,
        people: PeopleTable,
        policy: Policy,
        proof: Proof | None = None,
        accounts: Accounts | None = None,
        stop_file: StopFile | None = None,
        record_trouble: Callable[[], Awaitable[str]] = _nobody_verifies,
    ) -> None:
        """`record_trouble` says why the record cannot be trusted now, "" when it can; mode auto asks it."""
        self._record_trouble = record_trouble
        self._proof = proof or Unproven()
        self._accounts = accounts or NobodySays()
        self._stop_file = stop_file or StopFile(None)
        self._plans = plans
        self._incidents = incidents
        self._people = people
        self._policy = policy

    async def approve(
        self, plan_id: str, *, by: Person, now: datetime, digest: str | None = None, code: str | None = None
    ) -> bool:
        """
        Approve exactly this plan; True when that was the last approval it needed.

        `digest` is the hash of what the person read, where they came by a way that says so; `code` the one-time code
        that an R3 plan needs. Raises NotAllowedError, AlreadyDecidedError, StaleError (StoppedError while everything
        is stopped), StepUpNeededError, StepUpRefusedError, NotFoundError.
        """
        self._stop_file.refuse_if_there()
        return await self._decide(plan_id, "approve", by=by, now=now, digest=digest, code=code)

    async def deny(self, plan_id: str, *, by: Person, now: datetime, digest: str | None = None) -> None:
        """Refuse the plan for good. Whoever may approve may deny. Raises as `approve` does."""
        await self._decide(plan_id, "deny", by=by, now=now, digest=digest)

    async def revoke(self, plan_id: str, *, by: Person, now: datetime, digest: str | None = None) -> None:
        """
        Take the approval back while the plan has not begun: whoever gave it, or who may give it.

        The same steps are offered again as a plan of their own, which nobody has approved. Raises as `approve` does,
        and AlreadyDecidedError when it has begun.
        """
        row = await self._plans.get(plan_id)
        role = next((each.role for each in row.approvals if each.person_id == by.person_id), None)
        if role is None:
            role = self._policy.grant(by, row.plan, await self._incidents.get(row.plan.incident_id)).role
        if digest not in (None, row.digest):
            raise StaleError("This is not the fix that you read; look at it again.")
        if row.state is not PlanState.APPROVED:
            raise AlreadyDecidedError("Only an approved fix that has not begun can be revoked; see the card.")
        again = replace(row.plan, plan_id=f"plan-{secrets.token_hex(8)}", nonce=secrets.token_hex(16))
        how = {"actor": by.person_id, "role": role, "channel": by.channel, "digest": row.digest, "again": again.plan_id}
        await self._plans.replace(row, again, now=now, revoked=how)

    async def _decide(
        self, plan_id: str, decision: str, *, by: Person, now: datetime, digest: str | None, code: str | None = None
    ) -> bool:
        row = await self._plans.get(plan_id)
        incident = await self._incidents.get(row.plan.incident_id)
        grant = self._policy.grant(by, row.plan, incident)
        if decision == "approve":
            await self._refuse_unfit_time(row.plan, grant, now)
        if digest not in (None, row.digest):
            raise StaleError("This is not the fix that you read; look at it again.")
        self.refuse_stale(row, incident, now)
        step_up = None
        if decision == "approve" and grant.requirement.step_up:
            step_up = await self._proof.prove(by, code, plan_id=plan_id, digest=row.digest, now=now)
        return await self._plans.decide(
            row,
            decision,
            by=by.person_id,
            channel=by.channel,
            role=grant.role,
            suffice=lambda approvals: not self._lacking(grant.requirement, approvals),
            start_by=now + grant.requirement.start_within,
            now=now,
            step_up=step_up,
        )

    async def _refuse_unfit_time(self, item: Plan, grant: Grant, now: datetime) -> None:
        """Raises NotAllowedError in a freeze, above a limit, and for the policy itself without a sound record."""
        why = self._policy.frozen(item, now)
        why = why or self._policy.over_limit(item, await self._plans.recent_acts(now=now, but=item.plan_id), now)
        if grant.person.person_id == POLICY:
            why = why or await self._for_people(item) or await self._record_trouble()
        if why:
            raise NotAllowedError(why)

    async def _for_people(self, item: Plan) -> str:
        """
        Why the policy has no word in this incident any more, "" while it has.

        It acts once: what did not help it would start again and again, and it overrules nobody who denied, stopped or
        undid a fix, or chose another one.
        """
        rows = [row for row in await self._plans.of_incident(item.incident_id) if row.plan.plan_id != item.plan_id]
        is_theirs = any(row.state not in _LEFT_ALONE or row.plan.requester is not None for row in rows)
        return narrate.FOR_PEOPLE if is_theirs else ""

    def _lacking(self, requirement: Requirement, approvals: Sequence[Approval]) -> str:
        return lacking(requirement, [self._voice(each, each.role) for each in approvals])

    def _voice(self, approval: Approval, role: str) -> Voice:
        return self._policy.voice(approval.person_id, role, stepped_up=approval.step_up is not None)

    def refuse_stale(self, row: PlanRow, incident: Incident, now: datetime) -> None:
        """Raises StaleError when nobody may decide on it any more."""
        if row.plan.digest != row.digest:
            raise StaleError("The stored plan does not match its own hash; it will not run.")
        if now > row.plan.expires_at:
            raise StaleError("This fix expired before anybody decided. Diagnose again for a fresh one.")
        if row.plan.policy_version != self._policy.version:
            raise StaleError("The approval policy changed since this fix was made. Diagnose again for a fresh one.")
        if incident.state is IncidentState.RESOLVED and row.plan.undoes is None:
            raise StaleError("The incident is resolved; nothing needs to be fixed.")

    async def request(self, plan_id: str, *, by: Person, now: datetime) -> None:
        """Put another possible fix on the table; whoever asks for it cannot approve it. Raises as `approve` does."""
        row = await self._plans.get(plan_id)
        incident = await self._incidents.get(row.plan.incident_id)
        self._policy.may_act(by, incident)
        asked = self._policy.timed(
            replace(
                row.plan,
                requester=by.person_id,
                nonce=secrets.token_hex(16),
                made_at=now,
                expires_at=now + (row.plan.expires_at - row.plan.made_at),
            )
        )
        if incident.state is IncidentState.RESOLVED:
            raise StaleError("The incident is resolved; nothing needs to be fixed.")
        await self._plans.request(asked, by=by.person_id, now=now)

    async def still_hold(self, row: PlanRow, *, said_at: datetime | None = None, now: datetime) -> None:
        """
        Do the approvals carry the plan now? Asked when it starts, and again before each of its acts.

        `said_at` is when a person last spoke for it after the approval (settled a doubt). Raises StaleError with the
        reason when they do not.
        """
        self._plans.seals.refuse_unsealed(row)
        spoken = max([each.at for each in row.approvals] + ([said_at] if said_at else []), default=row.plan.made_at)
        if now - spoken > ACT_WITHIN:
            raise StaleError("nobody has said a word for it in the last hour")
        incident = await self._incidents.get(row.plan.incident_id)
        if row.plan.digest != row.digest:
            raise StaleError("the stored plan does not match its own hash")
        if row.plan.policy_version != self._policy.version:
            raise StaleError("the approval policy changed after the approval")
        if incident.state is IncidentState.RESOLVED and row.plan.undoes is None:
            raise StaleError("the incident was resolved before the fix could start")
        if row.state not in (PlanState.APPROVED, PlanState.RUNNING):
            raise StaleError("it is not approved")
        if row.state is PlanState.APPROVED and not _is_alone(row) and (frozen := self._policy.frozen(row.plan, now)):
            raise StaleError(frozen.rstrip("."))
        if lack := await self._lack(row, incident):
            raise StaleError(f"it does not have the approvals it needs: {lack}")

    async def refuse_lost(self, row: PlanRow, *, now: datetime) -> None:
        """
        Would Slack still let everybody click who approved it? Asked beside `still_hold`, but not while a step waits,
        since Slack may take seconds to answer. Raises StaleError.
        """
        for each in row.approvals:
            if each.decision != "deny" and each.digest == row.digest and each.person_id != POLICY:
                person = await self._people.get(each.person_id)
                if person is None:
                    raise StaleError(f"{each.person_id} approved it and is not in the configuration any more")
                await refuse_lost(self._accounts, person, each, row.plan.tier, now)

    async def begin(self, row: PlanRow, *, now: datetime) -> bool:
        """
        Start it as `Plans.begin` does, within the limits: they are counted in the transaction that starts it. Broken
        glass goes past them.
        """
        if _is_alone(row):
            return await self._plans.begin(row, now=now, bound=lambda _: "")
        return await self._plans.begin(row, now=now, bound=partial(self._policy.over_limit, row.plan, now=now))

    async def _lack(self, row: PlanRow, incident: Incident) -> str:
        """What the approvals of people who still may lack now. Raises StaleError when one of them may not any more."""
        requirement = self._policy.requirement(row.plan)
        if _is_alone(row):
            return await self._lack_alone(row, incident)
        voices: list[Voice] = []
        for approval in row.approvals:
            if approval.decision != "approve" or approval.digest != row.digest:
                continue
            by_policy = approval.person_id == POLICY
            person = ITSELF if by_policy else await self._people.get(approval.person_id)
            if person is None:
                raise StaleError(f"{approval.person_id} approved it and is not in the configuration any more")
            try:
                grant = self._policy.grant(person, row.plan, incident)
            except NotAllowedError as refusal:
                raise StaleError(f"{person.name} may not approve it any more: {refusal}") from refusal
            if by_policy and (trouble := await self._record_trouble()):
                raise StaleError(trouble)
            if by_policy and row.state is PlanState.APPROVED and (theirs := await self._for_people(row.plan)):
                raise StaleError(theirs)
            requirement = grant.requirement
            voices.append(self._voice(approval, grant.role))
        return lacking(requirement, voices) if requirement else "no rule of the policy fits it"

    async def _lack_alone(self, row: PlanRow, incident: Incident) -> str:
        """The same for who broke the glass; approvals of others beside it do not count. Raises StaleError."""
        [alone] = [each for each in row.approvals if each.decision == BREAK_GLASS]
        person = await self._people.get(alone.person_id)
        if person is None:
            raise StaleError(f"{alone.person_id} broke the glass and is not in the configuration any more")
        try:
            self._policy.may_break_glass(person, row.plan, incident)
        except NotAllowedError as refusal:
            raise StaleError(f"{person.name} may not break the glass any more: {refusal}") from refusal
        return "" if alone.step_up is not None else f"{person.name} did not confirm it outside Slack"


def _is_alone(row: PlanRow) -> bool:
    """Did somebody break the glass for exactly this plan?"""
    return any(each.decision == BREAK_GLASS and each.digest == row.digest for each in row.approvals)
