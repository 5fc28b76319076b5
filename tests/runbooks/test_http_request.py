"""Sending a request: to the configured address and nowhere else, word for word as it was approved."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from pydantic import ValidationError

from runbooks.engine.actions.http_request import MOST_OF_AN_ANSWER, HttpAccess, HttpRequest, RequestParams
from runbooks.engine.actions.web_path import unfit_address, unfit_path
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.http_server import RememberingServer

PATHS = ("/api/flags/[a-z-]{1,40}/(on|off)", r"/api/search\?q=[a-z]{1,10}", "/files/.*")
TOKEN = "made-up-bearer-token"
OFF = RequestParams(endpoint="flags", method="POST", path="/api/flags/new-model/off", body={"reason": "incident"})


@dataclass(kw_only=True)
class FlagServer(RememberingServer):
    """Answers with what it is told to."""

    text: str = '{"state": "off"}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self.text, status=self.status, headers=self.headers)


@pytest.fixture
async def server() -> AsyncIterator[FlagServer]:
    made = FlagServer()
    async with made.running():
        yield made


def flags(url: str, **options: object) -> HttpRequest:
    access = HttpAccess(
        url=url,
        methods=("GET", "POST", "DELETE"),
        paths=PATHS,
        token=TOKEN,
        timeout_s=1.5,
        **options,  # type: ignore[arg-type]
    )
    return HttpRequest({"flags": access}, lambda text: text.replace("hidden", "[redacted]"))


async def sent(action: HttpRequest, params: RequestParams = OFF) -> dict[str, object]:
    return dict(await action.act(params, await action.read(params), "token-1"))


@pytest.mark.integration
class TestOverHttp:
    """Against a real server on this machine."""

    async def test_the_request_is_the_one_that_was_shown(self, server: FlagServer) -> None:
        """Method, address, path and body; with the credential and the intent's token."""
        action = flags(server.url)
        before = await action.read(OFF)
        answer = await sent(action)

        assert action.effect(OFF, before) == (
            f'Sends POST {server.url}/api/flags/new-model/off with {{"reason": "incident"}}'
        )
        assert answer == {"status": 200, "answer": '{"state": "off"}'}
        [seen] = server.seen
        assert (seen.method, seen.path, seen.json) == ("POST", "/api/flags/new-model/off", {"reason": "incident"})
        assert seen.headers["authorization"] == f"Bearer {TOKEN}"
        assert seen.headers["idempotency-key"] == "token-1"
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["host"] == server.url.removeprefix("http://")

    async def test_a_plan_for_another_request_is_not_carried_out(self, server: FlagServer) -> None:
        """The configuration may have changed since somebody approved."""
        with pytest.raises(ActionError, match="another one by now"):
            await flags(server.url).act(OFF, {"request": "POST https://elsewhere/x"}, "t")
        assert server.seen == []

    @pytest.mark.parametrize("status", [400, 401, 404, 409, 429])
    async def test_a_refusal_changed_nothing(self, server: FlagServer, status: int) -> None:
        """A 4xx says that the request was not taken."""
        server.status = status
        with pytest.raises(ActionError, match=f"refused with HTTP {status}"):
            await sent(flags(server.url))

    @pytest.mark.parametrize("fault", [408, 500, 503, "reset", "hang", "redirect"])
    async def test_a_lost_answer_is_an_unknown_outcome(self, server: FlagServer, fault: int | str) -> None:
        """It may have been done; a redirect is not followed."""
        elsewhere = FlagServer()
        async with elsewhere.running():
            server.faults.elsewhere = elsewhere.url
            server.faults.after["POST"] = fault
            with pytest.raises(OutcomeUnknownError):
                await sent(flags(server.url))

        assert elsewhere.seen == []
        assert len(server.seen) == 1

    async def test_a_get_that_fails_changed_nothing(self, server: FlagServer) -> None:
        """So it may be sent again, while of everything else nobody can tell."""
        server.status = 503
        action = flags(server.url)
        look = RequestParams(endpoint="flags", method="GET", path="/api/search?q=abc")
        with pytest.raises(ActionError, match="503"):
            await sent(action, look)

        assert await action.happened(look, {}, "t") is Happened.NO
        assert await action.happened(OFF, {}, "t") is Happened.CANNOT_TELL
        assert action.undo(OFF, {}) is None

    async def test_nobody_there_means_nothing_was_sent(self) -> None:
        """A refused connection is certain."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(ActionError, match="nothing was sent"):
                await sent(flags(f"http://127.0.0.1:{taken.getsockname()[1]}"))

    async def test_an_answer_is_kept_short_and_clean(self, server: FlagServer) -> None:
        """Endless answers are cut, compressed ones are not unpacked, credentials are hidden."""
        server.text = f"hidden {TOKEN} " + "x" * (4 * MOST_OF_AN_ANSWER)
        answer = (await sent(flags(server.url)))["answer"]

        assert isinstance(answer, str)
        assert answer.startswith("[redacted] [redacted] xxx")
        assert len(answer) == 1000
        server.faults.after["POST"] = "gzip"
        assert (await sent(flags(server.url)))["status"] == 200

    async def test_the_certificate_has_to_be_the_configured_names(self, tmp_path: Path) -> None:
        """Of the authority that the configuration names, for the host that it names, though an address is dialled."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        for named, trusts in (("localhost", True), ("other.example", False)):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert(named).configure_cert(context)
            listener = await asyncio.start_server(_say_ok, "127.0.0.1", 0, ssl=context)
            url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
            async with listener:
                if trusts:
                    assert (await sent(flags(url, ca_file=str(tmp_path / "ca.pem"))))["answer"] == "ok"
                for ca_file in ([] if trusts else [str(tmp_path / "ca.pem")]) + [None]:
                    with pytest.raises(ActionError, match="cannot be reached"):
                        await sent(flags(url, ca_file=ca_file))

    async def test_a_name_that_leads_to_this_machine_is_not_dialled(
        self, server: FlagServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever answers for the name may not send us to ourselves or to a cloud's metadata."""
        port = server.url.rpartition(":")[2]
        for address in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"):

            async def lead(*_: object, address: str = address, **__: object) -> list[object]:
                return [(None, None, None, None, ("93.184.216.34", 1)), (None, None, None, None, (address, 1))]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lead)
            with pytest.raises(ActionError, match="nothing was sent"):
                await sent(flags(f"http://flags.example.com:{port}"))

        assert server.seen == []


