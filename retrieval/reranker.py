"""
An optional cross-encoder of your own that looks at question and runbook together; off unless somebody names one.

It reads words alone, so it changes places only among runbooks for which people and the diagnosis said the same: what an
author declared, an alert links, or telemetry shows is never outvoted. Missing, slow or broken, it changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog

from retrieval.documents import Document, Hit, Question
from retrieval.embedder import Embedder, EmbeddingError
from retrieval.heavy_thread import in_heavy_thread
from retrieval.ranking import FLOOR, RunbookSearch
from retrieval.vectors import VectorCache
from retrieval.weights import WeightsError, fingerprint, named_folder
from retrieval.words import cleaned

log = structlog.get_logger(__name__)

FEW = 5
"""So many of the first hits it reads: each costs a pass through the model."""

PATIENCE_S = 1.0
MOVED = "moved by the re-ranker"

_WORD_PIECES = 512
_DECLARED = ("linked by", "alert name", "diagnosis says")


def reranker_for(model: str | None, sha256: str | None = None) -> Reranker | None:
    """The one of this path or name; None where nobody named one."""
    return None if model is None else Reranker(model, sha256)


class Reranker:
    """
    A sequence classifier with one score, by path or name: safetensors only, no code that came with it, no network.

    `sha256` is what its model.safetensors has to have.
    """

    def __init__(self, model: str, sha256: str | None = None) -> None:
        self._named = model
        self._wanted = sha256
        self._loaded: tuple[Any, Any] | None = None

    @property
    def ready(self) -> bool:
        return self._loaded is not None

    async def warm(self) -> None:
        """Check, load and try it once. Raises WeightsError, EmbeddingError."""
        await self.scores("first call", ["first call"])

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """One number per text, larger fits better. Raises EmbeddingError; WeightsError where nobody warmed it."""
        return await in_heavy_thread(partial(self._scores, question, list(texts)))

    def _scores(self, question: str, texts: list[str]) -> list[float]:
        import torch  # noqa: PLC0415  heavy, and loaded by then

        tokenizer, model = self._load()
        readable = [text.encode("utf-8", "replace").decode("utf-8") for text in (question, *texts)]
        longest = min(tokenizer.model_max_length, _WORD_PIECES)
        pairs = tokenizer(
            [readable[0]] * len(texts),
            readable[1:],
            padding=True,
            truncation="longest_first",
            max_length=longest,
            return_tensors="pt",
        )
        try:
            with torch.inference_mode():
                return [float(score) for score in model(**pairs).logits[:, 0]]
        except RuntimeError as error:  # torch's own class for everything
            raise EmbeddingError(f"re-ranking failed: {error}") from error

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            folder = named_folder(self._named, "re-ranker")
            fingerprint(folder, self._wanted)
            _refuse_code(folder)
            self._loaded = _loaded(folder)
        return self._loaded


class RerankedSearch(RunbookSearch):
    """A search whose first hits a re-ranker may put in another order; without one, the search itself."""

    def __init__(
        self,
        embedder: Embedder | None = None,
        cache: VectorCache | None = None,
        *,
        floor: float = FLOOR,
        reranker: Reranker | None = None,
        rerank_patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(embedder, cache, floor=floor)
        self._reranker = reranker
        self._rerank_patience_s = rerank_patience_s
        self._documents: dict[str, Document] = {}

    async def warm(self) -> None:
        """Raises as the search itself does; a re-ranker that cannot be used is said in the log, and left out."""
        await super().warm()
        if self._reranker is not None:
            try:
                await self._reranker.warm()
            except (WeightsError, EmbeddingError) as error:
                log.error("the re-ranker cannot be used; runbooks keep their order", why=str(error))  # noqa: TRY400

    async def refresh(self, documents: Sequence[Document]) -> None:
        await super().refresh(documents)
        self._documents = {document.doc_id: document for document in documents}

    async def search(self, question: Question, limit: int = 3) -> list[Hit]:
        if self._reranker is None or not self._reranker.ready:
            return await super().search(question, limit)
        hits = await super().search(question, max(limit, FEW))
        few = hits[:FEW]
        if len(few) > 1:
            hits[:FEW] = await self._reordered(self._reranker, question, few)
        return hits[:limit]

    async def _reordered(self, reranker: Reranker, question: Question, hits: list[Hit]) -> list[Hit]:
        said = cleaned(f"{question.alert}\n{question.text}")
        try:
            async with asyncio.timeout(self._rerank_patience_s):
                scores = await reranker.scores(said, [self._text_of(hit) for hit in hits])
        except TimeoutError:
            log.warning("runbooks keep their order: the re-ranker is too slow", patience_s=self._rerank_patience_s)
            return hits
        except EmbeddingError as error:
            log.warning("runbooks keep their order: the re-ranker failed", reason=str(error))
            return hits
        return reordered(hits, scores)

    def _text_of(self, hit: Hit) -> str:
        """Its title and the section that the hit points to."""
        document = self._documents.get(hit.doc_id)
        sections = document.sections if document else ()
        text = next((section.text for section in sections if section.heading == hit.heading), "")
        return f"{hit.title}. {hit.heading}. {text}"


def reordered(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    """
    By score within each run of hits for which the same was declared; pure.

    Who moved says so; nobody is surer than the one above.
    """
    order: list[Hit] = []
    for _, run in groupby(zip(hits, scores, strict=True), key=lambda pair: _declared(pair[0])):
        order += [hit for hit, _ in sorted(run, key=lambda pair: -pair[1])]
    ceiling, shown = 1.0, []
    for before, hit in zip(hits, order, strict=True):
        ceiling = min(ceiling, hit.score)
        reasons = hit.reasons if hit is before else (*hit.reasons, MOVED)
        shown.append(replace(hit, score=ceiling, reasons=reasons))
    return shown


def _declared(hit: Hit) -> tuple[str, ...]:
    """What people and the diagnosis said for it."""
    return tuple(reason for reason in hit.reasons if reason.startswith(_DECLARED))


def _refuse_code(folder: Path) -> None:
    for file in sorted(folder.glob("*config.json")):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"cannot read {file}: {error}") from error
        if isinstance(said, dict) and "auto_map" in said:
            raise WeightsError(
                f"{file} wants code that comes with the model (auto_map), and none is run; "
                "choose a model of an architecture that transformers has itself"
            )


def _loaded(folder: Path) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415  heavy: only where somebody named a re-ranker
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415  heavy, see above

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError, RuntimeError) as error:  # what transformers says of a folder that holds no such model
        raise WeightsError(f"the re-ranker in {folder} cannot be loaded: {error}") from error
    if model.config.num_labels != 1:
        raise WeightsError(
            f"the re-ranker in {folder} gives {model.config.num_labels} numbers for a pair and must give one"
        )
    return tokenizer, model.eval()
