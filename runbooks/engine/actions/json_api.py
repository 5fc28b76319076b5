"""
A JSON API over HTTP: one try, a time limit, no redirects; errors told apart by whether a change may have happened.

`system` is what the API is called in messages to people.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from runbooks.engine.values import ActionError, JsonObject, OutcomeUnknownError

_CONNECT_S = 3.0
_MOST_REASON = 200  # characters


def open_client(
    system: str,
    url: str,
    *,
    timeout_s: float,
    ca_file: str | None,
    auth: httpx.Auth | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    """Raises ActionError when `ca_file` or `url` cannot be used."""
    try:
        trusted = ssl.create_default_context(cafile=ca_file) if ca_file else _public_authorities()
    except OSError as error:  # ssl.SSLError is one, too
        raise ActionError(f"{ca_file} is no file of certificates: {error}") from error
    try:
        return httpx.AsyncClient(
            verify=trusted,
            base_url=url,
            auth=auth,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            follow_redirects=False,  # a redirect could send the credential and the change to somebody else
            headers={"User-Agent": "watchkeeper", "Accept": "application/json", **(headers or {})},
        )
    except httpx.InvalidURL as error:
        raise ActionError(f"{url!r} is no address of a {system}: {error}") from error


@functools.cache
def _public_authorities() -> ssl.SSLContext:
    """Loaded once: that takes longer than most calls do."""
    return httpx.create_ssl_context()


async def look(client: httpx.AsyncClient, system: str, path: str, query: Mapping[str, str]) -> httpx.Response:
    """GET; any status comes back. Raises ActionError: reading changes nothing, whatever went wrong."""
    try:
        return await client.get(path, params=dict(query))
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise ActionError(f"{system} cannot be read ({_words(error)})") from error


async def change(
    client: httpx.AsyncClient, system: str, method: str, path: str, body: JsonObject | None, token: str
) -> JsonObject:
    """
    Send a change once and return the object that the system answered; `token` goes along as X-Request-Id.

    Raises ActionError when it certainly was not done, OutcomeUnknownError when it may have been.
    """
    answer = await send(client, system, method, path, body, token)
    try:
        return object_of(answer, system)
    except ActionError as error:
        raise OutcomeUnknownError(str(error)) from error


async def send(
    client: httpx.AsyncClient,
    system: str,
    method: str,
    path: str,
    body: JsonObject | None,
    token: str,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """As `change`, for a system that may answer a success with nothing, or expects `headers` of its own."""
    try:
        answer = await client.request(method, path, json=body, headers={"X-Request-Id": token, **(headers or {})})
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise ActionError(f"{system} cannot be reached ({_words(error)}): nothing was changed") from error
    # Sent, or perhaps: an answer may be gzip that is none, and TLS may break, which httpx does not translate.
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise OutcomeUnknownError(f"{system} gave no answer that can be read ({_words(error)})") from error
    status = answer.status_code
    if status >= 500 or status == 408:
        raise OutcomeUnknownError(f"{system} answered HTTP {status}")
    if not 200 <= status < 300:
        raise ActionError(f"{system} refused with HTTP {status}{reason(answer)}: nothing was changed")
    return answer


def object_of(answer: httpx.Response, system: str) -> JsonObject:
    """Raises ActionError."""
    try:
        value = answer.json()
    except (ValueError, RecursionError) as error:  # brackets nested by the thousand
        raise ActionError(f"{system} did not answer with JSON") from error
    if not isinstance(value, dict):
        raise ActionError(f"{system} did not answer with an object")
    return value


def reason(answer: httpx.Response) -> str:
    """
    The system's own words for a refusal, in brackets and shortened; nothing when it gave none.

    A refused credential's words are left out, since some systems repeat part of the credential there.
    """
    if answer.status_code in {401, 403}:
        return ""
    try:
        body = object_of(answer, "")
    except ActionError:
        return ""
    said = _said(body.get("error")) or _said(body.get("detail")) or _said(body.get("message"))
    return f" ({said[:_MOST_REASON]})" if said else ""


def _said(value: Any) -> str:
    """`"words"`, `{"message": "words"}` or `{"error": "words"}`."""
    if isinstance(value, dict):
        value = value.get("message") or value.get("error")
    return " ".join(value.split()) if isinstance(value, str) else ""


def _words(error: Exception) -> str:
    return type(error).__name__
