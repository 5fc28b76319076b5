"""What Slack asks of the rest of the application: the deeds behind the buttons, and who people are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from bot.incidents import Choices, IncidentLine, Person
from retrieval.documents import Hit


class Desk(Protocol):
    """
    What people can do. Every deed is committed when its call returns, is idempotent (but for a vote, which the same
    click takes back), and decides by itself whether this person may do it.

    Raises NotAllowedError (the desk has recorded the refusal), AlreadyDecidedError, StaleError, NotFoundError,
    StoreUnavailableError; each message is a sentence for the person who clicked.
    """

    async def acknowledge(self, incident_id: str, by: Person) -> None: ...

    async def resolve(self, incident_id: str, by: Person) -> None: ...

    async def rediagnose(self, incident_id: str, by: Person) -> None: ...

    async def approve(self, plan_id: str, by: Person) -> None: ...

    async def escalate(self, plan_id: str, by: Person) -> None: ...

    async def break_glass(self, plan_id: str, reason: str, by: Person) -> str:
        """Where somebody types their code to start it alone, as a StepUpNeededError: no code is typed into Slack."""

    async def deny(self, plan_id: str, by: Person) -> None: ...

    async def revoke(self, plan_id: str, by: Person) -> None: ...

    async def request(self, plan_id: str, by: Person) -> None: ...

    async def choices(self, plan_id: str, by: Person) -> Choices:
        """What this person may choose in a plan."""

    async def narrow(self, plan_id: str, values: Mapping[str, str], by: Person, *, digest: str | None = None) -> None:
        """Give it other values, as text; with `digest` only if that is still its hash. Raises WrongValuesError."""

    async def undo(self, plan_id: str, by: Person) -> None: ...

    async def settle(self, plan_id: str, step: int, answer: str, by: Person) -> None:
        """Say what became of a step in doubt; `answer` is ran, did_not_run or stop."""

    async def vote(
        self, incident_id: str, run: int, runbook: str, verdict: Literal["helpful", "wrong"], by: Person
    ) -> str:
        """Say whether a suggested runbook helps; the sentence for the person. The same again takes it back."""

    async def stop(self, reason: str, by: Person) -> str:
        """Stop every fix before its next step; the sentence for the person."""

    async def go(self, by: Person) -> str:
        """End that; the sentence for the person."""

    async def stopped(self) -> str:
        """The sentence about the kill switch while it stops everything, "" while not."""

    async def status(self) -> Sequence[IncidentLine]: ...

    async def search(self, text: str) -> Sequence[Hit]: ...

    async def refused(self, *, who: str, what: str, why: str, subject: str) -> None:
        """Record that somebody whom we do not know tried something; `who` is "team/user" of Slack, `subject` an id."""


class People(Protocol):
    """The people of the configuration."""

    async def by_slack(self, team: str, user: str) -> Person | None:
        """The one person who is linked to this Slack account; None when there is none. Raises StoreUnavailableError."""

    async def accounts(self, person_id: str) -> Sequence[tuple[str, str]]:
        """The Slack accounts (team, user) that are linked to this person. Raises StoreUnavailableError."""