async def _say_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"endpoint": "other"}, "no http_endpoint other"),
        ({"method": "PUT"}, "takes GET, POST, DELETE, not PUT"),
        ({"path": "/api/flags/x/maybe"}, "matches none of"),
        ({"path": "/api/flags/hidden/on"}, "cannot be shown"),
        ({"body": {"a": "hidden"}}, "cannot be shown"),
        ({"body": {"a": "x" * 2000}}, "more than 2000 characters"),
    ],
)
async def test_what_is_not_allowed_cannot_be_planned(params: dict[str, object], why: str) -> None:
    """Reading refuses, so there is no plan."""
    with pytest.raises(ActionError, match=why):
        await flags("https://flags.example.com").read(OFF.model_copy(update=params))


def test_a_runbook_cannot_name_a_header_or_a_host() -> None:
    """Parameters that do not exist are refused."""
    for more in ({"headers": {"X": "y"}}, {"url": "https://x"}, {"method": "TRACE"}):
        with pytest.raises(ValidationError):
            RequestParams.model_validate({**OFF.model_dump(), **more})


def test_the_tier_is_the_operators() -> None:
    """An endpoint that the configuration does not have counts as the worst."""
    action = flags("https://flags.example.com", tier=Tier.R1)

    assert action.tier_of(OFF) is Tier.R1
    assert action.tier_of(OFF.model_copy(update={"endpoint": "other"})) is Tier.R3


@pytest.mark.parametrize(
    "path",
    [
        "/files/../admin", "/files/..", "/files/./x", "/files/.;/x", "/files/..;a/x", "/files//x",
        "//evil.example/files/x", "/files/%2e%2e/x", "/files/%2E%2E/x", "/files/a%2Fb", "/files/a%5Cb",
        "/files/a%00", "/files/%252e", "/files/a\\b", "/files/a?x=1", "/files/a%3Fx=1", "/files/a#x", "/files/a b",
        "/files/a\n", "/files/a\r\nHost: x", "files/a", "https://evil.example/files/x", "/files/\u202ea",
        "/files/a%", "/files/%zz", "/files/%C3", "/files/%E2%80%AE", "", "@evil/files/x", "/api/search?q=abc&r=1",
        "/api/search?q=", "/api/flags/x/on/", "x/api/flags/x/on",
    ],
)  # fmt: skip
def test_a_path_that_means_something_else_to_somebody_is_refused(path: str) -> None:
    """Climbing, escaping separators, other hosts, queries that nobody allowed, line breaks."""
    assert unfit_path(path, PATHS)


