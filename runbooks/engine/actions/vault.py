# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
HashiCorp Vault (and OpenBao): give a database role a new password, so that a leaked one is worth nothing.

Vault makes the password, sets it in the database and keeps it; neither the old nor the new one is ever read here, and
of Vault's answers only the fields that are named below go on.
Facts: GET /v1/{mount}/static-roles/{name} has the role's `username`, `db_name` and `last_vault_rotation`, and no
secret; POST /v1/{mount}/rotate-role/{name} answers 204. When the database refuses, Vault tries again by itself, so a
rotation that has not happened yet may still come. A standby node answers with a redirect, which is not followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import look, object_of, open_client, send
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_SYSTEM = "Vault"
_REDIRECTS = range(300, 400)
_PLAIN = re.compile(r"[A-Za-z0-9_.:@/+ -]{1,200}", re.ASCII)

RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class RotateRoleParams(BaseModel):
    """A static role below a `[[secret_store]]`; `service` is the plan's own, and has to be one that uses the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: ConfigName
    service: ConfigName
    role: RoleName


@dataclass(frozen=True, kw_only=True)
class VaultAccess:
    """
    One database mount of a Vault, and the services whose fixes may roll its passwords.

    `roles` are regular expressions of whole names of static roles. `namespace` is Vault Enterprise's, "" without.
    """

    url: str
    token: str = field(repr=False)
    services: tuple[str, ...]
    roles: tuple[str, ...]
    mount: str = "database"
    namespace: str = ""
    ca_file: str | None = None
    timeout_s: float = 20.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"X-Vault-Token": self.token, "X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


class RotateRole:
    """`vault.rotate_role`: the old password is gone for good, hence R3 and no undo."""

    name = "vault.rotate_role"
    tier = Tier.R3
    dry_run = DryRun.READS
    params: type[BaseModel] = RotateRoleParams
    subject: type[BaseModel] = RotateRoleParams
    can_undo = False

    def __init__(self, stores: Mapping[str, VaultAccess]) -> None:
        self._stores = dict(stores)

    def patience_s(self, params: RotateRoleParams) -> float:
        """Seconds; Vault's own limit for each call: two looks and the rotation."""
        access = self._stores.get(params.store)
        return 3 * access.timeout_s + 5.0 if access else 0.0

    def effect(self, params: RotateRoleParams, before: JsonObject) -> str:
        return (
            f"In the secret store {params.store}, Vault gives the role {params.role} (user {before['username']} of "
            f"{before['database']}) a new password. The old one stops working at once and cannot be brought back; "
            f"whoever still holds it is refused until it reads the new one (last rotated: {before['rotated']})."
        )

    def target(self, params: RotateRoleParams) -> str:
        return f"vault/role/{params.store}/{params.role}"

    def refusal(self, params: RotateRoleParams, before: JsonObject) -> str | None:
        return None

    def undo(self, params: RotateRoleParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: RotateRoleParams) -> JsonObject:
        """`{"username", "database", "rotated"}`; when it was last rotated is what tells of a rotation."""
        access = self._access(params)
        async with access.client() as client:
            return await _role(client, access, params)

    async def act(self, params: RotateRoleParams, before: JsonObject, token: str) -> JsonObject:
        access = self._access(params)
        async with access.client() as client:
            now = await _role(client, access, params)
            if now != before:
                moved = ", ".join(sorted(name for name in now if now[name] != before.get(name)))
                raise ActionError(f"the role {params.role} is not as it was any more ({moved}): nothing was changed")
            await send(client, _SYSTEM, "POST", f"/v1/{access.mount}/rotate-role/{params.role}", None, token)
            try:
                after = await _role(client, access, params)
            except ActionError as error:
                raise OutcomeUnknownError(f"Vault took the rotation, but then: {error}") from error
        if after["rotated"] == before["rotated"]:
            raise OutcomeUnknownError("Vault took the rotation, and does not say that it was done")
        return {"role": params.role, "rotated": after["rotated"]}

    async def happened(self, params: RotateRoleParams, before: JsonObject, token: str) -> Happened:
        """Never NO: what Vault could not do at once it tries again by itself."""
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        same_role = {**now, "rotated": before["rotated"]} == before
        return Happened.YES if same_role and now["rotated"] != before["rotated"] else Happened.CANNOT_TELL

    def _access(self, params: RotateRoleParams) -> VaultAccess:
        access = self._stores.get(params.store)
        if access is None:
            known = ", ".join(sorted(self._stores)) or "none"
            raise ActionError(f"the configuration has no secret_store {params.store} (it has: {known})")
        if params.service not in access.services:
            raise ActionError(f"{params.store} is used by {', '.join(access.services)} and not by {params.service}")
        if not any(re.fullmatch(pattern, params.role) for pattern in access.roles):
            raise ActionError(f"`roles` of the secret_store {params.store} does not allow {params.role}")
        return access


async def _role(client: httpx.AsyncClient, access: VaultAccess, params: RotateRoleParams) -> JsonObject:
    """What of the role people may see. Raises ActionError; Vault's own words are left out, whatever they say."""
    answer = await look(client, _SYSTEM, f"/v1/{access.mount}/static-roles/{params.role}", {})
    if answer.status_code == 404:
        raise ActionError(f"Vault has no static role {params.role} below {access.mount}")
    if answer.status_code in _REDIRECTS:
        raise ActionError("this Vault is a standby node: let `url` be an address that reaches the active one")
    if answer.status_code != 200:
        raise ActionError(f"Vault answered HTTP {answer.status_code} for the role {params.role}")
    data = object_of(answer, _SYSTEM).get("data")
    found = data if isinstance(data, dict) else {}
    return {
        "username": _plain(found, "username", params),
        "database": _plain(found, "db_name", params),
        "rotated": _plain(found, "last_vault_rotation", params),
    }


def _plain(data: JsonObject, name: str, params: RotateRoleParams) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise ActionError(f"Vault did not say the `{name}` of the role {params.role}")
    return value
