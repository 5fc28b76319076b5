"""
A stand-in for Langfuse's prompt API, as strict as the real one, with timestamps in lab time.

Basic auth with "public:secret"; the read key may look, the write key may also create versions and move labels. Every
write that came with a valid key is remembered with its outcome under `/_lab/writes`, so that a test can prove that
nothing ran twice.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from lab.prompt_store import LATEST, PRODUCTION, PromptNotFoundError, PromptStore, PromptVersion

Json = dict[str, Any]
_Model = TypeVar("_Model", bound=BaseModel)


class LangfuseError(Exception):
    """An answer that is not a success: its HTTP status, Langfuse's name for it, and a message."""

    def __init__(self, status: int, error: str | list[Json], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


class _ListQuery(BaseModel):
    name: str | None = None
    label: str | None = None
    tag: str | None = None
    version: int | None = None
    page: int = Field(default=1, ge=1)
    limit: int = Field(default=50, ge=1, le=100)
    from_updated_at: AwareDatetime | None = Field(default=None, alias="fromUpdatedAt")
    to_updated_at: AwareDatetime | None = Field(default=None, alias="toUpdatedAt")


class _GetQuery(BaseModel):
    version: int | None = Field(default=None, ge=1)
    label: str | None = None


def _without_latest(labels: list[str]) -> list[str]:
    if LATEST in labels:
        raise ValueError("Label 'latest' is always assigned to the latest prompt version")
    return labels


class _NewLabels(BaseModel):
    model_config = ConfigDict(strict=True)
    new_labels: list[str] = Field(alias="newLabels")

    _checked = field_validator("new_labels")(_without_latest)


class _NewPrompt(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str = Field(min_length=1, max_length=255)
    prompt: str
    type: str = Field(default="text", pattern="^text$")
    labels: list[str] = []
    tags: list[str] | None = None
    config: Json | None = None
    commit_message: str | None = Field(default=None, alias="commitMessage")

    _checked = field_validator("labels")(_without_latest)


@dataclass(kw_only=True)
class LangfuseApi:
    """The API over a prompt store. `now` is lab time."""

    store: PromptStore
    now: Callable[[], datetime]
    read_key: str
    write_key: str
    writes: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for Langfuse", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/api/public/health", self.health, methods=["GET"])
        app.add_api_route("/api/public/v2/prompts", self.list_prompts, methods=["GET"])
        app.add_api_route("/api/public/v2/prompts", self.create, methods=["POST"])
        # Prompt names may hold slashes (folders); a client sends them encoded, and the server decodes them first.
        version_path = "/api/public/v2/prompts/{name:path}/versions/{version}"
        app.add_api_route(version_path, self.update, methods=["PATCH"])
        app.add_api_route("/api/public/v2/prompts/{name:path}", self.get, methods=["GET"])
        app.add_api_route("/_lab/writes", self.remembered, methods=["GET"])
        app.add_exception_handler(LangfuseError, _refuse)
        return app

    async def health(self) -> Json:
        return {"status": "OK", "version": "3.120.0"}

    async def remembered(self) -> list[Json]:
        return self.writes

    async def list_prompts(self, request: Request) -> Json:
        """Prompt names with their versions and labels; the filters choose versions, and only chosen ones are shown."""
        self._authorize(request)
        query = _parse(_ListQuery, dict(request.query_params))
        chosen: dict[str, list[PromptVersion]] = {}
        for version in self.store:
            if _matches(version, query):
                chosen.setdefault(version.name, []).append(version)
        names = list(chosen)[(query.page - 1) * query.limit : query.page * query.limit]
        pages = -(-len(chosen) // query.limit)
        meta = {"page": query.page, "limit": query.limit, "totalPages": pages, "totalItems": len(chosen)}
        return {"data": [_meta(chosen[name]) for name in names], "meta": meta}

    async def get(self, request: Request, name: str) -> Json:
        """One version of a prompt: the asked number, the asked label, or `production`."""
        self._authorize(request)
        query = _parse(_GetQuery, dict(request.query_params))
        if query.version is not None and query.label is not None:
            raise LangfuseError(400, "InvalidRequestError", "Cannot specify both version and label")
        which = f"version {query.version}" if query.version else f"label '{query.label or PRODUCTION}'"
        try:
            if query.version:
                return _full(self.store.get(name, query.version))
            return _full(self.store.labelled(name, query.label or PRODUCTION))
        except PromptNotFoundError:
            raise _not_found(f"Prompt not found: '{name}' with {which}") from None

    async def update(self, request: Request, name: str, version: str) -> Json:
        """Give labels to a version, taking them from the others."""
        with_key = self._authorize(request, to_write=True)
        body = await self._body(request, _NewLabels, with_key)
        try:
            changed = self.store.add_labels(name, int(version), body.new_labels, at=self.now())
        except (PromptNotFoundError, ValueError):
            self._remember(request, with_key, 404, body.model_dump(by_alias=True))
            raise _not_found(f"Prompt not found: {name}") from None
        self._remember(request, with_key, 200, body.model_dump(by_alias=True))
        return _full(changed)

    async def create(self, request: Request) -> JSONResponse:
        """Add a version to a prompt, or the first one of a new prompt."""
        with_key = self._authorize(request, to_write=True)
        body = await self._body(request, _NewPrompt, with_key)
        created = self.store.create(
            body.name,
            body.prompt,
            at=self.now(),
            created_by="API",
            labels=body.labels,
            tags=body.tags,
            config=body.config,
            commit_message=body.commit_message,
        )
        self._remember(request, with_key, 201, body.model_dump(by_alias=True))
        return JSONResponse(_full(created), status_code=201)

    def _authorize(self, request: Request, *, to_write: bool = False) -> str:
        """The public part of the key that came. Raises LangfuseError 401 for none of ours, 403 for reading only."""
        header = request.headers.get("authorization", "")
        if not header:
            raise LangfuseError(401, "UnauthorizedError", "No authorization header")
        key = _basic(header)
        may_write = hmac.compare_digest(key.encode(), self.write_key.encode())
        if not may_write and not hmac.compare_digest(key.encode(), self.read_key.encode()):
            wrong = "Invalid credentials. Confirm that you've configured the correct host."
            raise LangfuseError(401, "UnauthorizedError", wrong)
        public = key.partition(":")[0]
        if to_write and not may_write:
            self._remember(request, public, 403, None)
            raise LangfuseError(403, "ForbiddenError", f"Access denied: this key may not {request.method} prompts")
        return public

    async def _body(self, request: Request, model: type[_Model], key: str) -> _Model:
        try:
            return _parse(model, await request.json())
        except ValueError:
            self._remember(request, key, 400, None)
            raise LangfuseError(400, "InvalidRequestError", "Invalid JSON in the request body") from None
        except LangfuseError as refusal:
            self._remember(request, key, refusal.status, None)
            raise

    def _remember(self, request: Request, key: str, status: int, body: Json | None) -> None:
        what = {"method": request.method, "path": request.url.path, "key": key, "status": status, "body": body}
        self.writes.append({"at": _stamp(self.now()), **what})


def _basic(header: str) -> str:
    """ "public:secret" from a Basic header; "" when it is none. Never raises: what comes is anybody's text."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(coded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _parse(model: type[_Model], raw: Any) -> _Model:
    try:
        return model.model_validate(raw)
    except ValidationError as invalid:
        issues = [{"path": list(e["loc"]), "message": e["msg"], "code": e["type"]} for e in invalid.errors()]
        raise LangfuseError(400, issues, "Invalid request data") from None


def _not_found(message: str) -> LangfuseError:
    return LangfuseError(404, "LangfuseNotFoundError", message)


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, LangfuseError):
        raise error
    return JSONResponse({"message": error.message, "error": error.error}, status_code=error.status)


def _matches(version: PromptVersion, query: _ListQuery) -> bool:
    wanted = (
        query.name in {None, version.name},
        query.version in {None, version.version},
        query.label is None or query.label in version.labels,
        query.tag is None or query.tag in version.tags,
        query.from_updated_at is None or version.updated_at >= query.from_updated_at,
        query.to_updated_at is None or version.updated_at < query.to_updated_at,
    )
    return all(wanted)


def _meta(versions: list[PromptVersion]) -> Json:
    newest = max(versions, key=lambda v: v.version)
    return {
        "name": newest.name,
        "type": newest.type,
        "versions": [v.version for v in versions],
        "labels": sorted({label for v in versions for label in v.labels}),
        "tags": list(newest.tags),
        "lastUpdatedAt": _stamp(max(v.updated_at for v in versions)),
        "lastConfig": newest.config,
    }


def _full(version: PromptVersion) -> Json:
    return {
        "id": version.id,
        "createdAt": _stamp(version.created_at),
        "updatedAt": _stamp(version.updated_at),
        "projectId": "lab-chat",
        "createdBy": version.created_by,
        "prompt": version.prompt,
        "name": version.name,
        "version": version.version,
        "type": version.type,
        "isActive": None,
        "config": version.config,
        "tags": list(version.tags),
        "labels": list(version.labels),
        "commitMessage": version.commit_message,
        "resolutionGraph": None,
    }


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
