"""What `watchkeeper search` prints: each runbook with its reasons and, when asked, where exactly it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from retrieval.documents import Hit
from runbooks.engine.problems import Problem


def show_hits(hits: Sequence[Hit], problems: Sequence[Problem] | None, out: TextIO) -> None:
    """The best first. With problems (none is a list, too) it says where each came from, and what was left out."""
    for hit in hits:
        heading = f", {hit.heading}" if hit.heading not in {"", hit.title} else ""
        print(f"{hit.score:4.0%}  {hit.title}{heading} ({hit.doc_id})", file=out)
        print(f"      {'; '.join(hit.reasons)}", file=out)
        if problems is not None:
            print(f"      {hit.link or hit.origin.file + hit.anchor}", file=out)
            print(f"      from {hit.origin}", file=out)
    if not hits:
        print("none fits", file=out)
    for problem in problems or ():
        print(f"not as written: {problem}", file=out)
