"""
Breaking the glass: one person starts a fix alone, in an emergency, and another one reviews it afterwards.

It stands for the quorum alone. The plan's hash, its clocks, the kill switch, the locks and the look at the state before
each step stay as they are; so do the role, which the configuration names for this, and the one-time code.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import quote

from bot.approvals import Approvals
from bot.incidents import Person, StaleError, StepUpNeededError
from bot.kill_switch import StopFile
from bot.policy import Policy
from bot.redact import safe_text
from bot.step_up import Proof
from bot.store.break_glass import BrokenGlass
from bot.store.incidents import Incidents
from bot.store.plans import Plans

MOST_REASON = 300
_LONGEST_QUERY = 1500
START_WITHIN = timedelta(minutes=10)
"""What somebody starts alone starts by then or not at all."""


class BreakGlass:
    """The way past the quorum, and past nothing else."""

    def __init__(
        self,
        *,
        glass: BrokenGlass,
        approvals: Approvals,
        plans: Plans,
        incidents: Incidents,
        policy: Policy,
        proof: Proof,
        stop_file: StopFile,
    ) -> None:
        self._glass = glass
        self._approvals = approvals
        self._plans = plans
        self._incidents = incidents
        self._policy = policy
        self._proof = proof
        self._stop_file = stop_file

    async def start(
        self, plan_id: str, *, by: Person, reason: str, now: datetime, digest: str | None, code: str | None
    ) -> int:
        """
        Start exactly this plan alone; returns the id of the review that is owed.

        Raises NotAllowedError, AlreadyDecidedError, StaleError (StoppedError), NotFoundError, StepUpRefusedError, and
        without a code StepUpNeededError, whose page asks for it.
        """
        self._stop_file.refuse_if_there()
        row = await self._plans.get(plan_id)
        incident = await self._incidents.get(row.plan.incident_id)
        role = self._policy.may_break_glass(by, row.plan, incident)
        if digest not in (None, row.digest):
            raise StaleError("This is not the fix that you read; look at it again.")
        self._approvals.refuse_stale(row, incident, now)
        reason = safe_text(reason).strip()
        if len(reason) > MOST_REASON:
            raise StaleError(f"The reason has {len(reason)} characters, and {MOST_REASON} fit the notice: shorten it.")
        if not reason:
            raise StaleError("Breaking the glass needs a reason, for whoever reviews it.")
        try:
            step_up = await self._proof.prove(by, code, plan_id=plan_id, digest=row.digest, now=now, deed="break-glass")
        except StepUpNeededError as asked:
            quoted = quote(reason, safe="")
            query = f"?reason={quoted}" if len(quoted) <= _LONGEST_QUERY else ""  # Slack drops links that are longer
            page = f"{asked.url}{query}#break-glass" if asked.url else ""
            raise StepUpNeededError(str(asked), url=page) from asked
        return await self._glass.start_alone(
            row,
            by=by.person_id,
            name=by.name,
            role=role,
            reason=reason,
            step_up=step_up,
            channel=by.channel,
            start_by=now + START_WITHIN,
            now=now,
        )
