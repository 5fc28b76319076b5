"""
The proof of the record outside the database: exports and checkpoints, and what they show. Pure.

An export is a text of JSON lines, a header and then rows. Each row carries the hash of the row before it and its own,
so an edit, a gap or another order breaks the chain at its row. Whoever may rewrite a whole export can also hash it
anew; against that stands a checkpoint: the hash of one row, kept where they cannot reach.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.incidents import WatchkeeperError

GENESIS = "0" * 64
"""What the first row carries in place of the hash before it."""

_HASH = r"^[0-9a-f]{64}$"
_LONGEST_LINE = 16 * 1024 * 1024
_FIELDS = ("seq", "at", "actor", "action", "subject", "details", "previous_hash", "hash")


class NotProvenError(WatchkeeperError):
    """The record, or the export, is not what was once written; the message says where it breaks."""


class Checkpoint(BaseModel):
    """
    The head of the chain `at` one time: row `sequence`, the last of `count` rows, has `hash`.

    `record` says whose chain it is: the hash of its first row, which no two databases share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["watchkeeper-audit-checkpoint/2"] = "watchkeeper-audit-checkpoint/2"
    record: str = Field(pattern=_HASH)
    sequence: int = Field(ge=0)
    hash: str = Field(pattern=_HASH)
    at: str
    count: int = Field(ge=0)


class Known:
    """What checkpoints say of a chain, compared with it row by row, the rows in their order."""

    def __init__(self, *checkpoints: Checkpoint) -> None:
        """At least one."""
        self._of_row = {each.sequence: each for each in checkpoints}
        self.newest = max(checkpoints, key=lambda each: each.sequence)
        self._held = 0

    def differs(self, sequence: int, found: str) -> str:
        """Why the chain, whose row `sequence` has the hash `found`, is not theirs; "" while nothing says so."""
        if sequence == 1 and self.newest.sequence and found != self.newest.record:
            return "it is not the first row that the checkpoint knows: another record, or one that was begun anew"
        known = self._of_row.get(sequence)
        if known is None:
            return ""
        if found != known.hash:
            where = f"between row {self._held + 1} and row {sequence}" if self._held else f"up to row {sequence}"
            return f"it is not the row of the checkpoint of {known.at}: the record was rewritten {where}"
        self._held = sequence
        return ""

    def check(self, sequence: int, found: str) -> None:
        """The same. Raises NotProvenError."""
        if why := self.differs(sequence, found):
            raise NotProvenError(f"the record is broken at row {sequence}: {why}")


class Header(BaseModel):
    """The first line of an export: rows `first` to `last`, the hash before them and the last one's, and how many."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["watchkeeper-audit/1"] = "watchkeeper-audit/1"
    first: int = Field(ge=1)
    last: int = Field(ge=0)
    rows: int = Field(ge=0)
    previous_hash: str = Field(pattern=_HASH)
    head: str = Field(pattern=_HASH)


@dataclass(frozen=True, kw_only=True)
class Proven:
    """What holds: rows `first` to `last`, none when `last` is before `first`, and the last one's hash."""

    first: int
    last: int
    head: str

    @property
    def rows(self) -> int:
        return self.last - self.first + 1


def canonical(value: Any) -> str:
    """The one way to write a JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def link_hash(seq: int, at: datetime | str, actor: str, action: str, subject: str, details: Any, previous: str) -> str:
    """SHA-256 (hex) over the canonical JSON of everything that the row says and the hash before it."""
    when = at if isinstance(at, str) else at.isoformat()
    return hashlib.sha256(canonical([seq, when, actor, action, subject, details, previous]).encode()).hexdigest()


def header_line(header: Header) -> str:
    return canonical(header.model_dump())


def row_line(row: Any) -> str:
    """A row of the record (`bot.store.audit.AuditRow`) as a line of an export."""
    return canonical({**asdict(row), "at": row.at.isoformat()})


def verify_export(lines: Iterable[str], known: Known | None = None) -> Proven:
    """
    Recompute an export's chain, and compare it with checkpoints.

    Without one, only what is not hashed anew is found. Rows after the checkpoint's can be cut off, or hashed anew,
    unseen. Raises NotProvenError, also when the newest checkpoint's row is none of the export's.
    """
    rest = iter(lines)
    header = _header(next(rest, ""))
    if known is not None and not header.first - 1 <= known.newest.sequence <= header.last:
        raise NotProvenError(
            f"the newest checkpoint is of row {known.newest.sequence}, and this export has the rows {header.first} to "
            f"{header.last}: it is another part of the record, older than the checkpoint, or cut off"
        )
    seq, previous = header.first - 1, header.previous_hash
    if seq == 0 and previous != GENESIS:
        raise NotProvenError("the header's hash before the first row is not the beginning of a chain")
    if known is not None:
        known.check(seq, previous)
    for row in _rows(rest):
        seq += 1
        previous = _linked(row, seq, previous)
        if known is not None:
            known.check(seq, previous)
    if (seq, previous, seq - header.first + 1) != (header.last, header.head, header.rows):
        raise NotProvenError(
            f"the export ends at row {seq}, and its header promises row {header.last}: rows are missing"
        )
    return Proven(first=header.first, last=seq, head=previous)


def _header(line: str) -> Header:
    try:
        header = Header.model_validate_json(line)
    except ValidationError as error:
        raise NotProvenError("line 1 is not the header of an export by `watchkeeper audit export`") from error
    if line.rstrip("\n") != header_line(header):
        raise NotProvenError("line 1 is not written as an export writes it")
    return header


def _rows(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    """Each line's row; only the canonical text counts, so that nobody else reads something else in it."""
    for number, line in enumerate(lines, start=2):
        text = line.removesuffix("\n")
        try:
            row = json.loads(text) if len(text) <= _LONGEST_LINE else None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or set(row) != set(_FIELDS) or canonical(row) != text:
            raise NotProvenError(f"line {number} is not a row as an export writes it")
        yield row


def _linked(row: Mapping[str, Any], seq: int, previous: str) -> str:
    """The row's hash, if it is the next link. Raises NotProvenError."""
    if type(row["seq"]) is not int or row["seq"] != seq:
        raise NotProvenError(f"row {seq} is missing: {row['seq']!r} stands in its place")
    if row["previous_hash"] != previous:
        raise NotProvenError(f"row {seq} does not follow the row before it")
    said = (row["at"], row["actor"], row["action"], row["subject"], row["details"])
    if row["hash"] != link_hash(seq, *said, previous):
        raise NotProvenError(f"row {seq} was changed")
    return str(row["hash"])
