"""One request as its trace shows it: seconds per stage on the critical path, model calls, retries, tools and errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diagnostics.target import Target
from diagnostics.traces.critical_path import SLACK_NS, Tree, critical_path, tree_of
from diagnostics.traces.genai import (
    attempt_of,
    engine_parts,
    error_of,
    is_engine,
    is_resent,
    role_of,
    stage_of,
    tool_of,
)
from diagnostics.traces.model import Span, Trace

STAGES = ("gateway", "guardrail", "retrieval", "frontend", "queue", "prefill", "decode", "model", "tool", "other")
"""`model` is a model call that no engine's span takes apart, such as a provider's."""

_WORK = ("model", "retrieval", "tool", "guardrail")
"""Roles of spans that make a trace one of an LLM request."""

_Calls = Sequence[tuple[Span, Span | None]]


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a tool by an agent."""

    tool: str
    seconds: float
    is_failed: bool


@dataclass(frozen=True, kw_only=True)
class TracedRequest:
    """
    What one trace says. `seconds` are per stage and service on the critical path, and sum to the request's time.

    `turns` are model calls that are neither a retry nor within another one; `errors` count (operation, error type).
    """

    seconds: Mapping[tuple[str, str], float]
    turns: int
    retries: int
    tools: tuple[ToolCall, ...]
    errors: Mapping[tuple[str, str], int]

    def stage(self, name: str) -> float:
        """The stage's seconds over all services; zero for one that the request did not wait for."""
        return sum(seconds for (stage, _), seconds in self.seconds.items() if stage == name)


def read_request(trace: Trace, target: Target) -> TracedRequest | None:
    """The request behind a trace; None for an incomplete trace and for one that holds no part of an LLM request."""
    tree = tree_of(trace)
    if tree is None:
        return None
    calls = tree.below()
    roles = {span.id: role_of(span) for span, _ in calls}
    if not set(_WORK) & set(roles.values()):
        return None
    retries = _retries(calls)
    return TracedRequest(
        seconds=_seconds(tree, target, _wrappers(calls, roles)),
        turns=sum(span.id not in retries for span in _outermost(calls, roles, "model")),
        retries=len(retries),
        tools=tuple(_tool_call(span) for span in _outermost(calls, roles, "tool")),
        errors=Counter(
            (role, error)
            for role in _WORK
            for span in _outermost(calls, roles, role)
            if (error := error_of(span)) is not None
        ),
    )


def _seconds(tree: Tree, target: Target, wrappers: set[str]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for span, own in critical_path(tree):
        if span.id in wrappers:
            parts: Mapping[str, float] = {"gateway": own}
        else:
            parts = engine_parts(span, own) if is_engine(span) else {stage_of(span, target): own}
        for stage, seconds in parts.items():
            found[stage, span.service] += seconds
    return dict(found)


def _outermost(calls: _Calls, roles: Mapping[str, str | None], role: str) -> Iterator[Span]:
    """The spans of a role that are not within another one of it: a tool's client and its server are one call."""
    within: set[str] = set()
    for span, caller in calls:
        is_within = caller is not None and caller.id in within
        if roles[span.id] == role and not is_within:
            yield span
        if is_within or roles[span.id] == role:
            within.add(span.id)


def _wrappers(calls: _Calls, roles: Mapping[str, str | None]) -> set[str]:
    """Model calls around another one: their own time is that of a gateway or of the way to the engine."""
    around: set[str] = set()
    for span, caller in reversed(calls):
        if caller is not None and (roles[span.id] == "model" or span.id in around):
            around.add(caller.id)
    return {identity for identity in around if roles[identity] == "model"}


def _retries(calls: _Calls) -> set[str]:
    """The spans that try again what failed just before, and those that HTTP clients count as sent again."""
    attempts: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span, caller in calls:
        if (attempt := attempt_of(span, caller)) is not None:
            attempts["" if caller is None else caller.id, attempt].append(span)
    found = {span.id for span, _ in calls if is_resent(span)}
    for tries in attempts.values():
        tries.sort(key=lambda span: span.start_ns)
        found |= {
            second.id
            for first, second in pairwise(tries)
            if error_of(first) is not None and second.start_ns >= first.end_ns - SLACK_NS
        }
    return found


def _tool_call(span: Span) -> ToolCall:
    seconds = max(span.end_ns - span.start_ns, 0) / 1e9
    return ToolCall(tool=tool_of(span), seconds=seconds, is_failed=error_of(span) is not None)
