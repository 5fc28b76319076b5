"""Queries of ours as PromQL, and how their matchers are read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from diagnostics.telemetry.matchers import matches, read_matchers
from diagnostics.telemetry.model import Aggregation, Function, Query, TelemetryError
from diagnostics.telemetry.promql import to_promql

FIVE_MINUTES = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("query", "promql"),
    [
        (Query(metric="up"), "sum(up)"),
        (Query(metric="up", by=("pod", "node"), aggregation=Aggregation.MIN), "min by (pod, node)(up)"),
        (
            Query(metric="vllm:x_total", where={"pod": "a"}, function=Function.RATE, window=FIVE_MINUTES),
            'sum(rate(vllm:x_total{pod="a"}[300s]))',
        ),
        (
            Query(metric="x", function=Function.DELTA, window=timedelta(milliseconds=1500)),
            "sum(delta(x[1500ms]))",
        ),
        (
            Query(metric="x", where={"d": "!~a|b", "c": "~a.*", "b": "!1", "a": ""}),
            'sum(x{a="", b!="1", c=~"a.*", d!~"a|b"})',
        ),
        (Query(metric="x", where={"a": 'q"\\d\n'}), 'sum(x{a="q\\"\\\\d\\n"})'),
        (
            Query(metric="t", where={"a": "b"}, function=Function.QUANTILE, quantile=0.95, window=FIVE_MINUTES),
            'histogram_quantile(0.95, sum by (le)(rate(t_bucket{a="b"}[300s])))',
        ),
        (
            Query(metric="t", function=Function.QUANTILE, quantile=0.5, window=FIVE_MINUTES, by=("pod",)),
            "histogram_quantile(0.5, sum by (pod, le)(rate(t_bucket[300s])))",
        ),
    ],
)
def test_a_query_says_the_same_in_promql(query: Query, promql: str) -> None:
    """Function, window, matchers and groups are said in Prometheus' words, with values escaped."""
    assert to_promql(query) == promql


def test_a_window_below_a_millisecond_cannot_be_said() -> None:
    """PromQL has no finer unit, and rounding it to zero would be another question."""
    query = Query(metric="x", function=Function.RATE, window=timedelta(microseconds=900))

    with pytest.raises(ValueError, match="shorter than a millisecond"):
        to_promql(query)


@pytest.mark.parametrize(
    ("text", "value", "held"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("!a", "b", True),
        ("!a", "a", False),
        ("~a.", "ab", True),
        ("~a.", "abc", False),
        ("!~a|b", "b", False),
        ("!~a|b", "ab", True),
        ("", "", True),
        ("!", "", False),
    ],
)
def test_matchers_hold_as_in_prometheus(text: str, value: str, held: bool) -> None:  # noqa: FBT001  # a table's column
    """Regular expressions match whole values, and a label that is not there counts as empty."""
    assert matches(read_matchers({"label": text}), {"label": value} if value else {}) is held


def test_a_broken_expression_is_an_error_and_not_silence() -> None:
    """A matcher that cannot be read must not look like a metric without series."""
    with pytest.raises(TelemetryError, match="pod: '\\(' is not a regular expression"):
        matches(read_matchers({"pod": "~("}), {"pod": "a"})
