"""
The seal on each approval: an HMAC over who decided what about which exact plan, with a key that no database holds.

Whoever administers the database can insert a row that says that somebody approved. They cannot seal it, and what is
not sealed starts nothing.
"""

from __future__ import annotations

import hmac
from dataclasses import asdict, replace
from datetime import UTC
from typing import Any

from bot.incidents import StaleError
from bot.proof import canonical
from bot.store.plan_rows import Approval, PlanRow


class ApprovalSeals:
    """Seals and verifies with one key, which is the same in every process of a deployment."""

    def __init__(self, key: bytes = b"") -> None:
        """Without a key seals are only as good as a checksum; `bot.parts` passes the true one."""
        self._key = key

    def row(self, plan_id: str, decision: Approval) -> dict[str, Any]:
        """The row of the table `approval`, sealed."""
        return {"plan_id": plan_id, **asdict(replace(decision, seal=self._of(plan_id, decision)))}

    def holds(self, plan_id: str, decision: Approval) -> bool:
        """Is this the decision that was sealed, and about this plan?"""
        return hmac.compare_digest(self._of(plan_id, decision), decision.seal or "")

    def refuse_unsealed(self, row: PlanRow) -> None:
        """Raises StaleError when a decision on this plan is not as it was sealed."""
        for each in row.approvals:
            if not self.holds(row.plan.plan_id, each):
                raise StaleError(
                    f"the decision of {each.person_id} has no seal of ours: it is from before an upgrade or another "
                    "key, or somebody else wrote it into the database; diagnose and approve again"
                )

    def _of(self, plan_id: str, decision: Approval) -> str:
        said = [plan_id, decision.person_id, decision.decision, decision.role, decision.digest]
        text = canonical([*said, decision.at.astimezone(UTC).isoformat(), decision.step_up, decision.channel])
        return hmac.digest(self._key, text.encode(), "sha256").hex()
