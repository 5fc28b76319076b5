"""Vault's database mount as far as static roles go; it would tell secrets to who asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer

TOKEN = "hvs.made-up-token-of-this-test"


@dataclass(kw_only=True)
class VaultServer(RememberingServer):
    """`passwords` is static role -> its passwords, the newest last. Every answer holds it, as no Vault's would."""

    passwords: dict[str, list[str]] = field(default_factory=dict)
    silent: bool = False  # takes a rotation and leaves it for later
    standby: bool = False
    ttl: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Vault-Token") != TOKEN:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        if self.standby:
            return web.Response(status=307, headers={"Location": self.url})
        match request.method, request.path.split("/")[1:]:
            case "GET", ["v1", "auth", "token", "lookup-self"]:
                return web.json_response({"data": {"ttl": self.ttl}})
            case "GET", ["v1", "database", "static-roles", role] if role in self.passwords:
                return web.json_response({"data": self._role(role)})
            case "POST", ["v1", "database", "rotate-role", role] if role in self.passwords:
                assert not await request.read()
                if not self.silent:
                    self.passwords[role].append(f"made-up-password-{len(self.passwords[role]) + 1}")
                return web.Response(status=204)
        return web.json_response({"errors": []}, status=404)

    def _role(self, role: str) -> dict[str, Any]:
        return {
            "username": f"app-{role}",
            "db_name": "vectors",
            "last_vault_rotation": f"2026-11-22T03:0{len(self.passwords[role])}:00.123456789Z",
            "rotation_period": 86400,
            "password": self.passwords[role][-1],
            "rotation_statements": [f"ALTER USER app WITH PASSWORD '{self.passwords[role][-1]}'"],
        }
