"""
Did another guardrail policy come with the trouble?

Reads which policy versions decide. Bad when one that hardly decided before decides a fifth of what its rail is asked
now, and guardrails got slower or stricter at the same time; then the version of before is the way back, and more
replicas of the guardrail service are not.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.guardrails import DECISIONS, SLOWER_S, blocks_more, decisions_of, new_policies, seconds_of
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Look
from diagnostics.proportions import NO_EVENTS, folded, shares
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    look.where("application")
    rates, time = await asyncio.gather(decisions_of(look), seconds_of(look))
    decisions = shares(rates, frame, lambda decision: decision == "block")
    newcomers = new_policies(decisions)
    if newcomers is None:
        raise CannotTellError(f"{DECISIONS} with its label policy_version is not exported by the application")
    if not newcomers:
        return Finding.ok("guardrail_policy", "The guardrail policy is the same as before.")
    said = f"Guardrail policy {', '.join(newcomers)} is new."
    is_worse = (time.gain or 0.0) >= SLOWER_S or blocks_more(folded(decisions).get((), NO_EVENTS))
    return (Finding.bad if is_worse else Finding.ok)("guardrail_policy", said)
