"""vLLM's admin API: adapters among the models, a prefix cache, sleep; as strict as the server about what it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from tests.runbooks.http_server import RememberingServer

KEY = "vllm-api-key"


@dataclass(kw_only=True)
class VllmServer(RememberingServer):
    """One engine with the model `chat`; where it is `slow` it answers before sleeping or waking is done."""

    adapters: dict[str, str] = field(default_factory=dict)
    sleeping: bool = False
    emptied: int = 0
    dev_mode: bool = True
    slow: bool = False

    def writes(self) -> list[str]:
        """The paths of everything that was to change something."""
        return [one.path for one in self.of("POST")]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v1") and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        match request.method, request.path:
            case "GET", "/v1/models":
                return web.json_response({"object": "list", "data": self._models()})
            case "POST", "/v1/load_lora_adapter":
                return await self._load(request)
            case "POST", "/v1/unload_lora_adapter":
                name = (await request.json())["lora_name"]
                if self.adapters.pop(name, None) is None:
                    return _error(404, f"The lora adapter '{name}' cannot be found.")
                return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")
        return self._dev(request) if self.dev_mode else _not_found()

    def _dev(self, request: web.Request) -> web.Response:
        match request.method, request.path:
            case "GET", "/is_sleeping":
                return web.json_response({"is_sleeping": self.sleeping})
            case "POST", "/reset_prefix_cache":
                self.emptied += 1
                return web.Response()
            case "POST", "/sleep" if request.query.get("level") == "1":
                self.sleeping = not self.slow
                return web.Response()
            case "POST", "/wake_up":
                self.sleeping = self.slow
                return web.Response()
        return _not_found()

    def _models(self) -> list[dict[str, str | None]]:
        found: list[dict[str, str | None]] = [{"id": "chat", "root": "/models/chat", "parent": None}]
        return found + [{"id": name, "root": path, "parent": "chat"} for name, path in self.adapters.items()]

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if "missing" in path:
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")


def _not_found() -> web.Response:
    return web.json_response({"detail": "Not Found"}, status=404)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)
