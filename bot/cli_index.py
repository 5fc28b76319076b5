"""`watchkeeper search` and `watchkeeper index ...`: runbooks by words and meaning, and what they are searched by."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli_operator import AsJson
from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.config import Config
    from bot.settings import Settings


def add_index_commands(
    app: typer.Typer, settings_of: Callable[[], Settings], configured: Callable[[], tuple[Settings, Config]]
) -> None:
    """Hang this file's commands into the program; `search` needs no configuration."""

    @app.command()
    def search(
        text: Annotated[str, typer.Argument(help="An alert's name, a symptom, a question.")],
        *,
        service: Annotated[str, typer.Option(help="Leave out what was written for other services.")] = "",
        explain: Annotated[
            bool, typer.Option(help="Where each answer came from: file, commit, SHA-256, owner.")
        ] = False,
    ) -> None:
        """Find the runbooks that fit a text, with the reasons."""
        from bot.library import search_runbooks
        from bot.search_shown import show_hits
        from retrieval.documents import Question
        from retrieval.embedder import EmbeddingError, embedder_for
        from retrieval.reranker import RerankedSearch, reranker_for
        from retrieval.weights import WeightsError

        settings = settings_of()
        folders = configured()[1].runbooks if settings.watchkeeper_config.exists() else ()
        embedder = embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash)
        reranker = reranker_for(settings.watchkeeper_rerank_model, settings.watchkeeper_rerank_hash)
        finder = RerankedSearch(embedder, reranker=reranker)
        try:
            shelf, hits = asyncio.run(search_runbooks(Question(text=text, service=service), folders, finder))
        except (WeightsError, EmbeddingError) as error:
            raise WatchkeeperError(str(error)) from error
        show_hits(hits, shelf.problems if explain else None, sys.stdout)

    _add_index(app, configured)


def _add_index(app: typer.Typer, configured: Callable[[], tuple[Settings, Config]]) -> None:
    index = typer.Typer(no_args_is_help=True, help="What runbooks are searched by.")
    app.add_typer(index, name="index")

    @index.command()
    def status(*, as_json: AsJson = False) -> None:
        """Say what is indexed and how much of it has a vector that may be used; loads no model."""
        from dataclasses import asdict

        from bot.index_state import index_state

        found = index_state(*configured())
        print(json.dumps(asdict(found), indent=2, default=str) if as_json else "\n".join(found.lines()))

    @index.command()
    def rebuild() -> None:
        """Embed all runbooks with the configured model, then replace the cache: after a change of the model."""
        from bot.index_state import rebuild as embed_anew
        from retrieval.embedder import EmbeddingError, embedder_for
        from retrieval.weights import WeightsError

        settings, config = configured()
        embedder = embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash)
        try:
            print(asyncio.run(embed_anew(settings, config, embedder)))
        except (EmbeddingError, WeightsError) as error:
            raise WatchkeeperError(f"{error}; the cache stays as it was") from error
