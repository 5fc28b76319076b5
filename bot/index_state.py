"""What is indexed and how much of it has a vector in the sealed cache; and that cache made anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.config import Config
from bot.incidents import WatchkeeperError
from bot.library import Shelf, open_shelf
from bot.parts import vectors_key, vectors_path
from bot.settings import Settings
from retrieval.chunks import chunks_of
from retrieval.embedder import Embedder
from retrieval.index import kind_for
from retrieval.vectors import SqliteVectors


@dataclass(frozen=True, kw_only=True)
class Cached:
    """The vectors of one model: `usable` of the present sections have one whose seal holds, `rows` are there at all."""

    model: str
    rows: int
    usable: int
    dimensions: int | None


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """`model` is what is configured; its name in the cache has its precision, which loading it would tell."""

    runbooks: int
    pages: int
    left_out: int
    sha256: str
    sections: int
    model: str
    kind: str
    cache: str
    cache_bytes: int | None
    cache_changed_at: datetime | None
    cached: tuple[Cached, ...]

    def lines(self) -> Iterator[str]:
        """For people."""
        which = f"SHA-256 {self.sha256[:12]}"
        yield f"runbooks  {self.runbooks}, plain pages {self.pages}, problems {self.left_out} ({which})"
        yield f"sections  {self.sections}"
        yield f"model     {self.model}"
        yield f"index     {self.kind}, built in memory by each process; no index file is ever read"
        if self.cache_bytes is None or self.cache_changed_at is None:
            yield f"cache     {self.cache} does not exist; the next start, or `watchkeeper index rebuild`, makes it"
            return
        at = f"{self.cache_changed_at:%Y-%m-%d %H:%M} UTC"
        yield f"cache     {self.cache}, {self.cache_bytes / 1e6:.1f} MB, changed {at}"
        for each in self.cached:
            size = f", {each.dimensions} dimensions" if each.dimensions else ""
            yield f"          {each.model}: {each.usable} of {self.sections} sections, {each.rows} rows{size}"
        if not self.cached:
            yield "          no vectors"


def index_state(settings: Settings, config: Config) -> IndexState:
    """Look at the folders and the cache; creates nothing and loads no model. Blocks."""
    shelf = open_shelf(config.runbooks)
    texts = _texts(shelf)
    path, cache = _cache(settings)
    there = path.stat() if path.exists() else None
    return IndexState(
        runbooks=len(shelf.runbooks),
        pages=len(shelf.pages),
        left_out=len(shelf.problems),
        sha256=shelf.sha256,
        sections=len(texts),
        model=settings.watchkeeper_embedding_model or "all-MiniLM-L6-v2, as packaged",
        kind=kind_for(len(texts)),
        cache=str(path),
        cache_bytes=there.st_size if there else None,
        cache_changed_at=datetime.fromtimestamp(there.st_mtime, UTC) if there else None,
        cached=tuple(_cached(cache, texts)) if there else (),
    )


async def rebuild(settings: Settings, config: Config, embedder: Embedder) -> str:
    """
    Embed everything, then let the cache hold that and nothing else; says what was done.

    What goes are vectors of other models and of sections that are no more. Processes that run keep what they have in
    memory. Raises WeightsError, EmbeddingError, WatchkeeperError; then the cache is as it was.
    """
    texts = _texts(open_shelf(config.runbooks))
    await embedder.warm()
    vectors = await embedder.embed(texts)
    path, cache = _cache(settings)
    if not cache.replace(embedder.model_id, texts, vectors):
        raise WatchkeeperError(f"{path} cannot be written, see the log; check its folder's permissions and space")
    return f"{len(texts)} sections embedded with {embedder.model_id} ({vectors.shape[1]} dimensions) into {path}"


def _texts(shelf: Shelf) -> Sequence[str]:
    return list(dict.fromkeys(chunk.text for chunk in chunks_of(shelf.documents())))


def _cache(settings: Settings) -> tuple[Path, SqliteVectors]:
    path = vectors_path(settings.database_url.get_secret_value())
    return path, SqliteVectors(path, vectors_key(settings))


def _cached(cache: SqliteVectors, texts: Sequence[str]) -> Iterator[Cached]:
    for model, rows in sorted(cache.models().items()):
        known = cache.known(model, texts)
        dimensions = len(next(iter(known.values()))) if known else None
        yield Cached(model=model, rows=rows, usable=len(known), dimensions=dimensions)
