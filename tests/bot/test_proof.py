"""An export of the record proves itself: no tamper goes unseen, with a checkpoint not even one that hashes all anew."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.proof import (
    GENESIS,
    Checkpoint,
    Header,
    Known,
    NotProvenError,
    canonical,
    header_line,
    link_hash,
    verify_export,
)

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
TAMPERS = 10_000
Rows = list[dict[str, Any]]
BEFORE: dict[str, Any] = {"seq": 0, "hash": GENESIS}


def record(count: int) -> Rows:
    """A chain of so many rows, with everything that JSON knows in their details."""
    rows: Rows = []
    previous = GENESIS
    for seq in range(1, count + 1):
        row: dict[str, Any] = {
            "seq": seq,
            "at": (NOW + timedelta(seconds=seq)).isoformat(),
            "actor": ("alice", "bob", "watchkeeper")[seq % 3],
            "action": "plan.approve",
            "subject": f"Q{seq % 4}",
            "details": {"n": seq, "x": seq / 7, "t": ["é\u2028", None, True], "o": {"a": "\\", "b": str(seq)}},
            "previous_hash": previous,
        }
        row["hash"] = previous = hash_of(row)
        rows.append(row)
    return rows


def hash_of(row: dict[str, Any]) -> str:
    said = (row["at"], row["actor"], row["action"], row["subject"], row["details"])
    return link_hash(row["seq"], *said, row["previous_hash"])


def hash_anew(rows: Rows, start: int = 0) -> None:
    """What somebody with the whole export in their hands can do: number and link everything from here on again."""
    for index in range(start, len(rows)):
        before = rows[index - 1] if index else BEFORE
        rows[index] |= {"seq": before["seq"] + 1, "previous_hash": before["hash"]}
        rows[index]["hash"] = hash_of(rows[index])


def header(rows: Rows) -> str:
    last = rows[-1] if rows else BEFORE
    return header_line(Header(first=1, last=last["seq"], rows=len(rows), previous_hash=GENESIS, head=last["hash"]))


def export(rows: Rows, first_line: str = "") -> list[str]:
    return [f"{line}\n" for line in (first_line or header(rows), *map(canonical, rows))]


ROWS = record(12)
HONEST = export(ROWS)
HEAD = Checkpoint(record=ROWS[0]["hash"], sequence=12, hash=ROWS[-1]["hash"], at=ROWS[-1]["at"], count=12)


def change_a_field(rows: Rows, dice: random.Random) -> None:
    row = dice.choice(rows)
    name = dice.choice(list(row))
    if name == "details":
        inner = dice.choice(["n", "x", "t", "o"])
        row[name] = {**row[name], inner: dice.choice([-1, 0.5, "", [], {"a": "\\"}])}
    elif name == "seq":
        row[name] += dice.choice([-1, 1, 5])
    elif name == "at":
        row[name] = (NOW - timedelta(seconds=dice.randint(1, 9999))).isoformat()
    else:
        place = dice.randrange(len(row[name]))
        row[name] = row[name][:place] + dice.choice("0123456789abcdefXYZ").swapcase() + row[name][place + 1 :] + "0"


def drop(rows: Rows, dice: random.Random) -> None:
    del rows[dice.randrange(len(rows))]


def swap(rows: Rows, dice: random.Random) -> None:
    one, two = dice.sample(range(len(rows)), 2)
    rows[one], rows[two] = rows[two], rows[one]


def insert(rows: Rows, dice: random.Random) -> None:
    rows.insert(dice.randrange(len(rows) + 1), {**dice.choice(rows), "actor": "mallory"})


def truncate(rows: Rows, dice: random.Random) -> None:
    del rows[dice.randrange(len(rows)) :]


def forge(rows: Rows, dice: random.Random) -> None:
    """A lie, and every hash after it right again."""
    place = dice.randrange(len(rows))
    deed = dice.choice([change_who, drop_at, insert_at])
    deed(rows, place)
    hash_anew(rows, min(place, len(rows)))


def change_who(rows: Rows, place: int) -> None:
    rows[place]["actor"] = "mallory"


def drop_at(rows: Rows, place: int) -> None:
    del rows[place]


def insert_at(rows: Rows, place: int) -> None:
    rows.insert(place, {**rows[place], "actor": "mallory"})


PLAIN: tuple[Callable[[Rows, random.Random], None], ...] = (change_a_field, drop, swap, insert, truncate)


def test_an_honest_export_holds() -> None:
    """Alone, against any checkpoint of its time, and as the part of a longer record."""
    assert verify_export(HONEST).head == HEAD.hash
    for row in ROWS:
        known = HEAD.model_copy(update={"sequence": row["seq"], "hash": row["hash"]})
        assert verify_export(HONEST, Known(known)).rows == 12
    part = Header(first=5, last=12, rows=8, previous_hash=ROWS[3]["hash"], head=HEAD.hash)
    assert verify_export(export(ROWS[4:], header_line(part)), Known(HEAD)).first == 5
    assert verify_export(export([])).rows == 0


def test_ten_thousand_tampers_are_found() -> None:
    """
    A tamper that leaves header or hashes as they were is found without anything else.

    One whose author wrote header and hashes anew as well is found by the checkpoint, which the author could not reach.
    """
    dice = random.Random(20261122)
    unseen = [(seed, deed) for seed in range(TAMPERS) if (deed := unseen_tamper(dice))]

    assert unseen == []


def unseen_tamper(dice: random.Random) -> str:
    """Tamper once; the name of the tamper if it was not found."""
    rows = [{**row} for row in ROWS]
    deed = dice.choice([*PLAIN, forge])
    deed(rows, dice)
    if rows == ROWS:
        return f"{deed.__name__} changed nothing"
    anew = [{**row} for row in rows]
    hash_anew(anew)
    is_covered = (
        anew[: len(ROWS)] != ROWS
    )  # a row behind the checkpoint's is none of its business, an old hash is mended
    if not is_covered or (deed is not forge and dice.random() < 0.5):
        return deed.__name__ if holds(export(rows, HONEST[0].rstrip("\n"))) else ""
    if not holds(export(anew)):
        return f"{deed.__name__}, hashed anew, does not hold by itself, so the checkpoint is not tried"
    return deed.__name__ if holds(export(anew), HEAD) else ""


def holds(lines: list[str], known: Checkpoint | None = None) -> bool:
    try:
        verify_export(lines, Known(known) if known else None)
    except NotProvenError:
        return False
    return True


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (0, "{}"),
        (0, HONEST[0].replace('"first":1', '"first": 1')),
        (0, HONEST[0].replace('"format"', '"from":1,"format"')),
        (3, ""),
        (3, "null"),
        (3, "[" * 100_000),
        (3, HONEST[3].replace('"actor"', '"actor":"mallory","actor"')),  # some readers take the first, some the last
        (3, HONEST[3].replace(",", ", ", 1)),
        (3, HONEST[3].replace('"seq":3', '"seq":3.0')),
        (3, HONEST[3].replace('"seq":3', '"seq":true')),
        (3, HONEST[3].replace("{", '{"also":1,', 1)),
        (12, HONEST[12] + HONEST[12]),
    ],
)
def test_only_what_an_export_writes_is_read(line: int, text: str) -> None:
    """Another reader could see something else in a duplicate key or a line of their own; nobody gets to choose."""
    lines = [*HONEST]
    lines[line] = text

    assert not holds("".join(lines).splitlines(keepends=True))


@pytest.mark.parametrize("known", [HEAD.model_copy(update={"sequence": 13}), HEAD.model_copy(update={"sequence": 9})])
def test_a_checkpoint_of_another_record_does_not_fit(known: Checkpoint) -> None:
    """One from after the end says that the tail is cut off; one inside with another hash that all was rewritten."""
    assert not holds(HONEST, known)


def test_the_documented_script_finds_the_same(tmp_path: Path) -> None:
    """What docs/audit.md gives to strangers accepts the honest export and refuses a forged and a truncated one."""
    document = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)
    forged = [{**row} for row in ROWS]
    change_who(forged, 7)
    hash_anew(forged)
    cases = {"honest": HONEST, "cut": HONEST[:-3], "edited": [*HONEST[:5], *HONEST[6:]], "forged": export(forged)}
    (tmp_path / "verify.py").write_text(script, encoding="utf-8")
    (tmp_path / "head.json").write_text(HEAD.model_dump_json(), encoding="utf-8")

    found = {}
    for name, lines in cases.items():
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "verify.py", name, "head.json"]
        found[name] = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert found == {"honest": 0, "cut": 1, "edited": 1, "forged": 1}
