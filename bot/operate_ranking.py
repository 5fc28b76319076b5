"""What `watchkeeper retrieval learn` does beside the database: learn from votes and fixes, measure it, offer it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.config import Config
from bot.feedback import Lessons, content_of, digest_of
from bot.incidents import WatchkeeperError
from bot.library import open_shelf
from bot.operate import open_database
from bot.parts import vectors_key, vectors_path
from bot.ranking_shown import lines
from bot.redact import safe_text
from bot.settings import Settings
from bot.store.incidents import Incidents
from bot.store.rankings import Offer, Rankings
from bot.store.votes import Votes
from retrieval.embedder import embedder_for
from retrieval.feedback import Experience, Lesson, learned
from retrieval.feedback_gain import Gain, TooLittleError, Trial, gain
from retrieval.measures import DEPTH
from retrieval.ranking import RunbookSearch
from retrieval.reranker import RerankedSearch, reranker_for
from retrieval.vectors import SqliteVectors


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What can be offered, by team; and why the other teams have nothing."""

    teams: Mapping[str, tuple[Experience, Gain]]
    left_out: Mapping[str, str]


async def learn(settings: Settings, config: Config, *, actor: str, now: datetime) -> str:
    """
    Learn from everything stored, offer it under its hash, and say what it would have gained.

    Raises WatchkeeperError when no team has enough to learn from; WeightsError, EmbeddingError of the model.
    """
    async with open_database(settings) as database:
        lessons = await Lessons(Incidents(database), Votes(database), config).by_team()
        search, contents = await _search(settings, config)
        found = await learn_from(lessons, search, contents)
        if not found.teams:
            raise WatchkeeperError("\n".join(["there is nothing to offer:", *_left_out(found, lessons)]))
        content = content_of(found.teams)
        offer = Offer(digest=digest_of(content), content=content, made_at=now, made_by=actor)
        is_new = await Rankings(database).offer(offer)
    said = [*lines(content), *_left_out(found, lessons), ""]
    said.append(f"offered as {offer.digest}" + ("" if is_new else ", as it was before"))
    said.append(f"Nothing changes before somebody has read it: watchkeeper retrieval adopt {offer.digest}")
    return safe_text("\n".join(said))


async def learn_from(
    lessons: Mapping[str, Sequence[Lesson]], search: RunbookSearch, contents: Mapping[str, str]
) -> Learned:
    """Each team by itself; what would have made its answers worse is not offered."""
    teams: dict[str, tuple[Experience, Gain]] = {}
    left_out: dict[str, str] = {}
    for team, known in sorted(lessons.items()):
        trials = [
            Trial(lesson=lesson, hits=await search.search(lesson.question, limit=DEPTH))
            for lesson in known
            if lesson.right
        ]
        try:
            measured = await asyncio.to_thread(gain, known, trials, contents)
        except TooLittleError as error:
            left_out[team] = str(error)
            continue
        if measured.mrr_10.after < measured.mrr_10.before:
            change = f"MRR@10 {measured.mrr_10.before:.3f} to {measured.mrr_10.after:.3f}"
            left_out[team] = f"it would have made the answers worse ({change})"
            continue
        teams[team] = (learned(known, contents), measured)
    return Learned(teams=teams, left_out=left_out)


async def _search(settings: Settings, config: Config) -> tuple[RunbookSearch, dict[str, str]]:
    """The search as the product asks it now, without any experience; and each runbook's SHA-256."""
    vectors = SqliteVectors(vectors_path(settings.database_url.get_secret_value()), vectors_key(settings))
    embedder = embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash)
    reranker = reranker_for(settings.watchkeeper_rerank_model, settings.watchkeeper_rerank_hash)
    search = RerankedSearch(embedder, vectors, reranker=reranker)
    documents = open_shelf(config.runbooks).documents()
    await search.warm()
    await search.refresh(documents)
    return search, {document.doc_id: document.origin.sha256 for document in documents}


def _left_out(found: Learned, lessons: Mapping[str, Sequence[Lesson]]) -> Iterator[str]:
    yield from (f"{team}: left out, {why}" for team, why in found.left_out.items())
    if not lessons:
        yield "nobody has voted on a runbook of a configured service, and no fix has resolved an incident"
