# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Qdrant vector stores: move an alias to another collection, and keep one data source out of what is retrieved.

Retrieval reads by an alias, so moving it takes back a bad index at once; Qdrant removes and sets it in one atomic
operation. A quarantine deletes nothing: it marks all points of one source with a payload key, and retrieval's own
filter has to leave out points that carry it (`must_not`, which the team's retrieval must have already).
Facts: GET /aliases, POST /collections/aliases with `actions`, GET /collections/{name}, POST .../points/count (`exact`),
POST .../points/payload and .../points/payload/delete with a `filter`; `wait=true` answers when it is applied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import change, look, object_of, open_client, reason
from runbooks.engine.actions.manual import printable
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_SYSTEM = "Qdrant"


def _source_name(value: str) -> str:
    """As it is in the points: not even a space may be lost."""
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


class AliasRef(InStore):
    """An alias by which retrieval reads."""

    alias: CollectionName


class SetAliasParams(AliasRef):
    """`collection` is the one that the alias shall name."""

    collection: CollectionName


class QuarantineParams(InStore):
    """`source` is a value of the store's `source_field`; `quarantined: false` lets the source in again."""

    collection: CollectionName
    source: SourceName
    quarantined: bool = True


@dataclass(frozen=True, kw_only=True)
class QdrantAccess:
    """
    One Qdrant, and the services whose fixes may change it.

    `collections` are regular expressions of whole names that may be worked on. `source_field` is the payload field that
    names a point's data source, `quarantine_key` the one whose presence keeps a point out of retrieval; both are None
    where nothing may be quarantined.
    """

    url: str
    services: tuple[str, ...]
    collections: tuple[str, ...]
    source_field: str | None = None
    quarantine_key: str | None = None
    key: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = 20.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"api-key": self.key} if self.key else None
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


class StoreAction:
    """What both actions share."""

    tier = Tier.R1
    dry_run = DryRun.READS
    can_undo = True

    def __init__(self, stores: Mapping[str, QdrantAccess]) -> None:
        self._stores = dict(stores)

    def patience_s(self, params: InStore) -> float:
        """Seconds; the store's own limit for each call: four looks, a change."""
        access = self._stores.get(params.store)
        return 5 * access.timeout_s + 5.0 if access else 0.0

    def access(self, params: InStore, *collections: str) -> QdrantAccess:
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


class MoveAlias(StoreAction):
    """`qdrant.set_alias`: R1, since both collections stay as they are and the alias moves back the same way."""

    name = "qdrant.set_alias"
    params: type[BaseModel] = SetAliasParams
    subject: type[BaseModel] = AliasRef

    def effect(self, params: SetAliasParams, before: JsonObject) -> str:
        vectors = before["vectors"]
        changed = "" if vectors == before["vectors_now"] else f" (before: {before['vectors_now']})"
        return (
            f"In the vector store {params.store}, the alias {params.alias} moves from {before['collection']} to "
            f"{params.collection}, whose vectors are {vectors}{changed}."
        )

    def target(self, params: AliasRef) -> str:
        return f"qdrant/alias/{params.store}/{params.alias}"

    def refusal(self, params: SetAliasParams, before: JsonObject) -> str | None:
        if before["collection"] == params.collection:
            return f"{params.alias} names {params.collection} already"
        return f"{params.collection} is empty: nothing would be found" if before["is_empty"] else None

    def undo(self, params: SetAliasParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"collection": before["collection"]}).model_dump(mode="json")

    async def read(self, params: AliasRef) -> JsonObject:
        """The collection that the alias names, and what vectors it and the wanted one hold."""
        wanted = (params.collection,) if isinstance(params, SetAliasParams) else ()
        async with self.access(params, *wanted).client() as client:
            now = await _named_by(client, params.alias)
            self.access(params, now)  # taking an alias from a collection is work on it, too
            vectors_now, _ = await _described(client, now)
            vectors, is_empty = await _described(client, wanted[0] if wanted else now)
        return {"collection": now, "vectors_now": vectors_now, "vectors": vectors, "is_empty": is_empty}

    async def act(self, params: SetAliasParams, before: JsonObject, token: str) -> JsonObject:
        async with self.access(params, params.collection).client() as client:
            now = await _named_by(client, params.alias)
            if now != before["collection"]:
                raise ActionError(f"{params.alias} names {now} by now: nothing was changed")
            actions = [
                {"delete_alias": {"alias_name": params.alias}},
                {"create_alias": {"collection_name": params.collection, "alias_name": params.alias}},
            ]
            answer = await change(client, _SYSTEM, "POST", "/collections/aliases", {"actions": actions}, token)
        if answer.get("result") is not True:
            raise OutcomeUnknownError("Qdrant answered, but not that the alias moved")
        return {"alias": params.alias, "collection": params.collection}

    async def happened(self, params: SetAliasParams, before: JsonObject, token: str) -> Happened:
        try:
            async with self.access(params).client() as client:
                now = await _named_by(client, params.alias)
        except ActionError:
            return Happened.CANNOT_TELL
        if now == params.collection:
            return Happened.YES
        return Happened.NO if now == before["collection"] else Happened.CANNOT_TELL


