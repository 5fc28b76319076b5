"""Langfuse's prompt API as far as labels go: a label sits on one version, and `newLabels` are added to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web

from tests.runbooks.http_server import RememberingServer, basic

PUBLIC, SECRET = "pk-lf-test", "sk-lf-test"


@dataclass(kw_only=True)
class LangfuseServer(RememberingServer):
    """`prompts` is name -> version -> labels. The newest version carries `latest`, which nobody may set."""

    prompts: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    protected: set[str] = field(default_factory=set)

    def version_of(self, name: str, label: str) -> int | None:
        return next((v for v, labels in self.prompts[name].items() if label in labels), None)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != basic(PUBLIC, SECRET):
            return web.json_response({"message": "Invalid credentials"}, status=401)
        parts = request.raw_path.split("?")[0].split("/")
        if parts[:5] != ["", "api", "public", "v2", "prompts"] or len(parts) not in (6, 8):
            return web.json_response({"message": "Not found"}, status=404)
        versions = self.prompts.get(unquote(parts[5]))
        if versions is None:
            return web.json_response({"message": "Prompt not found"}, status=404)
        if request.method == "GET" and len(parts) == 6:
            return self._get(unquote(parts[5]), versions, request)
        if request.method == "PATCH" and len(parts) == 8 and parts[6] == "versions":
            return await self._patch(unquote(parts[5]), versions, int(parts[7]), request)
        return web.json_response({"message": "Method not allowed"}, status=405)

    def _get(self, name: str, versions: dict[int, set[str]], request: web.Request) -> web.Response:
        if "version" in request.query:
            version: int | None = int(request.query["version"])
        else:
            version = self.version_of(name, request.query.get("label", "production"))
        if version not in versions:
            return web.json_response({"message": "Prompt not found"}, status=404)
        return self._prompt(name, version)

    async def _patch(
        self, name: str, versions: dict[int, set[str]], version: int, request: web.Request
    ) -> web.Response:
        new = set((await request.json())["newLabels"])
        if "latest" in new:
            return web.json_response({"message": "Label 'latest' is always assigned to the latest version"}, status=400)
        if new & self.protected:
            return web.json_response({"message": "The label is protected"}, status=403)
        if version not in versions:
            return web.json_response({"message": "Prompt not found"}, status=404)
        for labels in versions.values():
            labels.difference_update(new)
        versions[version].update(new)
        return self._prompt(name, version)

    def _prompt(self, name: str, version: int) -> web.Response:
        labels = sorted(self.prompts[name][version])
        if version == max(self.prompts[name]):
            labels.append("latest")
        return web.json_response({"name": name, "version": version, "labels": labels, "type": "text", "prompt": "Hi"})
