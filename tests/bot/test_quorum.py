"""How many, and who: approvals that carry a plan, and approvals that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.quorum import Requirement, Voice, lacking

TWO = Requirement(roles=("platform", "service-owner"), count=2)
ELSEWHERE = replace(TWO, other_team=True, home_teams=frozenset({"chat"}))
ALICE = Voice(person_id="alice", role="platform", team="chat")
BOB = Voice(person_id="bob", role="service-owner", team="chat")
CHARLIE = Voice(person_id="charlie", role="platform", team="infra")


@pytest.mark.parametrize(
    ("requirement", "voices", "lack"),
    [
        (TWO, [ALICE, BOB], ""),
        (TWO, [], "2 more people"),
        (TWO, [ALICE], "1 more person"),
        (TWO, [ALICE, ALICE], "1 more person"),
        (TWO, [ALICE, replace(BOB, role="budget")], "1 more person"),
        (replace(TWO, requester="bob"), [ALICE, BOB], "1 more person"),
        (replace(TWO, count=0), [], "1 more person"),
        (ELSEWHERE, [ALICE, BOB], "somebody of another team than chat"),
        (ELSEWHERE, [ALICE, CHARLIE], ""),
        (ELSEWHERE, [ALICE, replace(CHARLIE, team="")], "somebody of another team than chat"),
        (replace(ELSEWHERE, home_teams=frozenset({"chat", "infra"})), [ALICE, CHARLIE], "another team than chat and"),
        (replace(ELSEWHERE, home_teams=frozenset({"chat", ""})), [ALICE, CHARLIE], "nobody can tell"),
        (replace(ELSEWHERE, home_teams=frozenset()), [ALICE, CHARLIE], "nobody can tell"),
        (replace(TWO, step_up=True), [ALICE, BOB], "2 more people who confirm it outside Slack"),
        (
            replace(ELSEWHERE, step_up=True),
            [replace(ALICE, stepped_up=True), replace(BOB, stepped_up=True), CHARLIE],
            "somebody of another team",
        ),
        (replace(ELSEWHERE, step_up=True), [replace(each, stepped_up=True) for each in (ALICE, CHARLIE)], ""),
    ],
)
def test_what_approvals_lack(requirement: Requirement, voices: list[Voice], lack: str) -> None:
    """Different people, fitting roles, never the requester, one of elsewhere; whatever is unknown does not count."""
    found = lacking(requirement, voices)

    assert (lack in found) if lack else not found
