"""The entries of watchkeeper.toml about whom we trust with more than a click, and what outside proves our record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bot.config.entries import Role
from bot.config.fields import CredentialName, Entry, Name, PrivateAddress


class BreakGlass(Entry):
    """Who may start a fix alone, with a one-time code and a reason, and a review afterwards; nobody without one."""

    roles: tuple[Role, ...] = Field(min_length=1)
    environment: Literal["prod", "staging", "dev", "*"] = "*"
    service: str = "*"


class CheckpointPlace(Entry):
    """Where signed checkpoints of the record go by themselves: a file, an address or a channel in Slack."""

    file: Path | None = None
    url: PrivateAddress | None = None
    credential: CredentialName | None = None
    slack_channel: str | None = Field(default=None, pattern=r"^[CG][A-Z0-9]{2,}$")
    every_min: int = Field(default=5, ge=1, le=1440)

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if sum(each is not None for each in (self.file, self.url, self.slack_channel)) != 1:
            raise ValueError("it needs one place; write file, url or slack_channel")
        if self.url is None and self.credential is not None:
            raise ValueError("only an address takes a credential; leave it out")
        return self


Usergroup = Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{2,}/S[A-Z0-9]{2,}$")]


MAX_AGE_MINUTES = 15
"""What Slack or PagerDuty said of a person counts for so long where nobody says otherwise."""


class RoleSource(Entry):
    """
    A Slack user group, or the on-calls of a service in PagerDuty, whose people have a role here.

    Only people of this file ever get one. What was read longer than `max_age_minutes` ago names nobody.
    """

    role: Role
    slack_usergroup: Usergroup | None = None
    pagerduty_escalation: Name | None = None  # a service of this file
    for_service: str = "*"  # of a user group's role
    max_age_minutes: int = Field(default=MAX_AGE_MINUTES, ge=5, le=1440)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.slack_usergroup is None) == (self.pagerduty_escalation is None):
            raise ValueError("it needs one source; write slack_usergroup or pagerduty_escalation")
        if self.pagerduty_escalation is not None and self.role not in _LEVELS:
            raise ValueError("PagerDuty says who is on call; write role = on-call (level 1) or secondary (level 2)")
        if self.pagerduty_escalation is not None and self.for_service != "*":
            raise ValueError("pagerduty_escalation names the service already; leave out for_service")
        return self

    @property
    def service(self) -> str:
        """Where the role counts; "*" is everywhere."""
        return self.pagerduty_escalation or self.for_service

    @property
    def level(self) -> int:
        """Of PagerDuty's escalation policy."""
        return _LEVELS.get(self.role, 0)

    @property
    def name(self) -> str:
        """What the database calls it; another role of the same group is another source."""
        where = self.slack_usergroup or f"pagerduty:{self.pagerduty_escalation}"
        return f"{self.role}:{self.for_service}:{where}"

    @property
    def told(self) -> str:
        """What people are told that it is."""
        if self.slack_usergroup is not None:
            return f"Slack's user group {self.slack_usergroup}"
        return f"PagerDuty's level {self.level} of {self.pagerduty_escalation}"


_LEVELS = {"on-call": 1, "secondary": 2}
