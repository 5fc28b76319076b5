"""
Takes over from the dead: notices who no longer lives, and resumes the stories that nobody alive is telling.

DBOS resumes only what its own executor left behind, so a story of a dead process would wait for ever. Its public
`list_workflows` and `resume_workflow` put such a story back into the queue, from which one process takes it; whoever
told it before is fenced by DBOS at its next checkpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence

import structlog
from dbos import DBOS, WorkflowStatus

from bot.pulse import Pulse
from bot.store.workers import Duties, Worker, Workers
from bot.stories import Stories

log = structlog.get_logger()

LOOK_S = 3.0
_DUTY_S = 30.0
_HANDFUL, _APART_S = 5, 0.2
"""Every process looks into DBOS' queue once a second and takes all that it finds: so the stories of a dead process are
put there by the handful, and go to whoever looks next."""

_LOOKS = 5
"""A story of our own that no task of ours tells, for so many looks in a row, was lost on its way (DBOS #716, #805)."""


class TakeOver:
    """One sweep looks once; any number of processes may sweep at a time."""

    def __init__(self, *, pulse: Pulse, workers: Workers, duties: Duties, stories: Sequence[Stories]) -> None:
        self._pulse = pulse
        self._workers = workers
        self._duties = duties
        self._stories = stories
        self._untold: dict[str, int] = {}

    async def sweep(self) -> None:
        """Bury the dead, then resume what they left. Raises StoreUnavailableError."""
        await self._bury()
        # First the stories, then who lives: a process is registered before it starts its first one.
        pending = await DBOS.list_workflows_async(status="PENDING", load_input=False, load_output=False)
        dead = await self._workers.strangers({story.executor_id or "" for story in pending})
        left = [story for story in pending if (story.executor_id or "") in dead]
        lost = self._lost([story for story in pending if story.executor_id == self._pulse.me])
        if (left or lost) and await self._duties.take("take-over", _DUTY_S):
            await self._resume([*left, *lost])

    async def _bury(self) -> None:
        """Declare dead whose process is gone from this machine, and who has been silent for too long."""
        dead = [each for each in await self._workers.living() if self._is_gone(each)]
        dead += await self._workers.silent()
        for each in dead:
            if each.executor_id != self._pulse.me and await self._workers.declare_dead(each):
                log.warning("declared dead", process=each.executor_id, last_beat=each.beat_at.isoformat())

    def _is_gone(self, other: Worker) -> bool:
        if not other.place or other.place != self._pulse.place:
            return False
        try:
            os.kill(other.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def _lost(self, mine: Collection[WorkflowStatus]) -> list[WorkflowStatus]:
        told = {name for stories in self._stories for name in stories.told}
        untold = [story for story in mine if story.workflow_id not in told]
        self._untold = {story.workflow_id: self._untold.get(story.workflow_id, 0) + 1 for story in untold}
        return [story for story in untold if self._untold[story.workflow_id] >= _LOOKS]

    async def _resume(self, seen: Sequence[WorkflowStatus]) -> None:
        """Unless somebody did meanwhile: a second resumption would cut off the first one's work."""
        by = {story.workflow_id: story.executor_id for story in seen}
        pending = await DBOS.list_workflows_async(
            workflow_ids=list(by), status="PENDING", load_input=False, load_output=False
        )
        still = [story.workflow_id for story in pending if story.executor_id == by[story.workflow_id]]
        for start in range(0, len(still), _HANDFUL):
            handful = still[start : start + _HANDFUL]
            await DBOS.resume_workflows_async(handful)
            for name in handful:
                log.warning("story taken over", story=name, left_by=by[name])
            await asyncio.sleep(_APART_S)
