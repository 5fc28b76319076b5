# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
One request to an address that the configuration lists, with a method and a path that it allows.

A runbook chooses which one; where it goes, with what credential, and how much it can hurt is the operator's. The
request is part of the plan, word for word. Its answer is kept as a status and an excerpt.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.actions.web_path import Address, unfit_address, unfit_path
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

Redact = Callable[[str], str]

MOST_OF_A_BODY = 2000
"""Characters of JSON: a person has to read it before approving."""

MOST_OF_AN_ANSWER = 64 * 1024
_SHOWN = 1000  # characters of the answer that go on record
_HIDDEN = "[redacted]"


class RequestParams(BaseModel):
    """`endpoint` is the name of an `[[http_endpoint]]`; `body` is sent as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: ConfigName
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str = Field(min_length=1)
    body: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class HttpAccess:
    """One address with what may be called there; `tier` is what its operator says it can hurt."""

    url: str
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    tier: Tier = Tier.R3
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0

    @property
    def host(self) -> str:
        return httpx.URL(self.url).host

    def trusted(self) -> ssl.SSLContext:
        """Raises ActionError when `ca_file` cannot be used."""
        try:
            return (
                httpx.create_ssl_context() if self.ca_file is None else ssl.create_default_context(cafile=self.ca_file)
            )
        except OSError as error:  # ssl.SSLError is one, too
            raise ActionError(f"{self.ca_file} is no file of certificates: {error}") from error


class HttpRequest:
    """`http.request`: what it does nobody but its operator knows, hence R3 unless the configuration says less."""

    name = "http.request"
    tier = Tier.R3
    dry_run = DryRun.NOTHING_TO_READ
    params: type[BaseModel] = RequestParams
    subject: type[BaseModel] = RequestParams
    can_undo = False

    def __init__(self, endpoints: Mapping[str, HttpAccess], redact: Redact) -> None:
        self._endpoints = dict(endpoints)
        self._redact = redact

    def tier_of(self, params: RequestParams) -> Tier:
        access = self._endpoints.get(params.endpoint)
        return access.tier if access else self.tier

    def effect(self, params: RequestParams, before: JsonObject) -> str:
        return f"Sends {before['request']}"

    def target(self, params: RequestParams) -> str:
        return f"http/endpoint/{params.endpoint}"

    def refusal(self, params: RequestParams, before: JsonObject) -> str | None:
        return None

    def undo(self, params: RequestParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: RequestParams) -> JsonObject:
        """`{"request": "POST https://... with {...}"}`. What it would change only the other side knows."""
        return {"request": self._request(params)}

    async def act(self, params: RequestParams, before: JsonObject, token: str) -> JsonObject:
        if self._request(params) != before["request"]:
            raise ActionError("the request is another one by now: nothing was sent")
        access = self._endpoints[params.endpoint]
        addresses = await _resolved(access)
        reads = params.method == "GET"
        try:
            async with asyncio.timeout(2 * access.timeout_s):
                status, body = await _first_answer(access, addresses, params, token)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ActionError(f"{access.host} cannot be reached ({type(error).__name__}): nothing was sent") from error
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ssl.SSLError) as error:
            said = f"{access.host} gave no answer that can be read ({type(error).__name__})"
            raise (ActionError if reads else OutcomeUnknownError)(said) from error
        answer = self._shown(body, access)
        if 200 <= status < 300:
            return {"status": status, "answer": answer}
        if reads or (400 <= status < 500 and status != 408):
            raise ActionError(f"{access.host} refused with HTTP {status}: {answer}")
        # A redirect is not followed: it would carry request and credential to where nobody allowed them to go.
        raise OutcomeUnknownError(f"{access.host} answered HTTP {status}: {answer}")

    async def happened(self, params: RequestParams, before: JsonObject, token: str) -> Happened:
        """A GET changes nothing and may be sent again; of everything else a person has to find out."""
        return Happened.NO if params.method == "GET" else Happened.CANNOT_TELL

    def _request(self, params: RequestParams) -> str:
        """The request in words, all of it. Raises ActionError when it is not allowed."""
        access = self._endpoints.get(params.endpoint)
        if access is None:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise ActionError(f"the configuration has no http_endpoint {params.endpoint} (it has: {known})")
        if params.method not in access.methods:
            raise ActionError(f"{params.endpoint} takes {', '.join(access.methods)}, not {params.method}")
        if why := unfit_path(params.path, access.paths):
            raise ActionError(f"{params.endpoint}: the path {why}")
        body = "" if params.body is None else f" with {_json(params.body)}"
        if len(body) > MOST_OF_A_BODY:
            raise ActionError(f"{params.endpoint}: the body has more than {MOST_OF_A_BODY} characters")
        shown = f"{params.method} {access.url}{params.path}{body}"
        if self._redact(shown) != shown:  # people must see all that they approve
            raise ActionError(
                f"{params.endpoint}: the request cannot be shown: it holds invisible characters or a credential"
            )
        return shown

    def _shown(self, body: bytes, access: HttpAccess) -> str:
        text = body.decode(errors="replace")
        if access.token:
            text = text.replace(access.token, _HIDDEN)
        return self._redact(text)[:_SHOWN].strip() or "no text"


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=True, allow_nan=False)


async def _resolved(access: HttpAccess) -> list[Address]:
    """
    The addresses to connect to, looked up once, so that nobody can answer differently a second time.

    Raises ActionError when there is none, or when any of those found may not be called.
    """
    url = httpx.URL(access.url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(access.timeout_s):
            found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise ActionError(f"{access.host} is not found ({type(error).__name__}): nothing was sent") from error
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    for address in addresses:
        if why := unfit_address(address, access.host):
            raise ActionError(f"{access.host}: {why}: nothing was sent")
    return addresses


async def _first_answer(
    access: HttpAccess, addresses: Sequence[Address], params: RequestParams, token: str
) -> tuple[int, bytes]:
    """Of the first address that takes a connection; to the others nothing was sent."""
    for address in addresses[:-1]:
        with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
            return await _exchange(access, address, params, token)
    return await _exchange(access, addresses[-1], params, token)


async def _exchange(access: HttpAccess, address: Address, params: RequestParams, token: str) -> tuple[int, bytes]:
    """Send it to this very address, under the configured name, and read the answer's first 64 KiB."""
    named = httpx.URL(access.url)
    headers = {
        "Host": named.netloc.decode("ascii"),
        "User-Agent": "watchkeeper",
        "Accept-Encoding": "identity",  # an answer that unpacks to gigabytes is not unpacked
        "Idempotency-Key": token,
        **({"Authorization": f"Bearer {access.token}"} if access.token else {}),
    }
    content = None
    if params.body is not None:
        headers["Content-Type"] = "application/json"
        content = _json(params.body).encode()
    url = named.copy_with(host=str(address), raw_path=(named.raw_path.rstrip(b"/") + params.path.encode("ascii")))
    client = httpx.AsyncClient(
        verify=access.trusted(),
        timeout=httpx.Timeout(access.timeout_s, connect=min(access.timeout_s, 3.0)),
        follow_redirects=False,
        trust_env=False,  # a proxy from the environment would look the name up by itself
    )
    named_for_tls = {"sni_hostname": access.host}  # the certificate has to be the configured name's
    async with (
        client,
        client.stream(params.method, url, headers=headers, content=content, extensions=named_for_tls) as response,
    ):
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= MOST_OF_AN_ANSWER:
                break
        return response.status_code, bytes(body[:MOST_OF_AN_ANSWER])
