"""
Signed checkpoints: where the record ended, in a line that only this deployment can have written.

Whoever administers the database can rewrite every row and every hash. They cannot sign, since the key is not there.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from bot.proof import Checkpoint, Known, NotProvenError, canonical
from bot.seal import SealKey, is_signed


def signed_line(checkpoint: Checkpoint, key: SealKey) -> str:
    """One line of JSON: the checkpoint, and the signature over it as `canonical` writes it."""
    said = checkpoint.model_dump()
    return canonical({**said, "signature": key.sign(canonical(said))})


def read_checkpoints(text: str, public: str) -> Known:
    """
    The checkpoints of a file, one a line, oldest first.

    Raises NotProvenError with the first line that is none, is not signed with the key of `public`, or goes back;
    WatchkeeperError when `public` is no key.
    """
    found: list[Checkpoint] = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        item = _signed(line, number, public)
        if found and _goes_back(found[-1], item):
            before = found[-1].sequence
            raise NotProvenError(
                f"line {number} is of row {item.sequence}, after one of row {before}: the record, or the file, was "
                "turned back or exchanged there"
            )
        found.append(item)
    return Known(*found)


def _signed(line: str, number: int, public: str) -> Checkpoint:
    try:
        said: Any = json.loads(line)
        signature = str(said.pop("signature"))
        checkpoint = Checkpoint.model_validate(said)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, ValidationError) as error:
        raise NotProvenError(
            f"line {number} is no signed checkpoint, such as `watchkeeper audit checkpoint` writes: it was cut short, "
            "or nobody signed it"
        ) from error
    if not is_signed(canonical(said), signature, public):
        raise NotProvenError(f"line {number} was changed, or signed with another key: it proves nothing")
    return checkpoint


def _goes_back(before: Checkpoint, after: Checkpoint) -> bool:
    if before.sequence == 0:
        return False
    is_same_row = after.sequence == before.sequence
    return (
        after.sequence < before.sequence or after.record != before.record or (is_same_row and after.hash != before.hash)
    )
