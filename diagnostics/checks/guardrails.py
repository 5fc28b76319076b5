"""
Do guardrails let good requests pass, quickly?

Reads the time spent in guardrails, their own errors, and the share of decisions that block, by rail, policy version
and surface. Bad when the time gained 0.3 s, errors two points, blocks tripled or gained five points beyond chance, or
blocks that used to happen stopped while guardrails fail (open). Slow is the guardrail service; more blocks right after
a new policy version, with no more attacks, are a policy that blocks what it should not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.proportions import ENOUGH_EVENTS, NO_EVENTS, SURE, Share, folded, shares
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

DECISIONS = "llm_app_guardrail_total"
STAGE = "llm_app_stage_seconds"
GATEWAY_TIME = "litellm_guardrail_latency_seconds"
GATEWAY_ERRORS = "litellm_guardrail_errors_total"
GATEWAY_CALLS = "litellm_guardrail_requests_total"
LABELS = ("rail", "policy_version", "surface", "decision")
_RAIL, _POLICY, _SURFACE = range(3)

SLOWER_S = 0.3
_HARDLY = 0.05
_OFTEN = 0.2
_BLOCKS = 20  # that many were due: then none at all is no chance


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    if not {"application", "gateway"} & target.selectors.keys():
        look.where("application")
    rates, time, errors = await asyncio.gather(decisions_of(look), seconds_of(look), _errors(look))
    if not rates and time == NOTHING and errors == NOTHING:
        raise CannotTellError(
            f"neither {DECISIONS} nor {STAGE} with a guardrail stage is exported by the application, "
            f"nor {GATEWAY_TIME} by the gateway"
        )
    measures = [] if time == NOTHING else [measure("guardrail", time, "s")]
    measures += [] if errors == NOTHING else [measure("guardrail_error_ratio", errors, "ratio")]
    decisions = shares(rates, frame, lambda decision: decision == "block")
    whole = folded(decisions).get((), NO_EVENTS)
    blocked = whole.compared()
    if blocked.now is not None:
        measures += [measure("guardrail_block_ratio", blocked, "ratio"), *_policies(decisions)]
    complaints = [f"Time in guardrails: {compared(time, 's')}."] if (time.gain or 0.0) >= SLOWER_S else []
    if (errors.gain or 0.0) >= 0.02:
        complaints.append(f"Failing guardrails: {compared(errors, 'ratio')}.")
    if blocks_more(whole):
        parts = _blocking(decisions)
        measures += parts
        names = ", ".join(" ".join(part for part in where if part) for where in _risen(decisions))
        complaints.append(f"Blocked: {compared(blocked, 'ratio')}{f' (by {names})' if names else ''}.")
    if _is_open(whole, errors):
        complaints.append(f"Blocked: {compared(blocked, 'ratio')}; guardrails fail and may let everything pass.")
    if complaints:
        return Finding.bad("guardrails", " ".join(complaints), *measures)
    return Finding.ok("guardrails", "Guardrails are as quick and as strict as usual.", *measures)


async def decisions_of(look: Look) -> dict[Key, Compared]:
    """How many decisions a second, by LABELS; empty where the application exports none."""
    return await look.rates(DECISIONS, "application", by=LABELS) if "application" in look.target.selectors else {}


async def seconds_of(look: Look) -> Compared:
    """Seconds per request in all guardrail stages together, from the application or else from the gateway."""
    if "application" in look.target.selectors:
        stages = await look.means(STAGE, "application", by=("stage",))
        parts = {key: cell for key, cell in stages.items() if key[0].startswith("guardrail") and cell != NOTHING}
        if parts:
            return total(parts)
    return await look.mean(GATEWAY_TIME, "gateway") if "gateway" in look.target.selectors else NOTHING


async def _errors(look: Look) -> Compared:
    """The gateway's guardrail errors among its guardrail calls."""
    if "gateway" not in look.target.selectors:
        return NOTHING
    failed, called = await asyncio.gather(look.rate(GATEWAY_ERRORS, "gateway"), look.rate(GATEWAY_CALLS, "gateway"))
    return share(failed, called) if called != NOTHING else NOTHING


def blocks_more(cell: Share) -> bool:
    """Whether the share that is blocked tripled or gained five points, beyond chance."""
    ratio = cell.compared()
    gain = ratio.gain or 0.0
    has_grown = gain >= 0.05 or ((ratio.factor or 0.0) >= 3 and gain >= 0.01)
    return has_grown and cell.chance < SURE


def _is_open(cell: Share, errors: Compared) -> bool:
    """Whether guardrails that fail stopped blocking: what they let pass then, nobody has looked at."""
    due = (cell.compared().baseline or 0.0) * cell.all_now
    return (errors.gain or 0.0) >= 0.02 and due >= _BLOCKS and cell.hits_now < 0.1 * due


def new_policies(decisions: Mapping[Key, Share]) -> list[str] | None:
    """The policy versions that decide and hardly decided before; None where no version is named."""
    versions = folded(decisions, _RAIL, _POLICY)
    if not any(policy for _, policy in versions):
        return None
    return sorted({policy for rail, policy in versions if _is_new(versions, rail, policy)})


def _policies(decisions: Mapping[Key, Share]) -> list[Measure]:
    newcomers = new_policies(decisions)
    if newcomers is None:
        return []
    found = [Measure(signal="new_policy", value=float(bool(newcomers)), baseline=0.0)]
    return found + [Measure(signal="new_policy", value=1.0, baseline=0.0, scope=(("policy", p),)) for p in newcomers]


def _is_new(versions: Mapping[Key, Share], rail: str, policy: str) -> bool:
    own = versions[rail, policy]
    whole = sum((cell for key, cell in versions.items() if key[0] == rail), NO_EVENTS)
    return bool(policy) and own.all_now >= _OFTEN * whole.all_now > 0 and own.all_then < _HARDLY * whole.all_then


def _risen(decisions: Mapping[Key, Share]) -> dict[Key, Share]:
    """The rails and policy versions that block more than they, or for a new one their rail, did."""
    found: dict[Key, Share] = {}
    rails = folded(decisions, _RAIL)
    for (rail, policy), cell in sorted(folded(decisions, _RAIL, _POLICY).items()):
        past = cell if cell.all_then >= ENOUGH_EVENTS else rails[rail,]
        against = Share(hits_now=cell.hits_now, all_now=cell.all_now, hits_then=past.hits_then, all_then=past.all_then)
        if blocks_more(against):
            found[rail, policy] = against
    return found


def _blocking(decisions: Mapping[Key, Share]) -> list[Measure]:
    """Blocks by policy version and by surface, where they rose."""
    found = [
        measure("guardrail_block_ratio", cell.compared(), "ratio", ("rail", rail), ("policy", policy))
        for (rail, policy), cell in _risen(decisions).items()
        if policy
    ]
    return found + [
        measure("guardrail_block_ratio", cell.compared(), "ratio", ("surface", surface))
        for (surface,), cell in sorted(folded(decisions, _SURFACE).items())
        if surface and blocks_more(cell)
    ]
