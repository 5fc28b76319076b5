# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""Let time pass between two steps; the engine waits, by the telemetry's clock, and goes on waiting after a restart."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.pagerduty import PagerDutyId
from runbooks.engine.declared import DURATION, seconds
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, Tier

LONGEST_S = 1800.0
"""Seconds. An approval carries a plan for an hour, and the step after the wait has to fit in."""


def _bounded(value: str) -> str:
    if not 1 <= seconds(value) <= LONGEST_S:
        raise ValueError("not between `1s` and `30m`")
    return value


class WaitParams(BaseModel):
    """`for` is a duration such as `90s` or `5m`; `incident` is the plan's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    duration: Annotated[str, Field(alias="for", pattern=DURATION), AfterValidator(_bounded)]
    incident: PagerDutyId

    @property
    def seconds(self) -> float:
        return seconds(self.duration)


class Wait:
    """`wait`: nothing is changed, hence R0."""

    name = "wait"
    tier = Tier.R0
    dry_run = DryRun.NOTHING_TO_READ
    params: type[BaseModel] = WaitParams
    subject: type[BaseModel] = WaitParams
    can_undo = False

    def effect(self, params: WaitParams, before: JsonObject) -> str:
        return f"Waits {params.duration}, then goes on."

    def target(self, params: WaitParams) -> str:
        return f"clock/wait/{params.incident}"

    def refusal(self, params: WaitParams, before: JsonObject) -> str | None:
        return None

    def undo(self, params: WaitParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: WaitParams) -> JsonObject:
        return {}

    async def act(self, params: WaitParams, before: JsonObject, token: str) -> JsonObject:
        raise ActionError("the engine waits; there is nothing to run")

    async def happened(self, params: WaitParams, before: JsonObject, token: str) -> Happened:
        """Only the journal knows when it began."""
        return Happened.CANNOT_TELL
