"""Markdown to documents, documents to what the model reads."""

from __future__ import annotations

from retrieval.chunks import MOST_PER_DOCUMENT, WORDS, chunks_of
from retrieval.documents import Document, Section
from retrieval.markdown import document_from_markdown

MARKDOWN = """Preamble.

# NodeDown

## Meaning
A node is gone.

```console
# not a heading
$ kubectl get nodes
```

## Mitigation
Restart it.
"""


def test_headings_make_sections() -> None:
    """Each heading opens a section; a comment in a fence does not."""
    document = document_from_markdown("x/NodeDown", MARKDOWN)

    assert document.title == "NodeDown"
    assert [section.heading for section in document.sections] == ["", "NodeDown", "Meaning", "Mitigation"]
    assert "# not a heading" in document.sections[2].text


def test_markdown_without_headings_is_one_section() -> None:
    """Prose alone still can be found, under its id."""
    document = document_from_markdown("notes", "Restart the node.")

    assert (document.title, document.sections) == ("notes", (Section(heading="", text="Restart the node."),))


def test_a_chunk_carries_title_and_heading() -> None:
    """Out of its document a section says little; the title is taken apart for the model."""
    document = Document(doc_id="d", title="NodeDown", sections=(Section(heading="Meaning", text="A node is gone."),))

    [chunk] = chunks_of([document])

    assert (chunk.text, chunk.section) == ("Node Down. Meaning. A node is gone.", 0)


def test_a_long_section_is_cut_where_the_model_stops_reading() -> None:
    """Text beyond the model's window would otherwise never be found."""
    document = Document(doc_id="d", title="T", sections=(Section(heading="H", text="word " * (2 * WORDS + 1)),))

    assert [len(chunk.text.split()) for chunk in chunks_of([document])] == [WORDS + 2, WORDS + 2, 3]


def test_a_document_without_sections_is_its_title() -> None:
    """A stub can still be found by name."""
    [chunk] = chunks_of([Document(doc_id="d", title="NodeDown", sections=())])

    assert chunk.text == "Node Down."


def test_a_huge_document_is_bounded() -> None:
    """One generated page must not keep the embedder busy for minutes."""
    document = Document(doc_id="d", title="T", sections=(Section(heading="H", text="word " * 100_000),))

    assert len(chunks_of([document])) == MOST_PER_DOCUMENT
