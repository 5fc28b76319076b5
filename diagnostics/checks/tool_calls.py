"""
Do the agents' tools work, and do agents write no more than they should?

Reads tool calls by tool, verb, outcome, agent and approval. Bad when, beyond chance, the failing share tripled or
gained five points, writing calls per request doubled, or the unapproved part of the writes gained ten points. Failures
of one tool mean its backend; of all tools the arguments, hence the prompt. More writes without more failures mean an
agent that follows what it should not: look at `injection` next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics.checks.traffic import REQUESTS
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, total
from diagnostics.proportions import (
    ENOUGH_VOTES,
    NO_EVENTS,
    SURE,
    Share,
    chance_of_rates,
    folded,
    shares,
    summed,
)
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

CALLS = "llm_app_tool_calls_total"
LABELS = ("tool", "verb", "agent", "approved", "outcome")
_TOOL, _VERB, _AGENT, _APPROVED = range(4)

_MORE_FAIL = 0.03
_MORE_WRITES = 2.0
_MORE_UNAPPROVED = 0.10


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", CALLS)
    rates, requests = await asyncio.gather(
        look.rates(CALLS, "application", by=LABELS), look.rate(REQUESTS, "application")
    )
    calls = shares(rates, frame, lambda outcome: outcome == "error")
    failing = folded(calls).get((), NO_EVENTS)
    if failing.all_now < ENOUGH_VOTES:
        raise CannotTellError(f"agents called tools only {failing.all_now:.0f} times in the recent window")
    ratio = failing.compared(ENOUGH_VOTES)
    measures = [measure("tool_error_ratio", ratio, "ratio"), *_calls_per_request(rates, requests)]
    complaints = []
    if _is_worse(failing):
        tools = _failing_tools(calls)
        measures += [measure("tool_error_ratio", cell, "ratio", ("tool", tool)) for tool, cell in tools.items()]
        measures += _one_tool(calls)
        complaints.append(f"Failing tool calls: {compared(ratio, 'ratio')}{_named(tools)}.")
    said, more = _writes(rates, requests, look)
    complaints += said
    measures += more
    if complaints:
        return Finding.bad("tool_calls", " ".join(complaints), *measures)
    return Finding.ok("tool_calls", f"Failing tool calls: {compared(ratio, 'ratio')}.", *measures)


def unapproved_writes(rates: Mapping[Key, Compared], frame: Frame) -> Share:
    """The writing calls without an approval, among the writing calls that say whether they have one."""
    writes = {key: cell for key, cell in summed(rates, _VERB, _APPROVED).items() if key[0] == "write" and key[1]}
    return shares(writes, frame, lambda approved: approved == "no").get(("write",), NO_EVENTS)


def _calls_per_request(rates: Mapping[Key, Compared], requests: Compared) -> list[Measure]:
    calls, writes = total(rates), total({key: cell for key, cell in rates.items() if key[_VERB] == "write"})
    turns, writing = _per(calls, requests), _per(writes, requests)
    found = [] if turns == NOTHING else [measure("tool_calls_per_request", turns, "1/request")]
    return found if writing == NOTHING else [*found, measure("write_tool_ratio", writing, "1/request")]


def _is_worse(cell: Share) -> bool:
    ratio = cell.compared(ENOUGH_VOTES)
    has_tripled = (ratio.factor or 0.0) >= 3 and (ratio.gain or 0.0) >= _MORE_FAIL
    return (has_tripled or (ratio.gain or 0.0) >= 0.05) and cell.chance < SURE


def _failing_tools(calls: Mapping[Key, Share]) -> dict[str, Compared]:
    """The tools that fail more often than they did, each with its own share."""
    return {
        tool: cell.compared(ENOUGH_VOTES)
        for (tool,), cell in sorted(folded(calls, _TOOL).items())
        if tool and _is_worse(cell)
    }


def _one_tool(calls: Mapping[Key, Share]) -> list[Measure]:
    """Which part of the additional failures one tool carries; nothing where there is only one tool."""
    more = {}
    for (tool,), cell in folded(calls, _TOOL).items():
        if tool and cell.all_now > 0:
            usual = cell.hits_then / cell.all_then if cell.all_then else 0.0
            more[tool] = max(cell.hits_now - usual * cell.all_now, 0.0)
    if len(more) < 2 or sum(more.values()) <= 0:
        return []
    top = max(more, key=lambda tool: more[tool])
    return [Measure(signal="tool_error_concentration", value=more[top] / sum(more.values()), unit="ratio")]


def _writes(rates: Mapping[Key, Compared], requests: Compared, look: Look) -> tuple[list[str], list[Measure]]:
    """What is wrong with the writing calls, with the agents that write more, or without approval."""
    writes = {key: cell for key, cell in rates.items() if key[_VERB] == "write"}
    everything = _per(total(writes), requests)
    approval = unapproved_writes(writes, look.frame)
    unapproved = approval.compared(ENOUGH_VOTES)
    complaints, measures = [], []
    agents = _writing_agents(writes, requests, look.frame)
    if agents:
        measures += [measure("write_tool_ratio", cell, "1/request", ("agent", agent)) for agent, cell in agents.items()]
        complaints.append(f"Writing calls per request: {compared(everything)}{_named(agents)}.")
    if unapproved != NOTHING:
        measures.append(measure("unapproved_write_ratio", unapproved, "ratio"))
    if (unapproved.gain or 0.0) >= _MORE_UNAPPROVED and approval.chance < SURE:
        complaints.append(f"Writing calls without approval: {compared(unapproved, 'ratio')}.")
    return complaints, measures


def _writing_agents(writes: Mapping[Key, Compared], requests: Compared, frame: Frame) -> dict[str, Compared]:
    """The agents whose writing calls per request doubled, beyond chance; by the name that their calls carry."""
    now_s, then_s = frame.recent.total_seconds(), (frame.baseline_end - frame.baseline_start).total_seconds()
    exposed_now, exposed_then = (requests.now or 0.0) * now_s, (requests.baseline or 0.0) * then_s
    found = {}
    for (agent,), cell in sorted(summed(writes, _AGENT).items()):
        chance = chance_of_rates((cell.now or 0.0) * now_s, exposed_now, (cell.baseline or 0.0) * then_s, exposed_then)
        ratio = _per(Compared(now=cell.now, baseline=cell.baseline or 0.0), requests)
        has_grown = ratio.now is not None and ratio.now >= _MORE_WRITES * (ratio.baseline or 0.0)
        if has_grown and chance < SURE:
            found[agent] = ratio
    return found


def _per(calls: Compared, requests: Compared) -> Compared:
    return Compared(
        now=None if calls.now is None or not requests.now else calls.now / requests.now,
        baseline=None if calls.baseline is None or not requests.baseline else calls.baseline / requests.baseline,
    )


def _named(cells: Mapping[str, Compared]) -> str:
    names = [name for name in cells if name]
    return f", above all of {', '.join(names[:3])}" if names else ""