class Quarantine(StoreAction):
    """`qdrant.quarantine`: R1, since no point is lost and the mark is taken off the same way."""

    name = "qdrant.quarantine"
    params: type[BaseModel] = QuarantineParams
    subject: type[BaseModel] = QuarantineParams

    def effect(self, params: QuarantineParams, before: JsonObject) -> str:
        which = f"points of the source {params.source} in {params.collection}"
        if params.quarantined:
            marked = f" ({before['marked']} of them are already)" if before["marked"] else ""
            what = f"{before['points']} {which} are marked with {before['key']} and no longer retrieved{marked}"
        else:
            what = f"{before['marked']} {which} lose the mark {before['key']} and are retrieved again"
        return f"In the vector store {params.store}, {what}."

    def target(self, params: QuarantineParams) -> str:
        return f"qdrant/source/{params.store}/{params.collection}/{params.source}"

    def refusal(self, params: QuarantineParams, before: JsonObject) -> str | None:
        if not before["points"]:
            return f"{params.collection} has no points of the source {params.source}"
        if before["marked"] == (before["points"] if params.quarantined else 0):
            return f"the source {params.source} is {'' if params.quarantined else 'not '}quarantined already"
        return None

    def undo(self, params: QuarantineParams, before: JsonObject) -> JsonObject | None:
        """None where only some points were marked before: which ones nobody could tell afterwards."""
        if before["marked"] not in (0, before["points"]):
            return None
        return params.model_copy(update={"quarantined": not params.quarantined}).model_dump(mode="json")

    async def read(self, params: QuarantineParams) -> JsonObject:
        """How many points the source has, and how many of them are marked."""
        access = self.access(params, params.collection)
        if access.source_field is None or access.quarantine_key is None:
            raise ActionError(
                f"the vector_store {params.store} has no `source_field` and `quarantine_key` in the configuration"
            )
        async with access.client() as client:
            points = await _count(client, params.collection, _of_source(access, params))
            marked = await _count(client, params.collection, _of_source(access, params, marked=True))
        return {"points": points, "marked": marked, "key": access.quarantine_key}

    async def act(self, params: QuarantineParams, before: JsonObject, token: str) -> JsonObject:
        if await self.read(params) != before:
            raise ActionError(f"the points of {params.source} are not as they were any more: nothing was changed")
        access = self.access(params, params.collection)
        body: dict[str, Any] = {"filter": _of_source(access, params)}
        if params.quarantined:
            path, body["payload"] = "payload", {before["key"]: True}
        else:
            path, body["keys"] = "payload/delete", [before["key"]]
        where = f"{_collection(params.collection)}/points/{path}?wait=true"
        async with access.client() as client:
            answer = await change(client, _SYSTEM, "POST", where, body, token)
        result = answer.get("result")
        if not isinstance(result, dict) or result.get("status") != "completed":
            raise OutcomeUnknownError("Qdrant took it, and did not say that it is done")
        return {"points": before["points"], "quarantined": params.quarantined}

    async def happened(self, params: QuarantineParams, before: JsonObject, token: str) -> Happened:
        """Points that came in since do not carry the mark; those that were there then decide."""
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        if now["marked"] == before["marked"]:
            return Happened.NO
        done = now["marked"] >= before["points"] if params.quarantined else now["marked"] == 0
        return Happened.YES if done else Happened.CANNOT_TELL


def _of_source(access: QdrantAccess, params: QuarantineParams, *, marked: bool = False) -> dict[str, Any]:
    """Qdrant's filter for the source's points; with `marked` for those that carry the mark."""
    found: dict[str, Any] = {"must": [{"key": access.source_field, "match": {"value": params.source}}]}
    if marked:
        found["must_not"] = [{"is_empty": {"key": access.quarantine_key}}]
    return found


def _collection(name: str) -> str:
    return f"/collections/{quote(name, safe='')}"


async def _named_by(client: httpx.AsyncClient, alias: str) -> str:
    """The collection that the alias names. Raises ActionError."""
    found = (await _get(client, "/aliases")).get("aliases")
    for each in found if isinstance(found, list) else []:
        if isinstance(each, dict) and each.get("alias_name") == alias and isinstance(each.get("collection_name"), str):
            return str(each["collection_name"])
    raise ActionError(f"Qdrant has no alias {alias}")


async def _described(client: httpx.AsyncClient, collection: str) -> tuple[str, bool]:
    """What vectors a collection holds, in words, and whether it holds none. Raises ActionError."""
    found = await _get(client, _collection(collection))
    config = found.get("config")
    params = config.get("params") if isinstance(config, dict) else None
    vectors = params.get("vectors") if isinstance(params, dict) else None
    if not isinstance(vectors, dict):
        raise ActionError(f"Qdrant did not say what vectors {collection} holds")
    named = {"": vectors} if "size" in vectors else vectors
    words = [
        f"{f'{name}: ' if name else ''}{each.get('size')} {each.get('distance')}"
        for name, each in sorted(named.items())
        if isinstance(each, dict)
    ]
    return ", ".join(words) or "sparse", not await _count(client, collection, None)


async def _count(client: httpx.AsyncClient, collection: str, only: JsonObject | None) -> int:
    """Counting takes a POST and changes nothing. Raises ActionError."""
    body = {"exact": True, **({"filter": only} if only else {})}
    try:
        answer = await change(client, _SYSTEM, "POST", f"{_collection(collection)}/points/count", body, "count")
    except OutcomeUnknownError as error:
        raise ActionError(str(error)) from error
    result = answer.get("result")
    count = result.get("count") if isinstance(result, dict) else None
    if isinstance(count, bool) or not isinstance(count, int):
        raise ActionError(f"Qdrant did not count the points of {collection}")
    return count


async def _get(client: httpx.AsyncClient, path: str) -> JsonObject:
    """The result of a GET. Raises ActionError."""
    answer = await look(client, _SYSTEM, path, {})
    if answer.status_code == 404:
        raise ActionError(f"Qdrant has no {path}")
    if answer.status_code != 200:
        raise ActionError(f"Qdrant answered HTTP {answer.status_code} for {path}{reason(answer)}")
    result = object_of(answer, _SYSTEM).get("result")
    return result if isinstance(result, dict) else {}
