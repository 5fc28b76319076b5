# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""A step that a person does by hand and then reports; Watchkeeper itself changes nothing."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, Tier

LONGEST_INSTRUCTION = 1000


def printable(value: str) -> str:
    """Stripped; raises ValueError for an empty text and for one that people could not see all of."""
    text = value.strip()
    if not text or not all(char.isprintable() or char == "\n" for char in text):
        raise ValueError("not a text that can be shown")
    return text


class ManualParams(BaseModel):
    """`instruction` is shown as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: Annotated[str, Field(max_length=LONGEST_INSTRUCTION), AfterValidator(printable)]


class Manual:
    """`manual`: asks a person, hence R0."""

    name = "manual"
    tier = Tier.R0
    dry_run = DryRun.NOTHING_TO_READ
    params: type[BaseModel] = ManualParams
    subject: type[BaseModel] = ManualParams
    can_undo = False

    def effect(self, params: ManualParams, before: JsonObject) -> str:
        return f"A person does this by hand: {params.instruction}"

    def target(self, params: ManualParams) -> str:
        return f"person/instruction/{hashlib.sha256(params.instruction.encode()).hexdigest()[:12]}"

    def refusal(self, params: ManualParams, before: JsonObject) -> str | None:
        return None

    def undo(self, params: ManualParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: ManualParams) -> JsonObject:
        return {}

    async def act(self, params: ManualParams, before: JsonObject, token: str) -> JsonObject:
        raise ActionError("a person does this step; there is nothing to run")

    async def happened(self, params: ManualParams, before: JsonObject, token: str) -> Happened:
        """Only the person knows."""
        return Happened.CANNOT_TELL
