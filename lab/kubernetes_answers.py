"""How the Kubernetes stand-in answers: refusals as a Status, whole objects checked, patches applied."""

from __future__ import annotations

import json

import kubernetes_validate
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from lab import patches
from lab.cluster_objects import Json

KUBERNETES_VERSION = "1.33"

_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}
_REASONS |= {409: "Conflict", 415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError"}


class ApiError(Exception):
    """An answer that is not a success, as a Kubernetes Status."""

    def __init__(self, code: int, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": _REASONS[code],
            "code": code,
        }
        if details:
            self.status["details"] = details


def validate(item: Json) -> None:
    """Check a whole object against Kubernetes' own schema. Raises ApiError 422 that names the field."""
    try:
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(step) for step in error.path) or "the object"
        raise invalid(item, where, str(error.message)) from None


def invalid(item: Json, where: str, why: str) -> ApiError:
    name = str((item.get("metadata") or {}).get("name", ""))
    details = {
        "name": name,
        "kind": item["kind"],
        "causes": [{"reason": "FieldValueInvalid", "message": why, "field": where}],
    }
    return ApiError(422, f'{item["kind"]} "{name}" is invalid: {where}: {why}', details)


async def body_of(request: Request) -> object:
    """Raises ApiError 400."""
    try:
        return json.loads(await request.body())
    except ValueError:
        raise ApiError(400, "the body of the request is not JSON") from None


async def sent(request: Request, api_version: str, kind: str) -> Json:
    """An object of this kind in the body, checked whole. Raises ApiError 400, 422."""
    body = await body_of(request)
    if not isinstance(body, dict) or (body.get("kind"), body.get("apiVersion")) != (kind, api_version):
        raise ApiError(400, f"the body of the request is no {api_version} {kind}")
    validate(body)
    return body


async def changed(request: Request, before: Json) -> Json:
    """The object that a PATCH or PUT asks for. Raises ApiError 400, 415 or 422."""
    body = await body_of(request)
    if request.method == "PUT":
        if not isinstance(body, dict) or (body.get("kind"), body.get("apiVersion")) != (
            before["kind"],
            before["apiVersion"],
        ):
            raise ApiError(400, f"the body of the request is no {before['apiVersion']} {before['kind']}")
        return body
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    try:
        after = patches.apply(content_type, before, body)
    except KeyError:
        raise ApiError(415, f"the body of the request was in an unknown format: {content_type}") from None
    except patches.PatchError as error:
        raise invalid(before, "patch", str(error)) from None
    if not isinstance(after.get("metadata"), dict) or not isinstance(after.get("spec"), dict):
        raise invalid(before, "spec", "metadata and spec must be objects")
    return after


def refuse_stale(before: Json, after: Json, kind: str) -> None:
    """Compare-and-set on the resource version; an identity cannot change. Raises ApiError 409, 422."""
    name = before["metadata"]["name"]
    if after["metadata"].get("resourceVersion") not in {None, "", before["metadata"]["resourceVersion"]}:
        modified = "the object has been modified; please apply your changes to the latest version and try again"
        message = f'Operation cannot be fulfilled on {kind} "{name}": {modified}'
        raise ApiError(409, message, {"name": name, "kind": kind})
    for key in ("name", "namespace", "uid"):
        if after["metadata"].get(key, before["metadata"].get(key)) != before["metadata"].get(key):
            raise invalid(before, f"metadata.{key}", "field is immutable")


def is_dry_run(request: Request) -> bool:
    return request.query_params.get("dryRun") == "All"


async def answer_refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.status, status_code=error.status["code"])


async def answer_unknown_path(_: Request, __: Exception) -> Response:
    return JSONResponse(ApiError(404, "the server could not find the requested resource").status, status_code=404)
