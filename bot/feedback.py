"""
Votes and verified fixes as what a team knows about runbooks: learned on request, reviewed, then used when asked.

A vote counts for the team that owns the incident's service, and not if whoever cast it is of another team. A service
without a team stands for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from bot.config import Config, Service
from bot.incidents import Incident
from bot.proof import canonical
from bot.respond import question
from bot.store.incidents import Incidents
from bot.store.rankings import Rankings
from bot.store.votes import Ballot, Judgement, Votes
from retrieval.documents import Hit, Question
from retrieval.feedback import NOTHING, Experience, Lesson, Opinion, Prior, reordered
from retrieval.feedback_gain import Gain

log = structlog.get_logger()

FORMAT = 1
SHOWN = 3

_TEAMS = TypeAdapter(dict[str, dict[str, dict[str, Prior]]])


def team_of(service: Service) -> str:
    """Whose experience counts for this service."""
    return service.team or f"service {service.name}"


def content_of(learned: Mapping[str, tuple[Experience, Gain]]) -> dict[str, Any]:
    """What is offered for review: each team's experience, and what it would have gained."""
    teams = {team: {key: dict(priors) for key, priors in known.items()} for team, (known, _) in learned.items()}
    gains = {team: asdict(gain) for team, (_, gain) in learned.items()}
    return {"format": FORMAT, "teams": _TEAMS.dump_python(teams, mode="json"), "gain": gains}


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


class AdoptedExperience:
    """Reads what was adopted, each time anew: every process uses it from the next incident on."""

    def __init__(self, rankings: Rankings, config: Config) -> None:
        self._rankings = rankings
        self._config = config

    async def order(self, question: Question, hits: list[Hit]) -> list[Hit]:
        """The hits that are shown, as the team's experience orders them. Raises StoreUnavailableError."""
        return reordered(hits, question, await self.of(question.service))[:SHOWN]

    async def of(self, service_name: str) -> Experience:
        """What counts for this service; nothing where nothing was adopted. Raises StoreUnavailableError."""
        service = self._config.service(service_name) if service_name else None
        offer = await self._rankings.in_force() if service is not None else None
        if service is None or offer is None:
            return NOTHING
        if digest_of(offer.content) != offer.digest or offer.content.get("format") != FORMAT:
            log.error("the adopted ranking is not what was reviewed, so it does not count", digest=offer.digest)
            return NOTHING
        try:
            return _TEAMS.validate_python(offer.content["teams"]).get(team_of(service), NOTHING)
        except (ValidationError, KeyError):
            log.exception("the adopted ranking cannot be read, so it does not count", digest=offer.digest)
            return NOTHING


class Lessons:
    """What there is to learn from."""

    def __init__(self, incidents: Incidents, votes: Votes, config: Config) -> None:
        self._incidents = incidents
        self._votes = votes
        self._config = config

    async def by_team(self) -> dict[str, list[Lesson]]:
        """Every incident of a configured service that somebody voted in or a fix resolved, by team."""
        found: dict[str, list[Lesson]] = {}
        for judged in await self._votes.judgements():
            incident = await self._incidents.get(judged.incident_id)
            service = self._config.service(incident.service) if incident.service else None
            if service is not None and (lesson := await self._lesson(judged, incident, service)) is not None:
                found.setdefault(team_of(service), []).append(lesson)
        return found

    async def _lesson(self, judged: Judgement, incident: Incident, service: Service) -> Lesson | None:
        run = await self._incidents.run(judged.incident_id, judged.run)
        opinions = tuple(self._counting(judged.ballots, service))
        if run is None or not (opinions or judged.resolved_by):
            return None
        return Lesson(
            incident=judged.incident_id,
            question=question(incident, run),
            opinions=opinions,
            resolved_by=judged.resolved_by,
        )

    def _counting(self, ballots: Sequence[Ballot], service: Service) -> Iterable[Opinion]:
        for ballot in ballots:
            voter = self._config.person(ballot.person_id)
            if voter is not None and (not voter.team or not service.team or voter.team == service.team):
                yield Opinion(person=ballot.person_id, runbook=ballot.runbook, verdict=ballot.verdict, at=ballot.at)
