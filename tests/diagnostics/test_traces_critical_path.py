"""What a request waited for, on trees that were worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnostics.traces.critical_path import critical_path, tree_of
from diagnostics.traces.model import Trace
from tests.traced import span, trace


def path(found: Trace) -> dict[str, float]:
    """Own seconds per span's name on the critical path, to the microsecond."""
    tree = tree_of(found)
    assert tree is not None
    seconds: dict[str, float] = {}
    for each, own in critical_path(tree):
        seconds[each.name] = round(seconds.get(each.name, 0.0) + own, 6)
    return seconds


def test_one_after_another() -> None:
    """Each child counts whole, and the gaps are the parent's: 1 + 2 + 3 + 1 + 3 of 10 seconds."""
    root = span(0, 10, name="root")
    first, second = span(1, 3, of=root, name="first"), span(6, 7, of=root, name="second")

    assert path(trace(root, first, second)) == {"root": 7, "first": 2, "second": 1}


def test_grandchildren_take_their_part_from_the_child() -> None:
    """Time is charged to the innermost span that was waited for."""
    root = span(0, 10, name="root")
    agent = span(1, 9, of=root, name="agent")
    tool = span(2, 7, of=agent, name="tool")
    query = span(3, 6, of=tool, name="query")

    assert path(trace(query, tool, agent, root)) == {"root": 2, "agent": 3, "tool": 2, "query": 3}


def test_of_parallel_children_the_last_one_counts() -> None:
    """Two start together; the request waits for the slower, the faster costs nothing."""
    root = span(0, 10, name="root")
    fast, slow = span(1, 4, of=root, name="fast"), span(1, 9, of=root, name="slow")

    assert path(trace(root, fast, slow)) == {"root": 2, "slow": 8}


def test_before_a_parallel_child_an_earlier_one_counts() -> None:
    """A, then B beside C: C ended last, so what came before C began is A's."""
    root = span(0, 10, name="root")
    a, b, c = span(0, 3, of=root, name="a"), span(3, 5, of=root, name="b"), span(3, 10, of=root, name="c")

    assert path(trace(root, a, b, c)) == {"a": 3, "c": 7}


def test_a_child_that_outlives_its_parent_is_cut() -> None:
    """An answer that streams on after the handler returned: only its part within the handler was waited for."""
    root = span(0, 5, name="root")
    log = span(4, 30, of=root, name="log")

    assert path(trace(root, log)) == {"root": 4, "log": 1}


def test_what_begins_after_its_parent_is_not_waited_for() -> None:
    """A job that was only scheduled, and whatever it does, costs the request nothing."""
    root = span(0, 5, name="root")
    job = span(6, 60, of=root, name="job")

    assert path(trace(root, job, span(7, 50, of=job, name="query"))) == {"root": 5}


def test_a_fast_clock_is_put_right() -> None:
    """Nobody begins before being called: the other host's span goes into the middle of its caller, its query along."""
    root = span(10, 20, name="root", service="chat")
    store = span(2, 8, of=root, name="store", service="vectors")
    query = span(3, 7, of=store, name="query", service="vectors")

    assert path(trace(root, store, query)) == {"root": 4, "store": 2, "query": 4}


def test_a_child_of_the_same_host_that_begins_early_is_cut() -> None:
    """One host has one clock, so an early child is no skew; it counts from its caller's beginning."""
    root = span(10, 20, name="root")

    assert path(trace(root, span(8, 13, of=root, name="early"))) == {"root": 7, "early": 3}


def test_a_few_milliseconds_do_not_make_two_parallel() -> None:
    """Across hosts the first may seem to end just after the second began; it still came before it."""
    root = span(0, 10, name="root")
    first, second = span(0, 5.003, of=root, name="first"), span(5, 10, of=root, name="second")

    assert path(trace(root, first, second)) == {"first": 5, "second": 5}


def test_the_path_is_as_long_as_the_request() -> None:
    """Whatever overlaps, the seconds sum to the root's duration."""
    root = span(0, 10, name="root")
    children = [span(start / 3, end / 2, of=root, name=f"{start}") for start in range(20) for end in range(1, 25, 5)]
    found = trace(root, *(child for child in children if child.end_ns > child.start_ns))

    assert sum(path(found).values()) == pytest.approx(10)


def test_without_its_root_a_trace_says_nothing() -> None:
    """Two parts whose common caller was lost: how long the request took is unknown."""
    lost = span(0, 10)

    assert tree_of(trace(span(1, 3, of=lost), span(4, 9, of=lost))) is None


def test_a_single_part_without_its_caller_is_a_root() -> None:
    """The browser's span is not in our backend; the server's own is all that matters."""
    browser = span(0, 12)
    server = span(1, 11, of=browser, name="server")

    assert path(trace(server, span(2, 9, of=server, name="model"))) == {"server": 3, "model": 7}


def test_a_lost_span_between_does_not_lose_what_hangs_on_it() -> None:
    """Its children are the root's then."""
    root = span(0, 10, name="root")
    lost = span(1, 9, of=root)

    assert path(trace(root, span(2, 8, of=lost, name="model"))) == {"root": 4, "model": 6}


def test_circles_and_doubles_end() -> None:
    """Spans that call each other hang on no root, one that calls itself is a root, and one sent twice counts once."""
    root = span(0, 10, name="root")
    one = span(1, 9, of=root)
    another = span(2, 8, of=one)
    circle = (replace(one, parent=another.id), another)
    self_caller = replace(root, parent=root.id)

    assert path(trace(root, *circle)) == {"root": 10}
    assert path(trace(self_caller, self_caller)) == {"root": 10}


def test_a_very_deep_trace_is_read() -> None:
    """Two thousand calls within each other are no recursion of ours."""
    chain = [span(0, 10, name="0")]
    for depth in range(1, 2000):
        chain.append(span(0, 10 - depth / 1000, of=chain[-1], name=str(depth)))

    assert sum(path(trace(*chain)).values()) == pytest.approx(10)


def test_a_span_that_ends_before_it_begins_has_no_time() -> None:
    """Nonsense of a clock is nothing, not a negative number."""
    root = span(10, 5, name="root")

    assert path(trace(root)) == {}
    healthy = span(0, 10, name="root")
    assert path(trace(healthy, span(6, 4, of=healthy, name="odd"))) == {"root": 10}
