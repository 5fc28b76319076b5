"""Once a day: forget what nobody needs any more, in our tables and in the workflow engine's."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from dbos import DBOS

from bot.store.database import Database
from bot.store.retention import KEPT, forget

log = structlog.get_logger()

EVERY_S = 86_400.0
_ENDED = ["SUCCESS", "ERROR", "CANCELLED"]
_BATCH = 200


class Retention:
    """Deletes by age; one process of all does it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sweep(self) -> None:
        """Raises StoreUnavailableError, and goes on the next time."""
        now = datetime.now(UTC)
        forgotten = await forget(self._database, now=now)
        forgotten["workflows"] = await forget_workflows(now - KEPT)
        log.info("forgotten", **forgotten)


async def forget_workflows(before: datetime) -> int:
    """
    Delete checkpoints of stories that ended before this time; returns how many.

    DBOS has no retention of its own that a library may call. An ended story is never started again: its row says so.
    """
    deleted = 0
    while True:
        ended = await DBOS.list_workflows_async(
            status=_ENDED, completed_before=before.isoformat(), limit=_BATCH, load_input=False, load_output=False
        )
        if ended:
            await DBOS.delete_workflows_async([each.workflow_id for each in ended])
        deleted += len(ended)
        if len(ended) < _BATCH:
            return deleted
