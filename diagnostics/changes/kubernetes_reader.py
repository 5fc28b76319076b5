"""A Kubernetes API, only ever asked for lists: page by page, with words for a credential that may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S, ReadingApi, valid
from diagnostics.changes.change import ChangeSourceError
from diagnostics.target import Target

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Asks the API server to leave out what an object holds: of a Secret nothing but its metadata is ever sent."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_PAGE, _MOST_PAGES = "500", 20

_Model = TypeVar("_Model", bound=BaseModel)


class _Meta(BaseModel):
    following: str = Field(default="", alias="continue")


class _Page(BaseModel):
    metadata: _Meta = Field(default_factory=_Meta)
    items: list[Any]


class ManagedFields(BaseModel):
    """Who wrote which fields of an object, and when last."""

    manager: str = ""
    operation: str = ""
    time: AwareDatetime | None = None
    fields: Any = Field(default=None, alias="fieldsV1")

    def has(self, *path: str) -> bool:
        """Did this writer write the field at this path, such as `f:spec`, `f:template`?"""
        found = self.fields
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found is not None


class ClusterReader:
    """One cluster by its name in the configuration; the client holds the token that reads."""

    def __init__(self, *, name: str, url: str, client: httpx.AsyncClient, patience_s: float = PATIENCE_S) -> None:
        self.name = name
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s)

    async def list(
        self, model: type[_Model], path: str, what: str, query: Mapping[str, str] | None = None, *, accept: str = ""
    ) -> _Model:
        """All items at this path as a value with `items`. Raises ChangeSourceError."""
        about = f"{self.name}'s list of the {what}"
        asked = {**(query or {}), "limit": _PAGE}
        items: list[Any] = []
        for _ in range(_MOST_PAGES):
            headers = {"Accept": accept} if accept else None
            answer = await self._api.get(path, asked, absent={401, 403}, headers=headers)
            if answer is None:
                raise ChangeSourceError(f"{self.name} does not let the credential list {what}")
            page = valid(_Page, answer, about)
            items += page.items
            if not page.metadata.following:
                return valid(model, {"items": items}, about)
            asked["continue"] = page.metadata.following
        raise ChangeSourceError(f"{self.name} has more than {int(_PAGE) * _MOST_PAGES} {what}")


def namespace_of(target: Target) -> str:
    """
    The target's namespace, which becomes part of a path.

    Raises ChangeSourceError when it is none, or no deployment is named: what was not looked for is not absent.
    """
    if not target.deployments:
        raise ChangeSourceError(
            f"{target.service} names no deployments, so nothing of it is looked for in the cluster; "
            "add [[service.deployments]]"
        )
    if not _NAMESPACE.fullmatch(target.namespace):
        raise ChangeSourceError(
            f"{target.service} has no valid namespace, so nothing of it is looked for in the cluster; set namespace"
        )
    return target.namespace
