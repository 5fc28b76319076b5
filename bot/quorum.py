"""What a plan needs of people, and whether a set of approvals is that. Pure, and the only place that counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """
    What a plan needs: so many different people, each with any one of these roles, none of them the requester.

    With `other_team` one of them is of a team that is not among `home_teams`, those of the service and the requester;
    an "" among these says that one is unknown, and then nobody can be of another. With `step_up` only approvals count
    whose person proved who they are outside Slack. The plan expires `expires` after it was made, and starts
    `start_within` the last approval or never.
    """

    roles: tuple[str, ...]
    count: int
    requester: str | None = None
    other_team: bool = False
    step_up: bool = False
    home_teams: frozenset[str] = frozenset()
    expires: timedelta = timedelta(minutes=15)
    start_within: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One person's approval, as far as it counts; `team` is "" where the configuration names none."""

    person_id: str
    role: str
    team: str = ""
    stepped_up: bool = False


def lacking(requirement: Requirement, voices: Sequence[Voice]) -> str:
    """What these approvals still lack to carry the plan, in words; "" when they carry it."""
    fitting = {
        each.person_id: each
        for each in voices
        if each.role in requirement.roles and each.person_id != requirement.requester
    }
    counted = [each for each in fitting.values() if each.stepped_up or not requirement.step_up]
    missing = max(1, requirement.count) - len(counted)
    if missing > 0:
        proven = " who confirm it outside Slack" if requirement.step_up else ""
        return f"{missing} more {'person' if missing == 1 else 'people'}{proven}"
    if not requirement.other_team:
        return ""
    if "" in requirement.home_teams or not requirement.home_teams:
        return "somebody of another team, and nobody can tell: the service or the requester has no team"
    if any(each.team and each.team not in requirement.home_teams for each in counted):
        return ""
    return f"somebody of another team than {' and '.join(sorted(requirement.home_teams))}"
