"""TLS to a cluster that breaks: before the request nothing was changed, behind it nobody knows."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import trustme

from runbooks.engine.actions import ClusterAccess
from runbooks.engine.actions.cluster import Cluster
from runbooks.engine.values import ActionError, OutcomeUnknownError

pytestmark = pytest.mark.integration  # real HTTP


async def _break_after_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    os.write(writer.get_extra_info("socket").fileno(), b"this is no TLS record")
    writer.transport.abort()


async def _evict_over_tls(folder: Path, *, named: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(named).configure_cert(context)
    listener = await asyncio.start_server(_break_after_the_request, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        access = ClusterAccess(url=url, token="t", ca_file=str(folder / "ca.pem"), timeout_s=2.0)
        await Cluster(access).evict("chat", "engine-3", "uid-3")


async def test_tls_that_breaks_behind_the_request_is_an_unknown_outcome(tmp_path: Path) -> None:
    """A load balancer that dies with the request on its way says nothing about what became of it."""
    with pytest.raises(OutcomeUnknownError, match="did not answer"):
        await _evict_over_tls(tmp_path, named="localhost")


async def test_a_certificate_of_another_name_gets_no_request(tmp_path: Path) -> None:
    """It is refused in the handshake, so nothing was sent."""
    with pytest.raises(ActionError, match=r"cannot be reached .SSLError.: nothing was changed"):
        await _evict_over_tls(tmp_path, named="other.example")
