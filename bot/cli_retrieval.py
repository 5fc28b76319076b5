"""
`watchkeeper retrieval ...`: learn from what people say of runbooks, let it count after a review, take it back.

`learn` works beside the database and changes no answer. `adopt` and `rollback` ask the running server, with a token, so
that the policy decides and the record knows who it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bot.incidents import WatchkeeperError

if TYPE_CHECKING:
    from bot.config import Config
    from bot.settings import Settings


def add_retrieval_commands(
    app: typer.Typer, configured: Callable[[], tuple[Settings, Config]], require_schema: Callable[[Settings], None]
) -> None:
    """Hang this file's commands into the program; `require_schema` refuses a database of another version."""
    retrieval = typer.Typer(no_args_is_help=True, help="What people's votes on runbooks teach.")
    app.add_typer(retrieval, name="retrieval")

    @retrieval.command("learn")
    def learn() -> None:
        """Learn from votes and fixes, say what it would have gained, and offer it for review; changes no answer."""
        settings, config = configured()
        require_schema(settings)
        from bot.cli_operator import unix_user
        from bot.operate_ranking import learn as learn_now
        from retrieval.embedder import EmbeddingError
        from retrieval.weights import WeightsError

        try:
            print(asyncio.run(learn_now(settings, config, actor=unix_user(), now=datetime.now(UTC))))
        except (WeightsError, EmbeddingError) as error:
            raise WatchkeeperError(str(error)) from error

    @retrieval.command("adopt")
    def adopt(
        digest: Annotated[str, typer.Argument(metavar="HASH", help="What `watchkeeper retrieval learn` offered.")],
        *,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask: it was read before.")] = False,
    ) -> None:
        """Let a learned ranking count, after showing what is in it; every replica uses it from the next incident on."""
        from bot.cli_operator import operator_client
        from bot.ranking_shown import lines
        from bot.redact import safe_text

        client = operator_client()
        offer = client.ranking(digest)
        print(
            safe_text("\n".join([f"learned {offer['made_at'][:16]} by {offer['made_by']}", *lines(offer["content"])]))
        )
        if not yes and typer.prompt('Type "yes" to adopt exactly this', default="no") != "yes":
            raise WatchkeeperError("nothing was done")
        print(client.adopt_ranking(digest)["said"])

    @retrieval.command("rollback")
    def roll_back() -> None:
        """Take the ranking in force back; what counted before it counts again."""
        from bot.cli_operator import operator_client

        print(operator_client().roll_back_ranking()["said"])
