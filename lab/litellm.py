"""
A stand-in for the admin API of LiteLLM's proxy (1.109), over the lab's gateway.

Answers, errors and roles are LiteLLM's: a master key, a key of a view-only admin, deployments that live in its
database. Where LiteLLM drops what it does not know, this refuses it and remembers a violation, so that a test can
prove that nobody relied on the leniency: `/_lab/violations`. Every write is remembered with its outcome under
`/_lab/writes`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from lab.gateway import Gateway, Key, ModelDeployment
from lab.guardrails import Guardrails
from lab.litellm_forms import (
    FallbackQuery,
    GuardrailPatch,
    KeyInfoQuery,
    KeyListQuery,
    KeyRef,
    KeyUpdate,
    ModelQuery,
    NewFallback,
    Patch,
    Query,
)
from lab.litellm_guardrails import ID, GuardrailVersions
from lab.records import tell_records

Json = dict[str, Any]
_Body = TypeVar("_Body", bound=BaseModel)

_READ_PATHS = ("/key/info", "/key/list", "/model/info", "/v1/model/info", "/fallback/", "/v2/guardrails/list")
_KEY = re.compile(r"sk-[A-Za-z0-9_-]+|[a-fA-F0-9]{64}", re.ASCII)


class LiteLLMError(Exception):
    """An answer that is not a success. `body` is either LiteLLM's own error object or FastAPI's `detail`."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


def _proxy_error(status: int, message: str, kind: str, param: str | None = None) -> LiteLLMError:
    """LiteLLM's ProxyException, which looks like OpenAI's errors; the code is a string."""
    return LiteLLMError(status, {"error": {"message": message, "type": kind, "param": param, "code": str(status)}})


def _detail(status: int, error: str, **more: Any) -> LiteLLMError:
    return LiteLLMError(status, {"detail": {"error": error, **more}})


