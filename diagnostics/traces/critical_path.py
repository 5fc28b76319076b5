"""
Which spans a request really waited for, and for how long: its critical path.

From the root's end we walk backwards. In each span the child that ended last before now is what it waited for; what no
such child covers is the span's own time. Of children that ran side by side only the one that ended last is waited for;
one that outlives its parent is cut at the parent's end; one that begins after it, or before it by the same host's
clock, is not waited for at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diagnostics.traces.model import Span, Trace

SLACK_NS = 5_000_000
"""Clocks of two hosts are seldom closer: a sibling that ends so little after the next one began came before it."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A trace by who called whom. Spans whose caller was lost hang below the root."""

    root: Span
    children: Mapping[str, Sequence[Span]]

    def below(self) -> list[tuple[Span, Span | None]]:
        """Every span that hangs on the root, itself too, each with its caller and after it."""
        found: list[tuple[Span, Span | None]] = []
        ahead: list[tuple[Span, Span | None]] = [(self.root, None)]
        while ahead:
            found.append(ahead.pop())
            caller = found[-1][0]
            ahead += [(child, caller) for child in self.children.get(caller.id, ())]
        return found


def tree_of(trace: Trace) -> Tree | None:
    """
    The trace as a tree; None when its root is missing, for then nobody can say how long the request took.

    A single span whose caller is not in the trace is a root: the caller writes to another backend, or to none.
    """
    spans = {span.id: span for span in trace.spans}
    tops = [span for span in spans.values() if span.parent is None or span.parent == span.id]
    orphans = [span for span in spans.values() if span.parent is not None and span.parent not in spans]
    if not tops and len(orphans) != 1:
        return None
    root = max(tops or orphans, key=lambda span: span.end_ns - span.start_ns)
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans.values():
        if span.parent in spans and span.parent != span.id:
            children[span.parent].append(span)
    children[root.id] += [span for span in orphans if span.id != root.id]
    return Tree(root=root, children=children)


def critical_path(tree: Tree) -> list[tuple[Span, float]]:
    """The spans that the request waited for, each with its own seconds; together they are the root's duration."""
    root = tree.root
    found: list[tuple[Span, float]] = []
    ahead = [_Placed(span=root, shift=0, start=root.start_ns, end=max(root.end_ns, root.start_ns))]
    while ahead:
        here = ahead.pop()
        children = [_placed(child, here) for child in tree.children.get(here.span.id, ())]
        cursor, own = here.end, 0
        for child in sorted(children, key=lambda child: child.span.end_ns + child.shift, reverse=True):
            end = min(child.end, cursor)
            runs_beside = child.end > cursor + SLACK_NS
            if runs_beside or end <= child.start:
                continue
            own += cursor - end
            cursor = child.start
            ahead.append(replace(child, end=end))
        own += cursor - here.start
        if own > 0:
            found.append((here.span, own / 1e9))
    return found


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A span in its root's time: `shift` corrects its host's clock, `start` and `end` lie within its caller."""

    span: Span
    shift: int
    start: int
    end: int


def _placed(child: Span, caller: _Placed) -> _Placed:
    """
    The child in the caller's time. Nobody begins before being called, so another host's clock is wrong then.

    Like Jaeger, we put such a child into the middle of its caller, and whatever hangs on it moves along.
    """
    begins = caller.span.start_ns + caller.shift
    early = begins - (child.start_ns + caller.shift)
    spare = (caller.span.end_ns - caller.span.start_ns) - (child.end_ns - child.start_ns)
    is_skewed = early > 0 and spare >= 0 and child.service != caller.span.service
    shift = caller.shift + (early + spare // 2 if is_skewed else 0)
    return _Placed(
        span=child,
        shift=shift,
        start=max(child.start_ns + shift, caller.start),
        end=min(child.end_ns + shift, caller.end),
    )
