"""A trace backend's HTTP API, only ever asked with GET: a validated answer, or a TelemetryError that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from diagnostics.compute_thread import in_compute_thread
from diagnostics.telemetry.model import TelemetryError

MOST_BYTES = 10 * 2**20
"""A longer answer is refused: spans may carry whole conversations, and what we keep of them is small."""

PATIENCE_S = 2.0
"""For one window, all its questions together: a diagnosis waits no longer than this for traces."""

_Model = TypeVar("_Model", bound=BaseModel)


class TraceApi:
    """
    One far end. The client is the caller's to close, and holds the credential; redirects are not followed.

    Messages name the source and the place that is malformed, never a value: it may be part of a conversation.
    """

    def __init__(self, *, name: str, url: str, client: httpx.AsyncClient) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._client = client

    async def ask(self, model: type[_Model], path: str, query: Mapping[str, str] | None = None) -> _Model | None:
        """The answer as a value; None when the far end knows nothing there (404). Raises TelemetryError."""
        try:
            status, content = await self._read(path, query or {})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TelemetryError(f"{self.name} cannot be reached: {type(error).__name__}") from error
        if status == httpx.codes.NOT_FOUND:
            return None
        if status in {401, 403}:
            raise TelemetryError(f"{self.name} refuses the credential ({status})")
        if status != httpx.codes.OK:
            raise TelemetryError(f"{self.name} answered {status}")
        return await in_compute_thread(self._valid, model, content)

    async def _read(self, path: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        headers = {"Accept": "application/json"}
        request = self._client.build_request("GET", f"{self._url}{path}", params=dict(query) or None, headers=headers)
        answer = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    raise TelemetryError(f"{self.name} answered with more than {MOST_BYTES // 2**20} MiB")
        finally:
            await answer.aclose()
        return answer.status_code, bytes(content)

    def _valid(self, model: type[_Model], content: bytes) -> _Model:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            [first, *_] = error.errors(include_input=False, include_url=False, include_context=False)
            if first["type"] == "json_invalid":
                raise TelemetryError(f"{self.name} answered something that is not JSON") from None
            place = ".".join(str(part) for part in first["loc"])
            raise TelemetryError(f"{self.name}'s answer is malformed at {place}: {first['type']}") from None