def test_paths_that_were_allowed_are_fit() -> None:
    """A whole match; a query where the pattern spells it out."""
    for path in ("/api/flags/a-b/on", "/api/search?q=abc", "/files/a%20b/c.txt", "/files/x;v=1"):
        assert unfit_path(path, PATHS) == ""


def test_hostile_paths_stay_below_what_was_allowed() -> None:
    """Two thousand made from what servers, proxies and URL parsers disagree about."""
    rng = random.Random(7)
    parts = ["/", "..", ".", "%2f", "%2F", "%2e", "%5C", "\\", "//", "?", "#", "@", ":", "evil.example", "http:",
             "files", "a", "%00", "%0A", "\n", " ", ";", "%25", "%", "\u2044", "\uff0f", "*", "~"]  # fmt: skip
    fit = 0
    for _ in range(2000):
        path = "/files/" + "".join(rng.choices(parts, k=rng.randint(1, 6)))
        if unfit_path(path, PATHS):
            continue
        fit += 1
        assert path.startswith("/files/")
        assert not {"..", "."} & set(path.split("/"))
        assert "//" not in path
        assert "?" not in path
        assert path.isascii()
        assert path.isprintable()
    assert fit > 10


REFUSED = (
    "127.0.0.1 127.1.2.3 0.0.0.0 ::1 :: ::ffff:127.0.0.1 ::ffff:7f00:1 169.254.169.254 169.254.0.1 169.254.170.2 "
    "::ffff:169.254.169.254 ::ffff:a9fe:a9fe 64:ff9b::a9fe:a9fe 64:ff9b::7f00:1 64:ff9b:1::a9fe:a9fe 64:ff9b:1::7f00:1 "
    "2002:7f00:1:: 2002:a9fe:a9fe:: 2002:7f00:0001::1 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1 fd00:ec2::254 "
    "100.100.100.200 168.63.129.16 224.0.0.1 239.255.255.250 255.255.255.255 240.0.0.1 ff02::1 ff05::2 ff0e::1 "
    "::ffff:0.0.0.0 ::ffff:224.0.0.1 64:ff9b::e000:1 2002:e000:1:: 127.255.255.254 169.254.255.255 "
    "2001:0:4136:e378:8000:63bf:80ff:fffe 2001:0:4136:e378:8000:63bf:5601:5601 64:ff9b::ffff:ffff ::ffff:240.0.0.1 "
)  # the two of 2001:0::/32 are Teredo: the client is the complement of the last 32 bits


@pytest.mark.parametrize("address", REFUSED.split())
def test_addresses_that_are_nobodys_service_are_refused(address: str) -> None:
    """However they are written: this machine, link-local, metadata, multicast; wrapped into IPv6 or not."""
    assert unfit_address(ipaddress.ip_address(address), "flags.example.com")


@pytest.mark.parametrize(
    "address", ["10.0.0.7", "192.168.1.1", "172.16.0.1", "93.184.216.34", "fd12::7", "2606:4700::1"]
)
def test_a_networks_own_addresses_may_be_called(address: str) -> None:
    """Most of what a fix calls is inside the network."""
    assert unfit_address(ipaddress.ip_address(address), "flags.example.com") == ""


def test_what_the_operator_wrote_literally_may_be_called() -> None:
    """And only that: `localhost` is no leave for a metadata address."""
    assert unfit_address(ipaddress.ip_address("127.0.0.1"), "127.0.0.1") == ""
    assert unfit_address(ipaddress.ip_address("::1"), "localhost") == ""
    assert unfit_address(ipaddress.ip_address("169.254.169.254"), "169.254.169.254") == ""
    assert unfit_address(ipaddress.ip_address("169.254.169.254"), "localhost")
    assert unfit_address(ipaddress.ip_address("127.0.0.2"), "127.0.0.1")
