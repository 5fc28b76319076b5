"""
What exporters say: Prometheus text exposition and OpenMetrics text, into ids and numbers.

Both are read line by line with one dictionary look-up per line: the text before the value (`name{labels}`) is parsed
only when it is first seen. That is what makes 1,500 lines cost two milliseconds and 1.2 million lines seconds.
"""

from __future__ import annotations

import gzip
import re
import zlib
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|(?=\}))')
_ESCAPE = re.compile(r"\\(.)")
_EXEMPLAR = re.compile(r"^((?:[^\"#]|\"(?:[^\"\\]|\\.)*\")*?)\s+#\s")


class ExpositionError(Exception):
    """The text is not what an exporter may say; the message names the line."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one series may carry before we refuse it, in the sense of Prometheus' label limits."""

    labels: int = 64
    name_length: int = 256
    value_length: int = 4096


@dataclass(kw_only=True)
class Read:
    """Samples in the order of their lines; a time of -1 means that the line gave none. Times in ms."""

    ids: array[int] = field(default_factory=lambda: array("i"))
    values: array[float] = field(default_factory=lambda: array("d"))
    times: array[int] = field(default_factory=lambda: array("q"))


NO_TIME = -1
END_OF_TIME = 4_102_444_800_000
"""The year 2100 in ms: a later timestamp is a unit mistaken, and would drag a drill's clock along."""


class SeriesIds(dict[str, int]):
    """
    Remembers the id of each `name{labels}` text; `number` gives the id of a series seen for the first time.

    Raises ExpositionError (without a line number) for text that names no series or carries too much.
    """

    def __init__(self, number: Callable[[str, dict[str, str]], int], limits: Limits | None = None) -> None:
        super().__init__()
        self._number = number
        self._limits = limits or Limits()

    def __missing__(self, head: str) -> int:
        name, labels = read_series(head)
        limits = self._limits
        if len(labels) > limits.labels:
            raise ExpositionError(f"{name} has {len(labels)} labels, more than {limits.labels}")
        for label, value in labels.items():
            if len(label) > limits.name_length or len(value) > limits.value_length:
                raise ExpositionError(f"label {label[:80]} of {name} is longer than we keep")
        self[head] = fresh = self._number(name, labels)
        return fresh


def read_series(head: str) -> tuple[str, dict[str, str]]:
    """`name{label="value"}` in its parts. Raises ExpositionError."""
    name = _NAME.match(head)
    if name is None:
        raise ExpositionError(f"{head[:80]!r} does not begin with a metric name")
    rest = head[name.end() :].strip()
    if not rest:
        return name.group(), {}
    if rest[0] != "{":
        raise ExpositionError(f"{head[:80]!r} is no metric name")
    labels: dict[str, str] = {}
    at = 1
    while rest[at:].strip() != "}":
        label = _LABEL.match(rest, at)
        if label is None:
            raise ExpositionError(f"the labels of {name.group()} are broken at {rest[at : at + 40]!r}")
        if label.group(1) in labels:
            raise ExpositionError(f"{name.group()} has the label {label.group(1)} twice")
        labels[label.group(1)] = _ESCAPE.sub(_unescape, label.group(2))
        at = label.end()
    return name.group(), labels


def _unescape(escape: re.Match[str]) -> str:
    return "\n" if escape.group(1) == "n" else escape.group(1)


def read_exposition(text: str, ids: SeriesIds, *, max_samples: int) -> Read:
    """
    The samples of Prometheus' text format 0.0.4; timestamps are optional, in milliseconds.

    Raises ExpositionError naming the line, or saying that there are more than `max_samples`.
    """
    return _read_lines(text.split("\n"), ids, _Milliseconds(), max_samples)


def read_openmetrics(source: Path | str, ids: SeriesIds, *, max_samples: int = 2**31, needs_time: bool = True) -> Read:
    """
    The samples of OpenMetrics text, each with its timestamp (seconds): a file (`.gz` is unpacked) or the text itself.

    Raises ExpositionError naming the line: a broken line, one without a timestamp, or a missing `# EOF` (the file
    is cut off), and for a file that cannot be read.
    """
    times = _Seconds(needed=needs_time)
    if isinstance(source, str):
        return _read_openmetrics(source.split("\n"), ids, times, max_samples)
    try:
        if source.suffix == ".gz":
            with gzip.open(source, "rt", encoding="utf-8") as lines:
                return _read_openmetrics(lines, ids, times, max_samples)
        with source.open(encoding="utf-8") as lines:
            return _read_openmetrics(lines, ids, times, max_samples)
    except ExpositionError as error:
        raise ExpositionError(f"{source}, {error}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ExpositionError(f"{source} cannot be read: {error}") from error


def _read_openmetrics(lines: Iterable[str], ids: SeriesIds, times: _Times, max_samples: int) -> Read:
    ended = False

    def before_the_end() -> Iterator[str]:
        nonlocal ended
        for line in lines:
            if ended and line.strip():
                raise ExpositionError("there is text after # EOF")
            ended = ended or line.rstrip() == "# EOF"
            yield _without_exemplar(line) if " # " in line else line

    read = _read_lines(before_the_end(), ids, times, max_samples)
    if not ended:
        raise ExpositionError("the text ends without # EOF, so a part of it may be missing")
    return read


def _read_lines(lines: Iterable[str], ids: SeriesIds, times: _Times, max_samples: int) -> Read:
    """The one loop that sees every line; it is kept flat because it runs a million times for a case."""
    read = Read()
    add_id, add_value, add_time = read.ids.append, read.values.append, read.times.append
    number = 0
    try:
        for number, raw in enumerate(lines, 1):  # noqa: B007  # the number is for the error below
            line = raw.strip()
            if not line or line[0] == "#":
                continue
            end = line.rfind("}") + 1 or len(line.split(None, 1)[0])
            value, *time = line[end:].split() or ("",)
            add_id(ids[line[:end]])
            add_value(float(value))
            add_time(times[" ".join(time)])
            if "_" in value:  # Python reads 1_000 as a thousand
                _refuse(f"{value} is not a number")
            if len(read.ids) > max_samples:
                _refuse(f"more than {max_samples} samples")
    except (ExpositionError, ValueError, OverflowError) as error:
        raise ExpositionError(f"line {number}: {error}") from error
    return read


class _Times(dict[str, int]):
    """Timestamps as written, and in ms; thousands of lines share one, so they are remembered."""

    def __missing__(self, text: str) -> int:
        time = self.read(text)
        if time != NO_TIME and not 0 <= time < END_OF_TIME:
            raise ExpositionError(f"the timestamp {text} is not between 1970 and 2100")
        self[text] = time
        return time

    @abstractmethod
    def read(self, text: str) -> int:
        """In ms; NO_TIME where none is written. Raises ValueError."""


class _Milliseconds(_Times):
    """The text format: whole milliseconds, or none."""

    def read(self, text: str) -> int:
        return int(text) if text else NO_TIME


class _Seconds(_Times):
    """OpenMetrics: seconds with a fraction."""

    def __init__(self, *, needed: bool) -> None:
        super().__init__()
        self._needed = needed

    def read(self, text: str) -> int:
        if text:
            return int(float(text) * 1000)  # cut, not rounded, as Prometheus does
        if self._needed:
            raise ExpositionError("a sample without a timestamp")
        return NO_TIME


def _without_exemplar(line: str) -> str:
    sample = _EXEMPLAR.match(line)
    return sample.group(1) if sample else line


def _refuse(why: str) -> NoReturn:
    raise ExpositionError(why)
