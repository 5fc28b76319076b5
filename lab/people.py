"""The cast of the practice range: who they are in Slack, in PagerDuty and to Watchkeeper's configuration."""

from __future__ import annotations

from dataclasses import dataclass

TEAM = "T0LAB00001"
APP = "A0LAB00001"
BOT_USER = "U0WATCH"
BOT_ID = "B0LAB00001"
CHANNEL = "C0INCIDENT"
CHANNEL_NAME = "incidents"

WATCHKEEPER_EMAIL = "watchkeeper@example.com"
WATCHKEEPER_PAGERDUTY = "PWATCH1"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody in the workspace. `pagerduty` is "" for people who have no account there."""

    id: str
    name: str
    slack: str
    title: str
    email: str
    pagerduty: str = ""
    roles: tuple[str, ...] = ()

    @property
    def first_name(self) -> str:
        return self.name.partition(" ")[0]


ALICE = Person(
    id="alice",
    name="Alice Ahn",
    slack="U0ALICE",
    title="on-call",
    email="alice@example.com",
    pagerduty="PALICE1",
    roles=("on-call",),
)
BOB = Person(
    id="bob",
    name="Bob Brandt",
    slack="U0BOB",
    title="prompt owner, may approve",
    email="bob@example.com",
    pagerduty="PBOB001",
)
DANA = Person(
    id="dana",
    name="Dana Duarte",
    slack="U0DANA",
    title="service owner",
    email="dana@example.com",
    pagerduty="PDANA01",
)
MALLORY = Person(
    id="mallory",
    name="Mallory Marsh",
    slack="U0MALLORY",
    title="stranger, in Slack but not in the configuration",
    email="mallory@example.net",
)

CAST = (ALICE, BOB, DANA, MALLORY)
KNOWN_TO_WATCHKEEPER = (ALICE, BOB, DANA)

USERGROUPS = {"S0PROMPTS": ("Prompt owners", (BOB, MALLORY))}
"""Slack's id -> name and members, some of whom Watchkeeper does not know."""


def who_is(reference: str) -> Person | None:
    """The person behind a Slack user id or a short name; None for nobody of ours."""
    return next((person for person in CAST if reference in {person.slack, person.id}), None)
