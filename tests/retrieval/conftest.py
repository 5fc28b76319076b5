"""The runbooks that the retrieval tests search, and who searches them."""

from __future__ import annotations

import pytest

from retrieval.documents import Document, Section
from retrieval.ranking import RunbookSearch
from tests.retrieval.hashing_embedder import HashingEmbedder


def runbook(doc_id: str, title: str, text: str, **declared: tuple[str, ...]) -> Document:
    """A runbook with one section."""
    return Document(
        doc_id=doc_id,
        title=title,
        sections=(Section(heading="Symptoms", text=text),),
        url=f"https://runbooks.example.com/{doc_id}.md",
        **declared,  # type: ignore[arg-type]  # mypy does not match ** with the one field that is a string
    )


PREFIX_CACHE = runbook(
    "prefix-cache-collapse",
    "Prefix cache collapse",
    "The prefix cache hit ratio fell and prefill takes longer, often after a prompt change.",
    alerts=("LLMHighTTFT",),
    causes=("S04",),
)
QUEUE = runbook(
    "queue-buildup",
    "Requests wait in the queue",
    "Requests arrive faster than replicas serve them, so queue time grows. Add replicas.",
    alerts=("LLMHighTTFT",),
    causes=("S01",),
)
GPU = runbook(
    "gpu-fell-off",
    "GPU fell off the bus",
    "The driver logs XID 79 and the GPU is missing from its node.",
    causes=("G01",),
)
BILLING_ONLY = runbook(
    "token-budget",
    "Token budget spent",
    "The provider answers 429 since the monthly budget for tokens is spent.",
    causes=("X01",),
    services=("billing-bot",),
)
RUNBOOKS = (PREFIX_CACHE, QUEUE, GPU, BILLING_ONLY)


@pytest.fixture
def embedder() -> HashingEmbedder:
    """An embedder that is ready at once."""
    return HashingEmbedder()


@pytest.fixture
async def search(embedder: HashingEmbedder) -> RunbookSearch:
    """A search over four runbooks, words and vectors."""
    search = RunbookSearch(embedder)
    await search.refresh(RUNBOOKS)
    return search
