"""What exporters and case files say, read line by line."""

from __future__ import annotations

import gzip
import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from diagnostics.telemetry.exposition import (
    NO_TIME,
    ExpositionError,
    Limits,
    Read,
    SeriesIds,
    read_exposition,
    read_openmetrics,
    read_series,
)

Sample = tuple[str, dict[str, str], float, int]


class _Names:
    """Numbers series in the order of their appearance."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.series: list[tuple[str, dict[str, str]]] = []
        self.ids = SeriesIds(self._number, limits)

    def _number(self, name: str, labels: dict[str, str]) -> int:
        self.series.append((name, labels))
        return len(self.series) - 1

    def of(self, read: Read) -> list[Sample]:
        columns = zip(read.ids, read.values, read.times, strict=True)
        return [(*self.series[number], value, time) for number, value, time in columns]


def _exposed(text: str, *, max_samples: int = 1000, limits: Limits | None = None) -> list[Sample]:
    names = _Names(limits)
    return names.of(read_exposition(text, names.ids, max_samples=max_samples))


def _openmetrics(source: Path | str) -> list[Sample]:
    names = _Names()
    return names.of(read_openmetrics(source, names.ids))


def test_samples_with_and_without_timestamps() -> None:
    """Comments and empty lines are passed over; a timestamp is in milliseconds and optional."""
    text = '# HELP a text\n# TYPE a counter\na 1\n\na{x="1",y="2",} 2.5 1772359200250\n  b{ x = "1" }\t-Inf\r\n'

    assert _exposed(text) == [
        ("a", {}, 1.0, NO_TIME),
        ("a", {"x": "1", "y": "2"}, 2.5, 1772359200250),
        ("b", {"x": "1"}, -math.inf, NO_TIME),
    ]


def test_label_values_may_hold_anything() -> None:
    """Braces, spaces, hashes and quotes in a value are the value's own."""
    text = 'a{x="} # {y=\\"1\\"} 2",z="\\\\n\\n"} 3'

    assert _exposed(text) == [("a", {"x": '} # {y="1"} 2', "z": "\\n\n"}, 3.0, NO_TIME)]


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(values=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=4, unique=True))
def test_we_read_what_prometheus_client_writes(values: list[str]) -> None:
    """Whatever text a label holds, we read the same as the client library's own parser."""
    registry = CollectorRegistry()
    gauge = Gauge("gauge", "g", ["label"], registry=registry)
    counter = Counter("hits", "c", ["label"], registry=registry)
    histogram = Histogram("seconds", "h", ["label"], registry=registry)
    for at, value in enumerate(values):
        gauge.labels(value).set(at + 0.1)
        counter.labels(value).inc(at)
        histogram.labels(value).observe(at)
    text = generate_latest(registry).decode()
    theirs = [
        (sample.name, sample.labels, sample.value, NO_TIME)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]

    assert sorted(_exposed(text), key=repr) == sorted(theirs, key=repr)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1\n<html>", "line 2: '<html>' does not begin with a metric name"),
        ("a", "line 1: could not convert"),
        ("a one", "line 1: could not convert string to float: 'one'"),
        ("a 1_000", "line 1: 1_000 is not a number"),
        ("a 1 2 3", "line 1: invalid literal"),
        ("a 1 1.5", "line 1: invalid literal"),
        ("a 1 1772359200250000", "line 1: the timestamp 1772359200250000 is not between 1970 and 2100"),
        ("a 1 " + "9" * 400, "line 1: "),
        ('a{x="1} 1', "line 1: the labels of a are broken"),
        ('a{x="1"y="2"} 1', "line 1: the labels of a are broken"),
        ('a{x="1",x="2"} 1', "line 1: a has the label x twice"),
        ('a{1x="1"} 1', "line 1: the labels of a are broken"),
        ("a-b 1", "line 1: 'a-b' is no metric name"),
        ("a 1\nb 1\nc 1\nd 1", "line 4: more than 3 samples"),
        ('a{x="1",y="2",z="3"} 1', "line 1: a has 3 labels, more than 2"),
        ('a{x="123456789"} 1', "line 1: label x of a is longer than we keep"),
    ],
)
def test_what_is_no_exposition_is_refused_by_line(text: str, words: str) -> None:
    """Half an exposition is none: the error names the line, and no sample of it is kept."""
    with pytest.raises(ExpositionError, match=words):
        _exposed(text, max_samples=3, limits=Limits(labels=2, value_length=8))


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(st.text(max_size=60))
def test_any_other_text_is_read_or_refused(text: str) -> None:
    """No text ends in another error than ours."""
    for read in (_exposed, _openmetrics):
        with suppress(ExpositionError):
            assert all(name for name, *_ in read(text))


def test_openmetrics_has_seconds_and_exemplars() -> None:
    """Seconds are cut to milliseconds as Prometheus does; exemplars are passed over."""
    text = '# TYPE a counter\na_total{x="# 1"} 1 1772359200.25 # {trace="}"} 0.5 1772359200\na_total 2 1.0\n# EOF\n'

    assert _openmetrics(text) == [
        ("a_total", {"x": "# 1"}, 1.0, 1772359200250),
        ("a_total", {}, 2.0, 1000),
    ]


def test_a_file_is_read_plain_or_zipped(tmp_path: Path) -> None:
    """A case brings metrics.om or metrics.om.gz."""
    (tmp_path / "metrics.om").write_text("a 1 5\n# EOF\n")
    (tmp_path / "metrics.om.gz").write_bytes(gzip.compress(b"a 1 5\n# EOF\n"))

    assert _openmetrics(tmp_path / "metrics.om") == _openmetrics(tmp_path / "metrics.om.gz") == [("a", {}, 1.0, 5000)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1 5\n", "the text ends without # EOF, so a part of it may be missing"),
        ("", "ends without # EOF"),
        ("a 1 5\na 1\n# EOF", "line 2: a sample without a timestamp"),
        ("a 1 5\n# EOF\nb 1 5", "line 2: there is text after # EOF"),
        ("a 1 soon\n# EOF", "line 1: could not convert string to float: 'soon'"),
        ("a 1 inf\n# EOF", "line 1: cannot convert float infinity"),
        ("a 1 nan\n# EOF", "line 1: cannot convert float NaN"),
    ],
)
def test_broken_openmetrics_is_refused_by_line(text: str, words: str) -> None:
    """A case that is cut off or malformed is named with its line, not diagnosed."""
    with pytest.raises(ExpositionError, match=words):
        _openmetrics(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.om.gz", gzip.compress(b"a 1 5\n# EOF\n", mtime=0)[:-9]),
        ("metrics.om.gz", b"not zipped"),
        ("metrics.om", b"\xff\xfe 1 5\n# EOF\n"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    """The error names the file, since a case folder holds several."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ExpositionError, match=name):
        _openmetrics(tmp_path / name)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """Also when it is not there at all."""
    with pytest.raises(ExpositionError, match=r"gone\.om cannot be read: .*No such file"):
        _openmetrics(tmp_path / "gone.om")


def test_series_in_their_parts() -> None:
    """Escapes are undone once."""
    assert read_series(r'a:b{x="\"\\\n"}') == ("a:b", {"x": '"\\\n'})