@dataclass(kw_only=True)
class LiteLLMApi:
    """The API over a gateway. `now` is lab time; `admin_key` is the master key, `read_key` a view-only admin's."""

    gateway: Gateway
    now: Callable[[], datetime]
    read_key: str
    admin_key: str
    guardrails: GuardrailVersions = field(default_factory=lambda: GuardrailVersions(guardrails=Guardrails()))
    writes: list[Json] = field(default_factory=list)
    violations: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for LiteLLM", docs_url=None, redoc_url=None, openapi_url=None)
        for path in ("/v1/model/info", "/model/info"):
            app.add_api_route(path, self.model_info, methods=["GET"])
        app.add_api_route("/model/{model_id}/update", self.update_model, methods=["PATCH"])
        app.add_api_route("/fallback", self.set_fallback, methods=["POST"])
        app.add_api_route("/fallback/{model}", self.fallback, methods=["GET"])
        app.add_api_route("/fallback/{model}", self.delete_fallback, methods=["DELETE"])
        app.add_api_route("/v2/guardrails/list", self.list_guardrails, methods=["GET"])
        app.add_api_route("/guardrails/{guardrail}", self.update_guardrail, methods=["PATCH"])
        app.add_api_route("/key/list", self.list_keys, methods=["GET"])
        app.add_api_route("/key/info", self.key_info, methods=["GET"])
        app.add_api_route("/key/update", self.update_key, methods=["POST"])
        app.add_api_route("/key/block", self.block, methods=["POST"])
        app.add_api_route("/key/unblock", self.block, methods=["POST"])
        tell_records(app, self)
        app.add_api_route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        app.add_exception_handler(LiteLLMError, _refuse)
        return app

    async def _unknown(self, request: Request) -> Json:
        self._violate(request, "LiteLLM has no such endpoint, or we do not play it")
        raise LiteLLMError(404, {"detail": "Not Found"})

    # Deployments

    async def model_info(self, request: Request) -> Json:
        """All deployments, or the one that is asked for."""
        self._authorize(request)
        wanted = self._query(request, ModelQuery).litellm_model_id
        if wanted is None:
            return {"data": [_model(one) for one in self.gateway.deployments.values()]}
        if wanted not in self.gateway.deployments:
            raise _detail(400, f"Model id = {wanted} not found on litellm proxy")
        return {"data": [_model(self.gateway.deployments[wanted])]}

    async def update_model(self, request: Request, model_id: str) -> Json:
        """Merge what came into the deployment; the answer is its row, with texts encrypted as they are stored."""
        self._authorize(request)
        patch = await self._body(request, Patch)
        one = self.gateway.deployments.get(model_id)
        if one is None:
            raise self._refused(
                request, _proxy_error(404, f"Model {model_id} not found on proxy.", "not_found_error"), patch
            )
        if not one.in_database:
            wrong = "Cannot edit config-based model. Store model in DB via /model/new first."
            raise self._refused(request, _proxy_error(400, wrong, "validation_error"), patch)
        one.weight = patch.litellm_params.weight
        self._remember(request, 200, patch)
        params = _model(one)["litellm_params"]
        return {
            "model_id": one.id,
            "model_name": one.group,
            "litellm_params": {
                name: _encrypted(value) if isinstance(value, str) else value for name, value in params.items()
            },
            "model_info": {"id": one.id, "db_model": True},
            "blocked": False,
            "created_by": "default_user_id",
            "updated_at": _stamp(self.now()),
            "updated_by": "default_user_id",
        }

    # Fallbacks

    async def fallback(self, request: Request, model: str) -> Json:
        self._authorize(request)
        kind = self._query(request, FallbackQuery).fallback_type
        targets = self.gateway.fallbacks.get(model)
        if not targets:
            raise _detail(404, f"No {kind} fallbacks configured for model '{model}'")
        return {"model": model, "fallback_models": list(targets), "fallback_type": kind}

    async def set_fallback(self, request: Request) -> Json:
        self._authorize(request)
        body = await self._body(request, NewFallback)
        known = {one.group for one in self.gateway.deployments.values()}
        unknown = [name for name in body.fallback_models if name not in known]
        if body.model not in known:
            error = _detail(404, f"Model '{body.model}' not found in router", available_models=sorted(known))
            raise self._refused(request, error, body)
        if unknown:
            error = _detail(400, f"Invalid fallback models: {unknown}", available_models=sorted(known))
            raise self._refused(request, error, body)
        if body.model in body.fallback_models:
            raise self._refused(request, _detail(400, f"Model '{body.model}' cannot be its own fallback"), body)
        done = "updated" if body.model in self.gateway.fallbacks else "created"
        self.gateway.fallbacks[body.model] = list(body.fallback_models)
        self._remember(request, 200, body)
        return {**body.model_dump(), "message": f"Fallback configuration {done} successfully"}

    async def delete_fallback(self, request: Request, model: str) -> Json:
        self._authorize(request)
        kind = self._query(request, FallbackQuery).fallback_type
        if self.gateway.fallbacks.pop(model, None) is None:
            raise self._refused(request, _detail(404, f"No {kind} fallbacks configured for model '{model}'"), None)
        self._remember(request, 200, None)
        return {"model": model, "fallback_type": kind, "message": "Fallback configuration deleted successfully"}

    # Guardrails

    async def list_guardrails(self, request: Request) -> Json:
        self._authorize(request)
        self._query(request, Query)
        return {"guardrails": [self.guardrails.row]}

    async def update_guardrail(self, request: Request, guardrail: str) -> Json:
        """Merge the version into the guardrail's parameters. LiteLLM would take one that nobody published."""
        self._authorize(request)
        patch = await self._body(request, GuardrailPatch)
        if guardrail != ID:
            missing = LiteLLMError(404, {"detail": f"Guardrail with ID {guardrail} not found"})
            raise self._refused(request, missing, patch)
        if not self.guardrails.enforce(patch.litellm_params.version):
            self._violate(request, "nobody published this version, so that every check would fail")
            raise self._refused(request, _detail(400, "no such version"), patch)
        self._remember(request, 200, patch)
        return self.guardrails.row

    # Keys

    async def list_keys(self, request: Request) -> Json:
        """A page of the keys that match exactly: their hashes, or everything but the key itself."""
        self._authorize(request)
        query = self._query(request, KeyListQuery)
        found = [
            key
            for key in self.gateway.keys.values()
            if query.key_alias in {None, key.alias} and query.key_hash in {None, key.token}
        ]
        page = found[(query.page - 1) * query.size : query.page * query.size]
        return {
            "keys": [{"token": key.token, **_key(key)} if query.return_full_object else key.token for key in page],
            "total_count": len(found),
            "current_page": query.page,
            "total_pages": -(-len(found) // query.size),
        }

    async def key_info(self, request: Request) -> Json:
        self._authorize(request)
        asked = self._query(request, KeyInfoQuery).key
        key = self.gateway.keys.get(_hashed(asked))
        if key is None:
            raise _proxy_error(404, "Key not found in database", "not_found_error", "key")
        return {"key": asked, "info": {**_key(key), "status": "revoked" if key.blocked else "active"}}

    async def update_key(self, request: Request) -> Json:
        """A merge patch: what is left out stays, an explicit null clears."""
        self._authorize(request)
        body = await self._body(request, KeyUpdate)
        key = self._key(request, body)
        for name in body.model_fields_set - {"key"}:
            setattr(key, name, getattr(body, name))
        self._remember(request, 200, body)
        return {"key": body.key, "token": key.token, **_key(key)}

    async def block(self, request: Request) -> Json:
        """`/key/block` and `/key/unblock`."""
        self._authorize(request)
        body = await self._body(request, KeyRef)
        if len(body.key) > 100 or not _KEY.fullmatch(body.key):
            raise self._refused(request, _proxy_error(400, "Invalid key format.", "bad_request_error", "key"), body)
        key = self._key(request, body)
        key.blocked = request.url.path == "/key/block"
        self._remember(request, 200, body)
        return {"token": key.token, **_key(key)}

    def _key(self, request: Request, body: KeyUpdate | KeyRef) -> Key:
        key = self.gateway.keys.get(_hashed(body.key))
        if key is None:
            raise self._refused(request, _proxy_error(404, "Key not found.", "not_found_error", "key"), body)
        return key

    # At the door

    def _authorize(self, request: Request) -> None:
        """Raises LiteLLMError: 401 for no key or none of ours, 403 when the view-only admin would write."""
        header = request.headers.get("authorization")
        if header is None:
            raise _proxy_error(401, "Authentication Error, No api key passed in.", "auth_error")
        if not header.startswith("Bearer "):
            wrong = "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix."
            raise _proxy_error(401, wrong, "auth_error")
        came = header.removeprefix("Bearer ").encode()
        if hmac.compare_digest(came, self.admin_key.encode()):
            return
        if not hmac.compare_digest(came, self.read_key.encode()):
            wrong = "Authentication Error, Invalid proxy server token passed."
            raise _proxy_error(401, wrong, "token_not_found_in_db", "key")
        if request.method != "GET" or not request.url.path.startswith(_READ_PATHS):
            route = request.url.path
            wrong = f"user not allowed to access this route, role= proxy_admin_viewer. Trying to access: {route}"
            self._violate(request, wrong)
            raise self._refused(request, _proxy_error(403, wrong, "auth_error"), None)

    def _query(self, request: Request, model: type[_Body]) -> _Body:
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as invalid:
            raise self._invalid(request, invalid, "query") from None

    async def _body(self, request: Request, model: type[_Body]) -> _Body:
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as invalid:
            raise self._invalid(request, invalid, "body") from None

    def _invalid(self, request: Request, invalid: ValidationError, where: str) -> LiteLLMError:
        """What FastAPI answers, and LiteLLM with it."""
        issues = [{"type": e["type"], "loc": [where, *e["loc"]], "msg": e["msg"]} for e in invalid.errors()]
        self._violate(request, "; ".join(f"{issue['loc']}: {issue['msg']}" for issue in issues))
        return LiteLLMError(422, {"detail": issues})

    def _violate(self, request: Request, what: str) -> None:
        self.violations.append({"method": request.method, "path": request.url.path, "what": what})

    def _refused(self, request: Request, error: LiteLLMError, body: BaseModel | None) -> LiteLLMError:
        self._remember(request, error.status, body)
        return error

    def _remember(self, request: Request, status: int, body: BaseModel | None) -> None:
        sent = body.model_dump(exclude_unset=True) if body else None
        what = {"method": request.method, "path": request.url.path, "status": status, "body": sent}
        self.writes.append({"at": _stamp(self.now()), **what})


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, LiteLLMError):
        raise error
    return JSONResponse(error.body, status_code=error.status)


def _model(one: ModelDeployment) -> Json:
    """An entry of `/v1/model/info`; the provider's credential is never in it."""
    params: Json = {"model": f"{one.provider}/{one.model}", "api_base": one.api_base, "use_in_pass_through": False}
    if one.weight is not None:
        params["weight"] = one.weight
    return {
        "model_name": one.group,
        "litellm_params": params,
        "model_info": {
            "id": one.id,
            "db_model": one.in_database,
            "key": f"{one.provider}/{one.model}",
            "litellm_provider": one.provider,
            "mode": "chat",
            "direct_access": True,
            "access_via_team_ids": [],
        },
    }


def _key(key: Key) -> Json:
    return {
        "key_name": key.name,
        "key_alias": key.alias,
        "spend": 0.0,
        "max_budget": key.max_budget,
        "tpm_limit": key.tpm_limit,
        "rpm_limit": key.rpm_limit,
        "models": [],
        "metadata": {},
        "team_id": "llm",
        "blocked": key.blocked,
        "expires": None,
    }


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() if key.startswith("sk-") else key


def _encrypted(value: str) -> str:
    """Not LiteLLM's cipher: just as unreadable."""
    return hashlib.sha256(value.encode()).hexdigest()


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
