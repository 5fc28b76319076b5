# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Qdrant vector stores: move an alias to another collection, and keep one data source out of what is retrieved.

Retrieval reads by an alias, so moving it takes back a bad index at once; Qdrant removes and sets it in one atomic
operation. A quarantine marks points with a payload key, which retrieval leaves out by `must_not`.
Facts: GET /aliases, GET /collections, POST /collections/aliases with `actions`, GET /collections/{name}, POST
.../points/count (`exact`), POST .../points/payload and .../points/payload/delete with a `filter`; `wait=true` answers
when it is applied. Points may be asked for by an alias, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from runbooks.engine.actions.json_api import change, look, object_of, open_client, reason
from runbooks.engine.actions.quarantine import (
    CollectionName,
    InStore,
    QuarantineAction,
    QuarantineParams,
    StoreAccess,
    StoreAction,
)
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError

_SYSTEM = "Qdrant"


class AliasRef(InStore):
    """An alias by which retrieval reads."""

    alias: CollectionName


class SetAliasParams(AliasRef):
    """`collection` is the one that the alias shall name."""

    collection: CollectionName


@dataclass(frozen=True, kw_only=True)
class QdrantAccess(StoreAccess):
    """One Qdrant; `key` is an API key that may write."""

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"api-key": self.key} if self.key else None
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


class MoveAlias(StoreAction[QdrantAccess]):
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
        """
        The collection that the alias names, and what vectors it and the wanted one hold.

        Before one is wanted also the `fuller` one: the only other that may be worked on, is of the same vectors and
        holds more points. None where no collection is, or several are.
        """
        wanted = (params.collection,) if isinstance(params, SetAliasParams) else ()
        async with self.access(params, *wanted).client() as client:
            now = await _named_by(client, params.alias)
            self.access(params, now)  # taking an alias from a collection is work on it, too
            vectors_now, _ = await _described(client, now)
            vectors, is_empty = await _described(client, wanted[0] if wanted else now)
            fuller = {} if wanted else {"fuller": await self._fuller(client, params, now, vectors_now)}
        return {"collection": now, "vectors_now": vectors_now, "vectors": vectors, "is_empty": is_empty, **fuller}

    async def _fuller(self, client: httpx.AsyncClient, params: AliasRef, now: str, vectors_now: str) -> str | None:
        """Raises ActionError."""
        held = await _count(client, now, None)
        found = [
            name
            for name in await _collections(client)
            if name != now
            and self._may_change(params, name)
            and (await _described(client, name))[0] == vectors_now
            and await _count(client, name, None) > held
        ]
        return found[0] if len(found) == 1 else None

    def _may_change(self, params: AliasRef, collection: str) -> bool:
        try:
            self.access(params, collection)
        except ActionError:
            return False
        return True

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


class Quarantine(QuarantineAction[QdrantAccess]):
    """`qdrant.quarantine`: the mark is a payload key."""

    name = "qdrant.quarantine"

    async def read(self, params: QuarantineParams) -> JsonObject:
        """Also the `collection` itself, where an alias was given: the alias may move, and the marks stay."""
        async with self.access(params).client() as client:
            collection = (await _aliases(client)).get(params.collection, params.collection)
        state = await super().read(params.model_copy(update={"collection": collection}))
        return {**state, "collection": collection}

    async def counted(self, access: QdrantAccess, params: QuarantineParams) -> tuple[int, int]:
        async with access.client() as client:
            points = await _count(client, params.collection, _of_source(access, params))
            marked = await _count(client, params.collection, _of_source(access, params, marked=True))
        return points, marked

    async def mark(self, access: QdrantAccess, params: QuarantineParams, before: JsonObject, token: str) -> None:
        body: dict[str, Any] = {"filter": _of_source(access, params)}
        if params.quarantined:
            path, body["payload"] = "payload", {before["key"]: True}
        else:
            path, body["keys"] = "payload/delete", [before["key"]]
        where = f"{_collection(before['collection'])}/points/{path}?wait=true"
        async with access.client() as client:
            answer = await change(client, _SYSTEM, "POST", where, body, token)
        result = answer.get("result")
        if not isinstance(result, dict) or result.get("status") != "completed":
            raise OutcomeUnknownError("Qdrant took it, and did not say that it is done")


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
    if (collection := (await _aliases(client)).get(alias)) is None:
        raise ActionError(f"Qdrant has no alias {alias}")
    return collection


async def _aliases(client: httpx.AsyncClient) -> dict[str, str]:
    """Alias -> collection. Raises ActionError."""
    found = (await _get(client, "/aliases")).get("aliases")
    pairs = [(each.get("alias_name"), each.get("collection_name")) for each in _mappings(found)]
    return {alias: name for alias, name in pairs if isinstance(alias, str) and isinstance(name, str)}


async def _collections(client: httpx.AsyncClient) -> list[str]:
    """All there are. Raises ActionError."""
    found = (await _get(client, "/collections")).get("collections")
    return [each["name"] for each in _mappings(found) if isinstance(each.get("name"), str)]


def _mappings(found: Any) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


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
