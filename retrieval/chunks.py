"""Documents cut into what the embedding model reads at once: a section behind the path of its headings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from retrieval.documents import Document
from retrieval.words import spaced

# The model reads 256 word pieces, about 170 words of technical English; the rest of a chunk would go unread.
WORDS = 160
# A hostile or generated document must not cost minutes: the first 64 chunks (10,000 words) stand for it.
MOST_PER_DOCUMENT = 64


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of a document: its place in the list of documents, its section's place there, and the text to embed."""

    document: int
    section: int
    text: str


def chunks_of(documents: Sequence[Document]) -> list[Chunk]:
    """The chunks of all documents, in order; a document without sections is its title."""
    return [chunk for at, document in enumerate(documents) for chunk in islice(_cut(at, document), MOST_PER_DOCUMENT)]


def _cut(at: int, document: Document) -> Iterator[Chunk]:
    title = spaced(document.title)
    if not document.sections:
        yield Chunk(document=at, section=-1, text=f"{title}.")
    for place, section in enumerate(document.sections):
        path = [name for name in (*section.path, section.heading) if name not in {"", document.title}]
        front = f"{'. '.join((title, *path))}."
        prose = section.text.split()
        for start in range(0, max(1, len(prose)), WORDS):
            piece = " ".join(prose[start : start + WORDS])
            yield Chunk(document=at, section=place, text=f"{front} {piece}".strip())
