"""
Past incidents that resemble one, for the card: found beside the story, which neither waits for it nor fails by it.

Each working process keeps an index of its own, from the database: what is over joins it, what is forgotten leaves it,
and its vectors leave the file. Only ids and reasons are written to the diagnosis' row; what became of an incident is
read when it is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog
from pydantic import TypeAdapter

from bot.config import Config
from bot.incidents import Incident
from bot.past import PastIncident, Seen, question_about, service_of
from bot.redact import safe_values
from bot.store.incidents import Incidents
from bot.store.past import PastIncidents
from bot.store.workers import Duties
from retrieval.similar import IncidentSearch, Similar

log = structlog.get_logger()

EVERY_S = 30.0
"""How soon an incident that ended can be found."""

MOST_PAST = 2000
"""The latest incidents that are over; older ones are too long ago to say much of a system that moves."""

_LOADED_AT_ONCE = 25
_DUTY_S = 30.0
_SIMILAR = TypeAdapter(list[Similar])


class SimilarIncidents:
    """Keeps the index, and answers for each diagnosis that stands."""

    def __init__(
        self, *, past: PastIncidents, incidents: Incidents, duties: Duties, config: Config, search: IncidentSearch
    ) -> None:
        self._past = past
        self._incidents = incidents
        self._duties = duties
        self._config = config
        self._search = search
        self._known: dict[str, tuple[int, PastIncident]] = {}
        self._is_indexed = False

    async def warm(self) -> None:
        """From now on by meaning, too. Raises WeightsError, EmbeddingError; words go on."""
        await self._search.warm()

    async def refresh(self) -> None:
        """Bring the index to what is over now. Raises StoreUnavailableError."""
        revisions = await self._past.revisions(most=MOST_PAST)
        kept = {name: known for name, known in self._known.items() if revisions.get(name) == known[0]}
        changed = [name for name in revisions if name not in kept]
        if self._is_indexed and not changed and len(kept) == len(self._known):
            return
        for start in range(0, len(changed), _LOADED_AT_ONCE):
            for each in await self._past.load(changed[start : start + _LOADED_AT_ONCE]):
                kept[each.incident.incident_id] = (revisions[each.incident.incident_id], each)
            await asyncio.sleep(0)  # reading many diagnoses must not hold up a webhook
        self._known = kept
        await self._search.refresh([each.as_searched() for _, each in kept.values()])
        self._is_indexed = True

    async def answer(self) -> None:
        """Compare what waits for it; one process of all does. Raises StoreUnavailableError."""
        if not self._is_indexed:
            return
        waiting = await self._past.waiting(now=datetime.now(UTC))
        if not waiting or not await self._duties.take("similar", _DUTY_S):
            return
        for incident_id, number in waiting:
            found = await self.find(incident_id, number)
            said = safe_values(_SIMILAR.dump_python(found, mode="json"), ("incident_id",))
            await self._past.compared(incident_id, number, said)
            log.info("compared with the past", incident=incident_id, run=number, similar=len(found))

    async def find(self, incident_id: str, number: int) -> list[Similar]:
        """Up to three, the best first. Raises NotFoundError, StoreUnavailableError."""
        incident = await self._incidents.get(incident_id)
        look = await self._past.look(incident_id, number)
        burst = await self._past.burst_of(incident_id)
        among = {name for name, (_, past) in self._known.items() if self._may_be_seen_before(incident, burst, past)}
        return await self._search.similar(question_about(incident, look), among)

    def _may_be_seen_before(self, incident: Incident, burst: int | None, past: PastIncident) -> bool:
        """Over when this one began, not of the same burst, and of the same team's services."""
        is_other = past.incident.incident_id != incident.incident_id
        is_over = past.incident.state_at <= incident.created_at
        is_same_burst = burst is not None and past.burst == burst
        return is_other and is_over and not is_same_burst and self._whose(past.incident) == self._whose(incident)

    def _whose(self, incident: Incident) -> str:
        """Services of one team see each other's past, and so do those of no team; one that is not ours, its own."""
        service = self._config.service(incident.service) if incident.service else None
        return f"team:{service.team}" if service else service_of(incident)


async def seen_before(past: PastIncidents, similar: Sequence[Mapping[str, object]] | None) -> tuple[Seen, ...]:
    """What a diagnosis' row names, as it stands now; what was forgotten or opened again is left out."""
    named = _SIMILAR.validate_python(similar or [])
    found = {each.incident.incident_id: each for each in await past.load([each.incident_id for each in named])}
    return tuple(Seen(past=found[each.incident_id], similar=each) for each in named if each.incident_id in found)
