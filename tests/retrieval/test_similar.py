"""Past incidents beside a question: what speaks for one, what against, and when there is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from retrieval.documents import Question
from retrieval.forgetting import ForgettingVectors
from retrieval.similar import IncidentSearch, Past
from tests.retrieval.hashing_embedder import HashingEmbedder

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
ALERT = "LLMHighTTFT"


def past(incident_id: str, text: str, days: int = 1, **known: str | float) -> Past:
    """An incident of the service chat, so many days ago."""
    values = {"title": text.partition(".")[0], "service": "chat", "certainty": 0.9 if known.get("cause") else 0.0}
    return Past(incident_id=incident_id, began=NOW - timedelta(days=days), text=text, **{**values, **known})  # type: ignore[arg-type]


PREFIX = past("prefix", "First token slow. The prefix cache hit ratio fell after a prompt change.", 9, cause="S04")
QUEUE = past("queue", "First token slow. Requests wait in the queue of all replicas.", 2, cause="S01", alert=ALERT)
GPU = past("gpu", "A GPU fell off the bus. The driver logs XID 79.", 3, cause="G01", service="search")
UNKNOWN = past("unknown", "Answers cut off in the middle of a sentence", 4, alert="LLMShortAnswers")
ALL = (PREFIX, QUEUE, GPU, UNKNOWN)
EVERYTHING = frozenset(each.incident_id for each in ALL)


@pytest.fixture
async def search() -> IncidentSearch:
    """By words and vectors."""
    search = IncidentSearch(HashingEmbedder())
    await search.refresh(ALL)
    return search


async def test_the_same_cause_goes_before_the_same_alert(search: IncidentSearch) -> None:
    """One alert has many causes; where the diagnosis is sure, an incident of another cause does not resemble this."""
    question = Question(text="First token slow", alert=ALERT, service="chat", causes=(("S04", 0.9), ("S01", 0.02)))

    found = await search.similar(question, EVERYTHING)

    assert [each.incident_id for each in found] == ["prefix"]
    assert found[0].reasons[:2] == ("same cause (S04, now 90 %)", "same service")


async def test_without_a_diagnosis_alert_and_words_have_to_do(search: IncidentSearch) -> None:
    """The telemetry could not be asked: the same alert resembles, and says that it is the reason."""
    [first, *_] = await search.similar(Question(text="first token slow", alert=ALERT, service="chat"), EVERYTHING)

    assert first.incident_id == "queue"
    assert first.reasons[:2] == ("same alert", "same service")


async def test_only_whom_one_may_see_and_only_if_any_resembles(search: IncidentSearch) -> None:
    """A perfect match of strangers is none; a far topic fits nothing."""
    question = Question(text="A GPU fell off the bus, XID 79", service="chat", causes=(("G01", 0.99),))

    assert (await search.similar(question, EVERYTHING))[0].incident_id == "gpu"
    assert await search.similar(question, EVERYTHING - {"gpu"}) == []
    assert await search.similar(Question(text="invoices are late", service="chat"), EVERYTHING) == []


async def test_of_equals_the_latest_is_first(search: IncidentSearch) -> None:
    """An alert that came twice with the same words."""
    await search.refresh((past("old", "Disk full on the proxy", 30), past("new", "Disk full on the proxy", 2), *ALL))

    found = await search.similar(Question(text="Disk full on the proxy"), {"old", "new"})

    assert [each.incident_id for each in found] == ["new", "old"]


async def test_words_answer_until_the_model_is_ready() -> None:
    """And say so."""
    embedder = HashingEmbedder(ready=False)
    search = IncidentSearch(embedder)
    await search.refresh(ALL)
    question = Question(text="prefix cache hit ratio fell after a prompt change, first token slow")

    by_words = await search.similar(question, EVERYTHING)
    await search.warm()
    by_both = await search.similar(question, EVERYTHING)

    assert by_words[0].incident_id == by_both[0].incident_id == "prefix"
    assert by_words[0].reasons[-1].startswith("by words only")
    assert by_both[0].reasons[-1].startswith("similar in meaning")


def test_a_cache_forgets_all_but_what_is_named(tmp_path: Path) -> None:
    """Of other models, too; what is deleted is not left in the file's free pages."""
    cache = ForgettingVectors(tmp_path / "v.sqlite", b"key")
    marked = np.frombuffer(b"forget me" * 4, np.float32).reshape(1, -1)
    for model in ("old", "new"):
        cache.keep(model, ["gone"], marked)
        cache.keep(model, ["kept"], np.ones((1, 9), np.float32))
    assert b"forget me" in (tmp_path / "v.sqlite").read_bytes()

    cache.keep_only("new", ["kept", "never there"])

    assert set(cache.known("new", ["kept", "gone"])) == {"kept"}
    assert cache.known("old", ["kept", "gone"]) == {}
    assert b"forget me" not in (tmp_path / "v.sqlite").read_bytes()
    with closing(sqlite3.connect(tmp_path / "v.sqlite")) as connection:
        assert connection.execute("SELECT model FROM vector").fetchall() == [("new",)]
