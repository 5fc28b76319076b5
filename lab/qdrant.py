"""
A stand-in for Qdrant's REST API (1.15), over the lab's vector store: its collections, the alias, marks on points.

Retrieval reads by one alias, and its filter leaves out points that carry `quarantined`. Points are counted and marked
by their data source, not kept one by one. What Qdrant would refuse is refused in its words; what it would take and the
lab does not play is refused, too, and remembered under `/_lab/violations`. Writes are under `/_lab/writes`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.knowledge_store import ALIAS, SHARES, KnowledgeStore
from lab.records import tell_records

Json = dict[str, Any]
SOURCE_FIELD, MARK = "data_source", "quarantined"
_Model = TypeVar("_Model", bound=BaseModel)


class QdrantError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _DeletedAlias(_Strict):
    alias_name: str


class _NewAlias(_DeletedAlias):
    collection_name: str


class _Delete(_Strict):
    delete_alias: _DeletedAlias


class _Create(_Strict):
    create_alias: _NewAlias


class _Moves(_Strict):
    actions: list[_Delete | _Create] = Field(min_length=1)


class _Value(_Strict):
    value: str


class _Matches(_Strict):
    key: Literal["data_source"]
    match: _Value


class _Key(_Strict):
    key: Literal["quarantined"]


class _IsEmpty(_Strict):
    is_empty: _Key


class _Filter(_Strict):
    must: list[_Matches] = Field(default_factory=list)
    must_not: list[_IsEmpty] = Field(default_factory=list)


class _Count(_Strict):
    exact: bool = True
    filter: _Filter | None = None


class _Mark(_Strict):
    quarantined: Literal[True]


class _Payload(_Strict):
    payload: _Mark
    filter: _Filter


class _Unmark(_Strict):
    keys: list[Literal["quarantined"]] = Field(min_length=1)
    filter: _Filter


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: bool = False


@dataclass(kw_only=True)
class QdrantApi:
    """The API over a store, for whoever has the one key. `now` is lab time."""

    store: KnowledgeStore
    now: Callable[[], datetime]
    key: str
    writes: list[Json] = field(default_factory=list)
    violations: list[Json] = field(default_factory=list)
    _operations: int = 0

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for Qdrant", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/aliases", self.aliases, methods=["GET"])
        app.add_api_route("/collections", self.listing, methods=["GET"])
        app.add_api_route("/collections/aliases", self.move, methods=["POST"])
        app.add_api_route("/collections/{name}", self.collection, methods=["GET"])
        app.add_api_route("/collections/{name}/points/count", self.count, methods=["POST"])
        app.add_api_route("/collections/{name}/points/payload", self.mark, methods=["POST"])
        app.add_api_route("/collections/{name}/points/payload/delete", self.unmark, methods=["POST"])
        tell_records(app, self)
        app.add_api_route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        app.add_exception_handler(QdrantError, _refuse)
        return app

    async def _unknown(self, request: Request) -> Json:
        self._authorize(request)
        raise self._broken(request, 404, "Qdrant has no such endpoint, or we do not play it")

    # Collections and the alias

    async def aliases(self, request: Request) -> Json:
        self._authorize(request)
        return _ok({"aliases": [{"alias_name": ALIAS, "collection_name": self.store.serves}]})

    async def listing(self, request: Request) -> Json:
        self._authorize(request)
        return _ok({"collections": [{"name": name} for name in self.store.collections]})

    async def collection(self, request: Request, name: str) -> Json:
        self._authorize(request)
        there = self.store.collections[self._known(name)]
        vectors = {"size": there.dimensions, "distance": "Cosine"}
        status = {"status": "green", "optimizer_status": "ok", "points_count": there.points, "segments_count": 8}
        return _ok({**status, "config": {"params": {"vectors": vectors, "shard_number": 1}}, "payload_schema": {}})

    async def move(self, request: Request) -> Json:
        """All of the actions or none; searches go to the new collection with the next one."""
        self._authorize(request)
        wish = await self._body(request, _Moves)
        serves: str | None = self.store.serves
        for action in wish.actions:
            alias = action.delete_alias if isinstance(action, _Delete) else action.create_alias
            if alias.alias_name != ALIAS:
                raise self._broken(request, 400, f"nobody here reads by the alias {alias.alias_name}")
            serves = self._known(alias.collection_name) if isinstance(alias, _NewAlias) else None
        if serves is None:
            raise self._broken(request, 400, f"without the alias {ALIAS} every search would fail")
        self.store.serves = serves
        self._remember(request, wish)
        return _ok(True)

    # Points

    async def count(self, request: Request, name: str) -> Json:
        """It takes a POST and changes nothing."""
        self._authorize(request)
        wanted = (await self._body(request, _Count)).filter or _Filter()
        self._known(name)
        counts = self._points(name)
        marked_only = bool(wanted.must_not)
        found = (
            points
            for source, points in counts.items()
            if all(one.match.value == source for one in wanted.must)
            and not (marked_only and (name, source) not in self.store.quarantined)
        )
        return _ok({"count": sum(found)})

    async def mark(self, request: Request, name: str) -> Json:
        return await self._marked(request, name, _Payload, on=True)

    async def unmark(self, request: Request, name: str) -> Json:
        return await self._marked(request, name, _Unmark, on=False)

    async def _marked(self, request: Request, name: str, form: type[_Payload | _Unmark], *, on: bool) -> Json:
        self._authorize(request)
        wait = self._query(request).wait
        wish = await self._body(request, form)
        self._known(name)
        if not wish.filter.must or wish.filter.must_not:
            raise self._broken(request, 400, "only all points of one source can be marked here")
        of = {(name, source) for source in SHARES if all(one.match.value == source for one in wish.filter.must)}
        if on:
            self.store.quarantined |= of
        else:
            self.store.quarantined -= of
        self._operations += 1
        self._remember(request, wish)
        return _ok({"operation_id": self._operations, "status": "completed" if wait else "acknowledged"})

    def _points(self, name: str) -> Mapping[str, int]:
        """By source."""
        points = self.store.collections[name].points
        return {source: round(points * share) for source, share in SHARES.items()}

    def _known(self, name: str) -> str:
        if name not in self.store.collections:
            raise QdrantError(404, f"Not found: Collection `{name}` doesn't exist!")
        return name

    # At the door

    def _authorize(self, request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("api-key", "").encode(), self.key.encode()):
            raise QdrantError(401, "")

    def _query(self, request: Request) -> _Wait:
        try:
            return _Wait.model_validate(dict(request.query_params))
        except ValidationError as invalid:
            raise self._broken(request, 400, str(invalid.errors()[0]["msg"])) from None

    async def _body(self, request: Request, form: type[_Model]) -> _Model:
        try:
            return form.model_validate_json(await request.body())
        except ValidationError as invalid:
            raise self._broken(request, 400, f"Format error in JSON body: {invalid.errors()[0]['msg']}") from None

    def _broken(self, request: Request, status: int, what: str) -> QdrantError:
        self.violations.append({"method": request.method, "path": request.url.path, "what": what})
        return QdrantError(status, what)

    def _remember(self, request: Request, body: BaseModel) -> None:
        what = {"method": request.method, "path": request.url.path, "body": body.model_dump(exclude_unset=True)}
        self.writes.append({"at": self.now().isoformat(), "status": 200, **what})


def _ok(result: Any) -> Json:
    return {"result": result, "status": "ok", "time": 0.0004}


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, QdrantError):
        raise error
    if error.status == 401:
        return PlainTextResponse("Must provide an API key or an Authorization bearer token", status_code=401)
    return JSONResponse({"status": {"error": str(error)}, "time": 0.0002}, status_code=error.status)
