"""What is exported of retrieval: the application's calls by outcome, and the vector store's own metrics (Qdrant's)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.exposition import Family, Registry, counter, histogram
from lab.inputs import Inputs
from lab.knowledge_store import SOURCE, KnowledgeStore
from lab.serving import LATENCY_SIGMA, lognormal

_BOUNDS = (0.01, 0.05, 0.1, 0.5, 5)
_SCORE_SIGMA = 0.08

RETRIEVAL = counter("llm_app_retrieval_total", "Retrieval calls by outcome.")
SCORE_SUM = counter("llm_app_retrieval_score_sum", "Sum of top-1 similarities.")
SCORE_COUNT = counter("llm_app_retrieval_score_count", "Number of top-1 similarities.")
RESPONSES = counter("rest_responses_total", "Responses of the vector store's REST API.")
FAILED = counter("rest_responses_fail_total", "Failed responses of the vector store's REST API.")
DURATION = histogram("rest_responses_duration_seconds", "Response times of the vector store's REST API.")
POINTS = Family(name="collection_points", kind="gauge", help="Points of a collection.")


@dataclass(kw_only=True)
class RetrievalExporter:
    """
    Both sides of every search.

    Qdrant names a collection by the label `id`; the scrape adds it as `collection` too, and the service that it serves.
    """

    registry: Registry
    store: KnowledgeStore
    inputs: Inputs
    rng: np.random.Generator
    service: str = "chat"

    def step(self, n: int) -> None:
        """Account for n searches."""
        about = {"service": self.service, "data_source": SOURCE}
        outcomes = self.store.outcomes
        self.registry.spread(self.rng, RETRIEVAL, about, ("outcome", outcomes), n)
        scored = int(self.rng.binomial(n, min(1.0, outcomes["ok"] + self.store.empty)))
        if self.store.is_mismatched:
            scored = 0  # a refused search has no best passage
        self.registry.add(SCORE_SUM, about, self._scores(scored))
        self.registry.add(SCORE_COUNT, about, scored)
        self._export_store(n)

    def _scores(self, n: int) -> float:
        return round(float(self.rng.normal(self.store.score - self.inputs.score_lost, _SCORE_SIGMA, n).sum()), 4)

    def _export_store(self, n: int) -> None:
        scraped = {"service": self.service, "namespace": self.service}
        endpoint = {**scraped, "method": "POST", "endpoint": "/collections/{name}/points/search"}
        before = self._failed(endpoint)
        self.registry.spread(self.rng, RESPONSES, endpoint, ("status", self.store.statuses), n)
        self.registry.add(FAILED, endpoint, self._failed(endpoint) - before)
        took = lognormal(self.rng, 0.6 * self.store.takes_s, LATENCY_SIGMA, n)
        self.registry.observe(self.registry.histogram(DURATION, _BOUNDS, endpoint), took)
        for name, collection in self.store.collections.items():
            self.registry.set(POINTS, {**scraped, "id": name, "collection": name}, collection.points)

    def _failed(self, endpoint: dict[str, str]) -> float:
        """How many were not 2xx up to now."""
        places = [self.registry.place(RESPONSES, {**endpoint, "status": status}) for status in ("400", "503")]
        return float(self.registry.values[places].sum())
