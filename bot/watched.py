"""Telemetry and search, with what they answered and how long it took told to the product's own metrics."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge, Histogram

from bot.far_ends import FarEnds
from diagnostics.telemetry.model import Matrix, Query, Telemetry, TelemetryError, Vector
from retrieval.documents import Hit, Question
from retrieval.embedder import Embedder
from retrieval.reranker import RerankedSearch, Reranker
from retrieval.vectors import VectorCache

Answer = TypeVar("Answer")


class WatchedTelemetry:
    """A `Telemetry` that says to the tally who answered. Raises what the source raises."""

    def __init__(self, name: str, source: Telemetry, far_ends: FarEnds) -> None:
        self._name = name
        self._source = source
        self._far_ends = far_ends
        far_ends.expect(name)

    async def now(self) -> datetime:
        return await self._told("now", self._source.now())

    async def vector(self, query: Query, at: datetime) -> Vector:
        return await self._told("vector", self._source.vector(query, at))

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        return await self._told("matrix", self._source.matrix(query, start, end, step))

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        return await self._told("exported", self._source.exported(metric, at, where))

    async def _told(self, method: str, asking: Awaitable[Answer]) -> Answer:
        try:
            answer = await asking
        except TelemetryError as error:
            self._far_ends.failed(self._name, method, "unreachable", str(error))
            raise
        self._far_ends.answered(self._name, method)
        return answer


class WatchedSearch(RerankedSearch):
    """Says how long runbooks are searched for, and whether the embedding model takes part."""

    def __init__(
        self, registry: CollectorRegistry, embedder: Embedder, cache: VectorCache, reranker: Reranker | None = None
    ) -> None:
        super().__init__(embedder, cache, reranker=reranker)
        self._seconds = Histogram(
            "watchkeeper_runbook_search_seconds",
            "How long the search for runbooks took",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3),
            registry=registry,
        )
        self._loaded = Gauge(
            "watchkeeper_embedding_model_loaded", "1 when runbooks are found by meaning, too", registry=registry
        )

    async def warm(self) -> None:
        """Raises as the search itself does."""
        await super().warm()
        self._loaded.set(1)

    async def search(self, question: Question, limit: int = 3) -> list[Hit]:
        began = time.monotonic()
        try:
            return await super().search(question, limit)
        finally:
            self._seconds.observe(time.monotonic() - began)
