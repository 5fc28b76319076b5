"""A far end's HTTP API, only ever asked with GET: JSON comes back, or a ChangeSourceError that says why not."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from diagnostics.changes.change import ChangeSourceError

MOST_BYTES = 16 * 1024 * 1024
"""A longer answer is no list of changes; it is refused before it fills our memory."""

PATIENCE_S = 2.5

_Model = TypeVar("_Model", bound=BaseModel)


class ReadingApi:
    """
    One far end. The client is the caller's to close, and holds the credential; redirects are not followed.

    `headers` go with every request. Messages name the source, never its credential.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        client: httpx.AsyncClient,
        patience_s: float = PATIENCE_S,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._client = client
        self._patience_s = patience_s
        self._headers = dict(headers or {})
        self._auth = auth

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, absent: Collection[int] = (), headers: Any = None
    ) -> Any:
        """The JSON at this path; None for a status in `absent`. Raises ChangeSourceError."""
        try:
            status, content = await self._read(path, query or {}, headers or {})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChangeSourceError(f"{self.name} cannot be reached: {type(error).__name__}") from error
        if status in absent:
            return None
        if status in {401, 403}:
            raise ChangeSourceError(f"{self.name} refuses the credential ({status})")
        if status != 200:
            raise ChangeSourceError(f"{self.name} answered {status}")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ChangeSourceError(f"{self.name} answered something that is not JSON") from error

    async def ask(self, model: type[_Model], path: str, query: Mapping[str, str] | None = None) -> _Model:
        """The answer as a value. Raises ChangeSourceError."""
        return valid(model, await self.get(path, query), f"{self.name}'s answer")

    async def _read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes]:
        request = self._client.build_request(
            "GET",
            f"{self.url}{path}",
            params=dict(query) or None,
            headers={**self._headers, **headers},
            timeout=self._patience_s,
        )
        auth = httpx.USE_CLIENT_DEFAULT if self._auth is None else self._auth
        answer = await self._client.send(request, stream=True, auth=auth)
        try:
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    raise ChangeSourceError(f"{self.name} answered with more than {MOST_BYTES // 2**20} MiB")
        finally:
            await answer.aclose()
        return answer.status_code, bytes(content)


def valid(model: type[_Model], answer: Any, what: str) -> _Model:
    """The answer as a value; ChangeSourceError names the place that is malformed, and never its content."""
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        [first, *_] = error.errors(include_input=False, include_url=False)
        place = ".".join(str(part) for part in first["loc"])
        raise ChangeSourceError(f"{what} is malformed at {place}: {first['msg']}") from error
