# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Keep one data source out of what is retrieved: what a quarantine is in every vector store.

A quarantine deletes nothing. It marks all documents of one source with a key, and retrieval's own filter has to leave
out what carries it, which the team's retrieval must do already. How a store counts and marks is in the store's file.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.manual import printable
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, Tier


def _source_name(value: str) -> str:
    """As it is in the documents: not even a space may be lost."""
    if printable(value) != value or "\n" in value:
        raise ValueError("not the name of a data source: no spaces around it, one line")
    return value


CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
SourceName = Annotated[str, Field(max_length=300), AfterValidator(_source_name)]


class InStore(BaseModel):
    """A `[[vector_store]]` of the configuration; `service` is the plan's own, and has to be one that reads from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: ConfigName
    service: ConfigName


class QuarantineParams(InStore):
    """`source` is a value of the store's `source_field`; `quarantined: false` lets the source in again."""

    collection: CollectionName
    source: SourceName
    quarantined: bool = True


@dataclass(frozen=True, kw_only=True)
class StoreAccess:
    """
    One vector store, and the services whose fixes may change it.

    `collections` are regular expressions of whole names that may be worked on. `source_field` is the field that names a
    document's data source, `quarantine_key` the one whose presence keeps it out of retrieval; both are None where
    nothing may be quarantined.
    """

    url: str
    services: tuple[str, ...]
    collections: tuple[str, ...]
    source_field: str | None = None
    quarantine_key: str | None = None
    key: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = 20.0


AnyAccess = TypeVar("AnyAccess", bound=StoreAccess)


class StoreAction(Generic[AnyAccess]):
    """What all actions on vector stores share."""

    tier = Tier.R1
    dry_run = DryRun.READS
    can_undo = True

    def __init__(self, stores: Mapping[str, AnyAccess]) -> None:
        self._stores = dict(stores)

    def patience_s(self, params: InStore) -> float:
        """Seconds; the store's own limit for each call: four looks, a change."""
        access = self._stores.get(params.store)
        return 5 * access.timeout_s + 5.0 if access else 0.0

    def access(self, params: InStore, *collections: str) -> AnyAccess:
        """Raises ActionError."""
        access = self._stores.get(params.store)
        if access is None:
            known = ", ".join(sorted(self._stores)) or "none"
            raise ActionError(f"the configuration has no vector_store {params.store} (it has: {known})")
        if params.service not in access.services:
            raise ActionError(f"{params.store} is read by {', '.join(access.services)} and not by {params.service}")
        for name in collections:
            if not any(re.fullmatch(pattern, name) for pattern in access.collections):
                raise ActionError(f"`collections` of the vector_store {params.store} does not allow {name}")
        return access


class QuarantineAction(StoreAction[AnyAccess], ABC):
    """R1, since no document is lost and the mark is taken off the same way."""

    name = ""
    params: type[BaseModel] = QuarantineParams
    subject: type[BaseModel] = QuarantineParams

    @abstractmethod
    async def counted(self, access: AnyAccess, params: QuarantineParams) -> tuple[int, int]:
        """How many documents the source has, and how many of them carry the mark. Raises ActionError."""

    @abstractmethod
    async def mark(self, access: AnyAccess, params: QuarantineParams, before: JsonObject, token: str) -> None:
        """Set the mark or take it off. Raises ActionError, PartlyDoneError, OutcomeUnknownError."""

    def effect(self, params: QuarantineParams, before: JsonObject) -> str:
        which = f"points of the source {params.source} in {_found_in(params, before)}"
        if params.quarantined:
            marked = f" ({before['marked']} of them are already)" if before["marked"] else ""
            what = f"{before['points']} {which} are marked with {before['key']} and no longer retrieved{marked}"
        else:
            what = f"{before['marked']} {which} lose the mark {before['key']} and are retrieved again"
        return f"In the vector store {params.store}, {what}."

    def target(self, params: QuarantineParams) -> str:
        system = self.name.partition(".")[0]
        return f"{system}/source/{params.store}/{params.collection}/{params.source}"

    def refusal(self, params: QuarantineParams, before: JsonObject) -> str | None:
        if not before["points"]:
            return f"{_found_in(params, before)} has no points of the source {params.source}"
        if before["marked"] == (before["points"] if params.quarantined else 0):
            return f"the source {params.source} is {'' if params.quarantined else 'not '}quarantined already"
        return None

    def undo(self, params: QuarantineParams, before: JsonObject) -> JsonObject | None:
        """None where only some points were marked before: which ones nobody could tell afterwards."""
        if before["marked"] not in (0, before["points"]):
            return None
        back = {"collection": _found_in(params, before), "quarantined": not params.quarantined}
        return params.model_copy(update=back).model_dump(mode="json")

    async def read(self, params: QuarantineParams) -> JsonObject:
        """How many points the source has, and how many of them are marked."""
        access = self.access(params, params.collection)
        if access.source_field is None or access.quarantine_key is None:
            raise ActionError(
                f"the vector_store {params.store} has no `source_field` and `quarantine_key` in the configuration"
            )
        points, marked = await self.counted(access, params)
        return {"points": points, "marked": marked, "key": access.quarantine_key}

    async def act(self, params: QuarantineParams, before: JsonObject, token: str) -> JsonObject:
        if await self.read(params) != before:
            raise ActionError(f"the points of {params.source} are not as they were any more: nothing was changed")
        await self.mark(self.access(params, _found_in(params, before)), params, before, token)
        return {"points": before["points"], "quarantined": params.quarantined}

    async def happened(self, params: QuarantineParams, before: JsonObject, token: str) -> Happened:
        """Points that came in since do not carry the mark; those that were there then decide."""
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        if _found_in(params, now) != _found_in(params, before):
            return Happened.CANNOT_TELL
        if now["marked"] == before["marked"]:
            return Happened.NO
        done = now["marked"] >= before["points"] if params.quarantined else now["marked"] == 0
        return Happened.YES if done else Happened.CANNOT_TELL


def _found_in(params: QuarantineParams, state: JsonObject) -> str:
    """The collection that holds the points, where the store says what is behind an alias."""
    return str(state.get("collection", params.collection))
