"""Faults of retrieval: a vector store that does not keep up, vectors that do not fit, an index that lost documents."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lab.knowledge_store import SOURCE, Collection, Embedder
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage

_NEXT_COLLECTION = "manuals-v8"
_OTHER_EMBEDDERS = (
    Embedder(name="e5-large-v2", dimensions=1024),
    Embedder(name="bge-m3", dimensions=1024),
    Embedder(name="text-embedding-3-small", dimensions=1536),
    Embedder(name="all-MiniLM-L6-v2", dimensions=384),
)


class _RetrievalFault(Fault):
    """Bounded by the one source of passages that there is."""

    alert = "LLMRetrievalEmpty"

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "data_source", [SOURCE]

    def is_healthy(self, stage: Stage) -> bool:
        """Searches find as much as they usually do."""
        return stage.knowledge_store.passages_share() >= 0.95


class VectorStoreSlow(_RetrievalFault):
    """Searches wait until the application gives up on them; prompts then carry few passages, and are short."""

    id = "I05"
    title = "The vector database is down or slow"
    by_hand = "Stop bulk uploads"
    shapes = (Shape.STEP, Shape.RAMP)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.overload = min(1.0, 0.95 * strength)

    def draw(self, stage: Stage) -> None:
        self.overload = min(1.0, self.overload * float(stage.rng.uniform(0.85, 1.15)))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        stage.knowledge_store.overload = level * self.overload


class EmbedderMismatched(_RetrievalFault):
    """Somebody deployed another embedding model, whose vectors the collection refuses."""

    id = "I06"
    title = "The embedder does not fit the index"
    by_hand = "Roll the embedding model back"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.embedder = _OTHER_EMBEDDERS[0]
        self._before = Embedder()

    def draw(self, stage: Stage) -> None:
        self.embedder = _OTHER_EMBEDDERS[int(stage.rng.integers(len(_OTHER_EMBEDDERS)))]

    def begin(self, stage: Stage, at: datetime) -> None:
        self._before = stage.knowledge_store.embedder
        stage.log.append(
            self.guilty(
                at,
                "embedder",
                f"embed questions with {self.embedder.name}",
                "argocd",
                author="rag-team",
                scope={"data_source": (SOURCE,)},
                before=self._before.name,
                after=self.embedder.name,
            )
        )

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        stage.knowledge_store.embedder = self.embedder if level > 0 else self._before


class IndexLostDocuments(_RetrievalFault):
    """Searches go to a collection that a reindexing filled with a part of the documents."""

    id = "I07"
    title = "The search index lost documents"
    by_hand = "point the alias back"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.kept = max(0.02, 1 - 0.8 * strength)
        self.empty = min(0.95, 0.02 + 0.53 * strength)
        self.score = max(0.1, 0.72 - 0.31 * strength)
        self.moves_alias = True
        self._before = ""
        self._whole = Collection()

    def draw(self, stage: Stage) -> None:
        rng, s = stage.rng, self.strength
        self.kept = max(0.02, 1 - s * float(rng.uniform(0.65, 0.95)))
        self.empty = min(0.95, 0.02 + s * float(rng.uniform(0.42, 0.64)))
        self.score = max(0.1, 0.72 - s * float(rng.uniform(0.25, 0.37)))
        self.moves_alias = bool(rng.random() < 0.5)

    def begin(self, stage: Stage, at: datetime) -> None:
        store = stage.knowledge_store
        self._before, self._whole = store.serves, store.collection
        after = _NEXT_COLLECTION if self.moves_alias else self._before
        summary = f"point the alias manuals to {after}" if self.moves_alias else f"reindex {after}"
        scope = {"data_source": (SOURCE,)}
        more = {"author": "ingestion", "scope": scope, "before": self._before, "after": after}
        stage.log.append(self.guilty(at, "index", summary, "ingestion", **more))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        store = stage.knowledge_store
        points = round(self._whole.points * self.kept)
        poor = replace(self._whole, points=points, empty=self.empty, score=self.score)
        if self.moves_alias:
            store.collections[_NEXT_COLLECTION] = poor
            store.serves = _NEXT_COLLECTION if level > 0 else self._before
        else:
            store.collections[self._before] = poor if level > 0 else self._whole
