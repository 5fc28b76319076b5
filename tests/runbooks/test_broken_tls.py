"""TLS to a system that breaks: before the request nothing was changed, behind it nobody knows."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from runbooks.engine.actions import ClusterAccess
from runbooks.engine.actions.cluster import Cluster
from runbooks.engine.actions.http_request import HttpAccess, HttpRequest, RequestParams
from runbooks.engine.actions.litellm_proxy import LiteLLMAccess, LiteLLMProxy
from runbooks.engine.values import ActionError, OutcomeUnknownError

pytestmark = pytest.mark.integration  # real HTTP


async def _break_after_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    os.write(writer.get_extra_info("socket").fileno(), b"this is no TLS record")
    writer.transport.abort()


@asynccontextmanager
async def _broken(ca_file: Path, *, named: str) -> AsyncIterator[str]:
    """The address of a server with a certificate of this name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(named).configure_cert(context)
    listener = await asyncio.start_server(_break_after_the_request, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield f"https://localhost:{listener.sockets[0].getsockname()[1]}"


async def _evicts(url: str, ca_file: Path) -> None:
    access = ClusterAccess(url=url, token="t", ca_file=str(ca_file), timeout_s=2.0)
    await Cluster(access).evict("chat", "engine-3", "uid-3")


async def _changes_a_weight(url: str, ca_file: Path) -> None:
    access = LiteLLMAccess(url=url, key="k", ca_file=str(ca_file), timeout_s=2.0)
    await LiteLLMProxy(access).set_weight("d", 0, "t")


async def _posts(url: str, ca_file: Path) -> None:
    access = HttpAccess(url=url, methods=("POST",), paths=("/flags",), ca_file=str(ca_file), timeout_s=2.0)
    action = HttpRequest({"flags": access}, str)
    params = RequestParams(endpoint="flags", method="POST", path="/flags")
    await action.act(params, await action.read(params), "t")


CHANGES = pytest.mark.parametrize("change", [_evicts, _changes_a_weight, _posts])
Change = Callable[[str, Path], Awaitable[None]]


@CHANGES
async def test_tls_that_breaks_behind_the_request_is_an_unknown_outcome(change: Change, tmp_path: Path) -> None:
    """A load balancer that dies with the request on its way says nothing about what became of it."""
    async with _broken(tmp_path / "ca.pem", named="localhost") as url:
        with pytest.raises(OutcomeUnknownError, match=r"SSLError"):
            await change(url, tmp_path / "ca.pem")


@CHANGES
async def test_a_certificate_of_another_name_gets_no_request(change: Change, tmp_path: Path) -> None:
    """It is refused in the handshake, so nothing was sent."""
    async with _broken(tmp_path / "ca.pem", named="other.example") as url:
        with pytest.raises(ActionError, match=r"cannot be reached .*: nothing was (changed|sent)"):
            await change(url, tmp_path / "ca.pem")


async def test_a_look_over_broken_tls_is_a_look_that_failed(tmp_path: Path) -> None:
    """The planner refuses the step then, and goes on with the others."""
    async with _broken(tmp_path / "ca.pem", named="localhost") as url:
        access = LiteLLMAccess(url=url, key="k", ca_file=str(tmp_path / "ca.pem"), timeout_s=2.0)
        with pytest.raises(ActionError, match="cannot be read"):
            await LiteLLMProxy(access).deployments()
