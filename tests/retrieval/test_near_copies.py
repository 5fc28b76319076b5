"""A flood of copies of one text takes one place on the card and not all."""

from __future__ import annotations

import random
from dataclasses import replace

from retrieval.documents import Document, Origin, Question, Section
from retrieval.ranking import RunbookSearch

WORDS = [f"{first}{second}" for first in "bcdfghklmnprst" for second in ("arkal", "estin", "ilvor", "oprun", "umbed")]


def paper(name: str, text: str, folder: str) -> Document:
    return Document(
        doc_id=name,
        title=name,
        sections=(Section(heading="", text=text),),
        origin=Origin(file=f"{folder}/{name}.md", folder=folder),
    )


def told(seed: int) -> str:
    """A long text of its own, from the same few words."""
    return " ".join(random.Random(seed).choices(WORDS, k=400))


async def found(documents: list[Document], text: str) -> dict[str, tuple[str, ...]]:
    search = RunbookSearch(floor=0.0)
    await search.refresh(documents)
    return {hit.doc_id: hit.reasons for hit in await search.search(Question(text=text), limit=10)}


async def test_of_a_family_in_one_folder_one_is_shown() -> None:
    """Thirty reviewed copies, each stuffed a little otherwise, leave room for the two that are not copies."""
    flood = [paper(f"copy-{number}", f"{told(3)} poodle poodle extra{number}", "/theirs") for number in range(30)]
    others = [paper("ours", told(3), "/ours"), paper("sibling", f"{told(5)} poodle", "/theirs")]

    hits = await found([*flood, *others], "poodle barkal")

    assert {"ours", "sibling"} < hits.keys()
    [shown] = hits.keys() - {"ours", "sibling"}
    assert "near copies of it in the same folder, not shown: 29" in hits[shown]


async def test_nobody_hides_what_lies_in_another_folder() -> None:
    """A copy that ranks first must not take the original, and its steps, off the card."""
    original = paper("original", told(3), "/ours")
    copy = replace(paper("copy", f"{told(3)} poodle", "/theirs"), alerts=("PoodleLost",))

    assert set(await found([original, copy], "PoodleLost: poodle barkal")) == {"original", "copy"}


async def test_runbooks_from_one_template_are_no_copies() -> None:
    """A family that differs in one sentence of six is told apart: the warning at 85 % and that at 95 %."""
    same = told(7).split()
    siblings = [paper(f"at-{level}", " ".join([*same[:330], *told(level).split()[:70]]), "/ours") for level in (2, 11)]

    assert set(await found(siblings, "barkal")) == {"at-2", "at-11"}
