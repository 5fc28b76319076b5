"""
A stand-in for LaunchDarkly's REST API, over the lab's feature flags: one project, one environment.

It knows what Watchkeeper asks for: a flag, the audit log, and a semantic patch that turns a flag on or off. A reader's
token may not patch. Whatever else is asked for is refused as LaunchDarkly would refuse it, and remembered under
`/_lab/violations`; every patch is remembered with its outcome under `/_lab/writes`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.records import tell_records
from lab.switches import Switched, Switches

Json = dict[str, Any]
PROJECT, ENVIRONMENT = "default", "production"
SEMANTIC_PATCH = "application/json; domain-model=launchdarkly.semanticpatch"
_SPEC = f"proj/{PROJECT}:env/{ENVIRONMENT}:flag/*"
_Model = TypeVar("_Model", bound=BaseModel)


class LaunchDarklyError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Instruction(_Strict):
    kind: Literal["turnFlagOn", "turnFlagOff"]


class _SemanticPatch(_Strict):
    environment: Literal["production"] = Field(alias="environmentKey")
    instructions: Annotated[list[_Instruction], Field(min_length=1, max_length=1)]
    comment: str = Field(default="", max_length=1000)


class _FlagQuery(_Strict):
    env: Literal["production"] | None = None


class _AuditQuery(_Strict):
    after: int = Field(default=0, ge=0)
    before: int = Field(default=10**14, ge=0)
    limit: int = Field(default=10, ge=1, le=20)
    spec: Literal["proj/default:env/production:flag/*"] = "proj/default:env/production:flag/*"


@dataclass(kw_only=True)
class LaunchDarklyApi:
    """The API over the flags. `now` is lab time; a token may read, another one may also patch."""

    switches: Switches
    now: Callable[[], datetime]
    read_token: str
    write_token: str
    writes: list[Json] = field(default_factory=list)
    violations: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for LaunchDarkly", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/api/v2/flags/{project}/{key}", self.flag, methods=["GET"])
        app.add_api_route("/api/v2/flags/{project}/{key}", self.patch, methods=["PATCH"])
        app.add_api_route("/api/v2/auditlog", self.audit_log, methods=["GET"])
        tell_records(app, self)
        app.add_api_route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        app.add_exception_handler(LaunchDarklyError, _refuse)
        return app

    async def _unknown(self, request: Request) -> Json:
        self._authorize(request)
        raise self._broken(request, 404, "not_found", "Unknown resource, or one that we do not play")

    async def flag(self, request: Request, project: str, key: str) -> Json:
        self._authorize(request)
        self._asked(request, _FlagQuery)
        self._known(project, key)
        return self._flag(key)

    async def patch(self, request: Request, project: str, key: str) -> Json:
        """A semantic patch with one instruction; a flag that is so already stays as it is."""
        writes = self._authorize(request)
        body = (await request.body()).decode(errors="replace")
        try:
            if not writes:
                raise self._broken(request, 403, "forbidden", "Access to the requested resource was denied")
            if request.headers.get("content-type") != SEMANTIC_PATCH:
                raise self._broken(request, 400, "invalid_request", "this is no semantic patch")
            wish = self._valid(request, _SemanticPatch, body)
            self._known(project, key)
        except LaunchDarklyError as refusal:
            self._remember(request, refusal.status, body)
            raise
        on = wish.instructions[0].kind == "turnFlagOn"
        self.switches.turn(key, on=on, at=self.now(), by="watchkeeper", comment=wish.comment)
        self._remember(request, 200, body)
        return self._flag(key)

    async def audit_log(self, request: Request) -> Json:
        """Newest first; both ends are exclusive."""
        self._authorize(request)
        query = self._asked(request, _AuditQuery)
        numbered = [(place, each) for place, each in enumerate(self.switches.history, 1)]
        found = [
            _entry(place, each)
            for place, each in reversed(numbered)
            if query.after < _milliseconds(each.at) < query.before
        ]
        return {"items": found[: query.limit], "_links": {}}

    def _known(self, project: str, key: str) -> None:
        if project != PROJECT:
            raise LaunchDarklyError(404, "not_found", f"Unknown project key {project}")
        if key not in self.switches.flags:
            raise LaunchDarklyError(404, "not_found", f"Unknown feature flag key {key}")

    def _flag(self, key: str) -> Json:
        version = self.switches.version(key)
        here = {
            "on": self.switches.is_on(key),
            "archived": False,
            "salt": "c0ffee",
            "version": version,
            "targets": [],
            "rules": [],
            "fallthrough": {"variation": 0},
            "offVariation": 1,
            "prerequisites": [],
        }
        return {
            "key": key,
            "name": key,
            "kind": "boolean",
            "archived": False,
            "temporary": False,
            "tags": [],
            "variations": [{"value": True}, {"value": False}],
            "_version": version,
            "environments": {ENVIRONMENT: here},
        }

    # At the door

    def _authorize(self, request: Request) -> bool:
        """Whether the token may also write. Raises LaunchDarklyError 401 for none of ours."""
        came = request.headers.get("authorization", "").encode()
        if hmac.compare_digest(came, self.write_token.encode()):
            return True
        if hmac.compare_digest(came, self.read_token.encode()):
            return False
        raise LaunchDarklyError(401, "unauthorized", "Invalid access token")

    def _asked(self, request: Request, model: type[_Model]) -> _Model:
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as invalid:
            raise self._broken(request, 400, "invalid_request", _words(invalid)) from None

    def _valid(self, request: Request, model: type[_Model], body: str) -> _Model:
        try:
            return model.model_validate_json(body)
        except ValidationError as invalid:
            raise self._broken(request, 400, "invalid_request", _words(invalid)) from None

    def _broken(self, request: Request, status: int, code: str, what: str) -> LaunchDarklyError:
        self.violations.append({"method": request.method, "path": request.url.path, "what": what})
        return LaunchDarklyError(status, code, what)

    def _remember(self, request: Request, status: int, body: str) -> None:
        what = {"method": request.method, "path": request.url.path, "status": status, "body": body}
        self.writes.append({"at": self.now().isoformat(), **what})


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, LaunchDarklyError):
        raise error
    return JSONResponse(error.body, status_code=error.status)


def _entry(place: int, switched: Switched) -> Json:
    verb = f"turned {'on' if switched.on else 'off'} the flag"
    return {
        "_id": f"{place:024x}",
        "date": _milliseconds(switched.at),
        "kind": "flag",
        "name": switched.key,
        "titleVerb": verb,
        "description": f"Turned the flag {'on' if switched.on else 'off'} in `Production`",
        "comment": switched.comment,
        "member": {"email": f"{switched.by}@lab.example", "firstName": switched.by, "lastName": ""},
        "target": {"name": switched.key, "resources": [_SPEC.replace("*", switched.key)]},
    }


def _milliseconds(at: datetime) -> int:
    return round(at.astimezone(UTC).timestamp() * 1000)


def _words(invalid: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(step) for step in e['loc'])}: {e['msg']}" for e in invalid.errors())
