"""
Other values for a plan's parameters. What comes of them is a new plan: the old one, approved or not, is void.

The values are checked at the desk, where a person can mend them, and again by whoever makes the new plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bot.incidents import Choices, IncidentState, Person, PlanState, StaleError, WatchkeeperError
from bot.policy import Policy
from bot.redact import safe_values
from bot.store.incidents import Incidents
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from runbooks.engine.chosen import WrongValueError, as_text, changed
from runbooks.engine.declared import Plain
from runbooks.engine.values import Runbook


class WrongValuesError(WatchkeeperError):
    """Values that may not be used; `faults` says of each parameter why, where it is one parameter's fault."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {fault}" for name, fault in faults.items()) + ".")
        self.faults = dict(faults)


class Narrowing:
    """Says what may be changed in a plan, by whom, and to what. Reads only."""

    def __init__(
        self, *, incidents: Incidents, plans: Plans, policy: Policy, runbooks: Callable[[], Mapping[str, Runbook]]
    ) -> None:
        self._incidents = incidents
        self._plans = plans
        self._policy = policy
        self._runbooks = runbooks

    async def choices(self, plan_id: str, by: Person, *, now: datetime) -> Choices:
        """What this person may choose in this plan. Raises NotAllowedError, StaleError, NotFoundError."""
        row = await self._plans.get(plan_id)
        runbook = await self.runbook_of(row, by, now=now)
        return Choices(
            plan_id=plan_id,
            digest=row.digest,
            title=row.plan.title,
            declared=runbook.params,
            values={name: as_text(value) for name, value in row.plan.params.items()},
        )

    async def runbook_of(self, row: PlanRow, by: Person, *, now: datetime) -> Runbook:
        """
        The runbook whose parameters may be changed. Raises NotAllowedError, StaleError.

        Whoever may ask for another fix may change an offered one; to change an approved one takes back its approval, so
        it needs the right to approve.
        """
        incident = await self._incidents.get(row.plan.incident_id)
        self._policy.may_act(by, incident)
        if row.state is PlanState.APPROVED:
            self._policy.grant(by, row.plan, incident)
        elif row.state is not PlanState.PROPOSED:
            raise StaleError("Only a fix that waits for approval, or for its start, can be changed; see the card.")
        if incident.state is IncidentState.RESOLVED:
            raise StaleError("The incident is resolved; nothing needs to be fixed.")
        if now > row.plan.expires_at:
            raise StaleError("This fix expired. Diagnose again for a fresh one.")
        runbook = self._runbooks().get(row.plan.runbook_id)
        if runbook is None or runbook.revision != row.plan.runbook_revision:
            raise StaleError("The runbook changed since this fix was made. Diagnose again for a fresh one.")
        if not runbook.params or row.plan.undoes is not None:
            raise StaleError("This fix has no values to choose.")
        return runbook

    async def checked(
        self, plan_id: str, texts: Mapping[str, str], by: Person, *, digest: str | None, now: datetime
    ) -> tuple[PlanRow, dict[str, Plain]]:
        """
        The plan and all its values after the change. `digest` is the hash of what the person read.

        Raises WrongValuesError, NotAllowedError, StaleError, NotFoundError.
        """
        row = await self._plans.get(plan_id)
        runbook = await self.runbook_of(row, by, now=now)
        if digest not in (None, row.digest):
            raise StaleError("This is not the fix that you read; look at it again.")
        is_approved = row.state is PlanState.APPROVED
        try:
            values = changed(runbook.params, row.plan.params, texts, is_approved=is_approved)
        except WrongValueError as error:
            raise WrongValuesError(error.faults) from error
        if values == row.plan.params:
            raise StaleError("These are the values that the fix has already.")
        _refuse_secrets(values)
        return row, values


def _refuse_secrets(values: Mapping[str, Any]) -> None:
    """A plan is shown and kept with all its values, for good."""
    faults = {
        name: "looks like a credential, and a plan is shown to everybody"
        for name, value in values.items()
        if safe_values(value) != value
    }
    if faults:
        raise WrongValuesError(faults)
