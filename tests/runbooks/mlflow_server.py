"""MLflow's registry as far as aliases of prompts go, strict about fields and types as its own handlers are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer, basic

LOGIN = basic("watchkeeper", "mlflow-writes")
API = "/api/2.0/mlflow"


@dataclass(kw_only=True)
class MlflowServer(RememberingServer):
    """
    `aliases` is name -> alias -> version, `versions` how many each name has; `models` are no prompts.

    A `forgetful` one says yes to a change and does nothing.
    """

    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    forgetful: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != LOGIN:
            return web.Response(text="You are not authenticated.", status=401)
        if request.method == "POST" and request.path == f"{API}/registered-models/alias":
            return self._point(await request.json())
        if request.method != "GET":
            return web.Response(status=405)
        if request.path == f"{API}/registered-models/get" and set(request.query) == {"name"}:
            return self._model(request.query["name"])
        if request.path == f"{API}/model-versions/get" and set(request.query) == {"name", "version"}:
            return self._version(request.query["name"], int(request.query["version"]))
        return web.Response(status=404, text="<html>no such page</html>", content_type="text/html")

    def _model(self, name: str) -> web.Response:
        if name not in self.versions:
            return _absent(f"Registered Model with name={name} not found")
        aliases = [{"alias": alias, "version": str(number)} for alias, number in self.aliases[name].items()]
        tags = [] if name in self.models else [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
        return web.json_response({"registered_model": {"name": name, "tags": tags, "aliases": aliases}})

    def _version(self, name: str, number: int) -> web.Response:
        if not 1 <= number <= self.versions.get(name, 0):
            return _absent(f"Model Version (name={name}, version={number}) not found")
        return web.json_response({"model_version": {"name": name, "version": str(number)}})

    def _point(self, body: dict[str, Any]) -> web.Response:
        if set(body) != {"name", "alias", "version"} or not all(isinstance(each, str) for each in body.values()):
            return web.json_response({"error_code": "INVALID_PARAMETER_VALUE", "message": "bad value"}, status=400)
        if not 1 <= int(body["version"]) <= self.versions.get(body["name"], 0):
            return _absent("Model Version not found")
        if not self.forgetful:
            self.aliases[body["name"]][body["alias"]] = int(body["version"])
        return web.json_response({})


def _absent(message: str) -> web.Response:
    return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message}, status=404)
