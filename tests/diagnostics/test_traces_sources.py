"""Tempo and Jaeger over real HTTP: the same traces out of both, nothing anybody said, and no answer that hangs us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web

from diagnostics.telemetry.model import TelemetryError
from diagnostics.traces.far_end import MOST_BYTES
from diagnostics.traces.jaeger import JaegerTraces
from diagnostics.traces.model import MOST_SPANS, MOST_TRACES, Trace
from diagnostics.traces.otlp import hex_id
from diagnostics.traces.tempo import TempoTraces
from tests.traced import JaegerServer, TempoServer, at, span, trace

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(minutes=5)
TOKEN = "Bearer reads-traces"
SECRET = "my bank account is 4711"


def conversation() -> Trace:
    """A request with a failing tool call, as two services report it."""
    root = span(0, 5, name="POST /chat")
    model = span(1, 4, of=root, name="chat m", service="engine", gen_ai__operation__name="chat", gen_ai__system="vllm")
    tool = span(4, 4.5, of=root, name="execute_tool", is_error=True, gen_ai__tool__name="search", error__type="timeout")
    return trace(root, model, tool)


def began(seconds: float = 60) -> Trace:
    return at(conversation(), START + timedelta(seconds=seconds))


@dataclass(kw_only=True)
class Asked:
    """One of the two backends, and the source that asks it."""

    server: TempoServer | JaegerServer
    client: httpx.AsyncClient

    def source(self, *, service: str = "chat", patience_s: float = 5.0) -> TempoTraces | JaegerTraces:
        kind = TempoTraces if isinstance(self.server, TempoServer) else JaegerTraces
        return kind(name="traces", url=self.server.url, client=self.client, service=service, patience_s=patience_s)

    async def traces(self, **how: Any) -> Sequence[Trace]:
        return await self.source(**how).traces(START, END)


@pytest.fixture(params=["tempo", "old tempo", "jaeger"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Asked]:
    """Each backend by turns, with one trace in the window."""
    server: TempoServer | JaegerServer = (
        JaegerServer(token=TOKEN) if request.param == "jaeger" else TempoServer(token=TOKEN)
    )
    if isinstance(server, TempoServer):
        server.is_old = request.param == "old tempo"
    async with server.running(), httpx.AsyncClient(headers={"Authorization": TOKEN}) as client:
        yield Asked(server=server, client=client)


@pytest.fixture
async def tempo() -> AsyncIterator[Asked]:
    server = TempoServer(token=TOKEN)
    async with server.running(), httpx.AsyncClient(headers={"Authorization": TOKEN}) as client:
        yield Asked(server=server, client=client)


@pytest.fixture
async def jaeger() -> AsyncIterator[Asked]:
    server = JaegerServer(token=TOKEN)
    async with server.running(), httpx.AsyncClient(headers={"Authorization": TOKEN}) as client:
        yield Asked(server=server, client=client)


async def test_a_trace_comes_back_as_it_is_stored(backend: Asked) -> None:
    """Ids in hex or base64, nano- or microseconds, attributes or tags: the same spans come out."""
    stored = began()
    backend.server.stored = [stored, at(conversation(), END + timedelta(minutes=1))]

    [found] = await backend.traces()

    assert found.id == stored.id
    for read, written in zip(found.spans, stored.spans, strict=True):
        tags = {key: value for key, value in read.attributes.items() if key != "error"}
        assert replace(read, attributes=tags) == written


async def test_only_the_service_s_own_traces_are_asked_for(backend: Asked) -> None:
    """Another service's name finds nothing."""
    backend.server.stored = [began()]

    assert await backend.traces(service="billing") == []


async def test_nothing_that_anybody_said_is_kept(backend: Asked) -> None:
    """Prompts, answers, tool arguments and whatever else is written into attributes are dropped where they come in."""
    spoken = {
        "gen_ai.prompt": SECRET,
        "gen_ai.prompt.0.content": SECRET,
        "gen_ai.completion": SECRET,
        "gen_ai.input.messages": SECRET,
        "gen_ai.output.messages": SECRET,
        "gen_ai.system_instructions": SECRET,
        "gen_ai.tool.call.arguments": SECRET,
        "gen_ai.tool.call.result": SECRET,
        "gen_ai.retrieval.query.text": SECRET,
        "gen_ai.retrieval.documents": SECRET,
        "traceloop.entity.input": SECRET,
        "input.value": SECRET,
        "output.value": SECRET,
        "llm.input_messages.0.message.content": SECRET,
        "db.query.text": SECRET,
        "db.statement": SECRET,
        "exception.message": SECRET,
        "error.type": SECRET,
        "gen_ai.tool.name": f"{SECRET}, and so on",
    }
    stored = began()
    loud = replace(stored, spans=tuple(replace(one, attributes={**one.attributes, **spoken}) for one in stored.spans))
    backend.server.stored = [loud]
    backend.server.adds = lambda _: {
        "events": [{"name": SECRET, "timeUnixNano": "1"}],
        "logs": [{"timestamp": 1, "fields": [{"key": "event", "type": "string", "value": SECRET}]}],
    }

    [found] = await backend.traces()

    assert "bank" not in str(found)
    assert {one.attributes["error.type"] for one in found.spans} == {"error"}
    assert "gen_ai.operation.name" in found.spans[1].attributes


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("garbage", "not JSON"),
        ("deep", "not JSON"),
        ("gzip", "cannot be reached"),
        ("reset", "cannot be reached"),
        ("redirect", "answered 307"),
        (503, "answered 503"),
        (401, "refuses the credential"),
    ],
)
async def test_a_far_end_that_talks_nonsense_is_an_error(backend: Asked, fault: int | str, why: str) -> None:
    """A login page, a broken connection or an error is a reason, never an empty sample."""
    backend.server.stored = [began()]
    backend.server.faults.before["GET"] = fault

    with pytest.raises(TelemetryError, match=why):
        await backend.traces()


async def test_a_far_end_that_hangs_is_left_behind(backend: Asked) -> None:
    """Its own patience ends it; the diagnosis waits no longer."""
    backend.server.faults.before["GET"] = "hang"

    with pytest.raises(TelemetryError, match=r"did not answer within 0\.1 s"):
        await backend.traces(patience_s=0.1)


async def test_a_malformed_span_is_named_by_its_place_only(backend: Asked) -> None:
    """The reason says where, and never what stood there: it may be a conversation."""
    backend.server.stored = [began()]
    backend.server.adds = lambda _: {"startTimeUnixNano": SECRET, "startTime": SECRET}

    with pytest.raises(TelemetryError, match="malformed at") as failure:
        await backend.traces()
    assert SECRET not in str(failure.value)


async def test_no_more_is_read_than_is_needed(backend: Asked) -> None:
    """A busy service's sample has an end, and so has a single trace."""
    many = [at(trace(span(0, 1)), START + timedelta(milliseconds=100 * number)) for number in range(2900)]
    giant = at(trace(*(span(0, 1) for _ in range(MOST_SPANS + 1))), START + timedelta(seconds=299))
    backend.server.stored = [giant, *many]

    found = await backend.traces(patience_s=30)

    assert giant.id not in {one.id for one in found}
    assert MOST_TRACES - 1 <= len(found) <= MOST_TRACES


class _Flood(TempoServer):
    """An answer that does not end."""

    def told(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=b" " * (MOST_BYTES + 1), content_type="application/json")


async def test_a_flood_is_refused() -> None:
    """More than ten megabytes are not read."""
    server = _Flood(token=TOKEN)
    async with server.running(), httpx.AsyncClient(headers={"Authorization": TOKEN}) as client:
        with pytest.raises(TelemetryError, match="more than 10 MiB"):
            await Asked(server=server, client=client).traces()


async def test_what_tempo_has_cut_is_left_out(tempo: Asked) -> None:
    """A trace above Tempo's own limit comes in part; a part would look like a short request."""
    whole, part = began(), began()
    assert isinstance(tempo.server, TempoServer)
    tempo.server.stored, tempo.server.cut = [part, whole], frozenset({part.id})

    assert [one.id for one in await tempo.traces()] == [whole.id]


async def test_a_trace_that_is_gone_does_not_spoil_the_others(tempo: Asked) -> None:
    """The search knows it, the store no longer does."""
    kept, gone = began(), began()

    class Forgetful(TempoServer):
        def told(self, request: web.Request) -> web.StreamResponse:
            return web.Response(status=404) if gone.id in request.path else super().told(request)

    server = Forgetful(token=TOKEN, stored=[gone, kept])
    async with server.running():
        found = await Asked(server=server, client=tempo.client).traces()

    assert [one.id for one in found] == [kept.id]


async def test_what_was_read_when_patience_ended_counts(tempo: Asked) -> None:
    """One trace hangs; those that came before are a sample, too."""
    quick = [began() for _ in range(3)]
    stuck = began()

    class Sticky(TempoServer):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            if stuck.id in request.path:
                return await self._fail(request, "hang")
            return await super().answer(request)

    server = Sticky(token=TOKEN, stored=[stuck, *quick])
    async with server.running():
        found = await Asked(server=server, client=tempo.client).traces(patience_s=0.5)

    assert {one.id for one in found} == {one.id for one in quick}


async def test_a_span_that_still_runs_is_no_span_yet(tempo: Asked) -> None:
    """OTLP's end is zero until there is one."""
    tempo.server.stored = [began()]
    tempo.server.adds = lambda one: {"endTimeUnixNano": "0"} if one.name == "chat m" else {}

    [found] = await tempo.traces()

    assert [one.name for one in found.spans] == ["POST /chat", "execute_tool"]


async def test_jaeger_s_own_errors_are_ours(jaeger: Asked) -> None:
    """A list of errors beside half of the traces is no answer."""

    class Broken(JaegerServer):
        def told(self, request: web.Request) -> web.StreamResponse:
            del request
            return web.json_response({"data": [], "errors": [{"code": 500, "msg": "storage is down"}]})

    server = Broken(token=TOKEN)
    async with server.running():
        with pytest.raises(TelemetryError, match="lists errors"):
            await Asked(server=server, client=jaeger.client).traces()


async def test_jaeger_s_references_lead_elsewhere_too(jaeger: Asked) -> None:
    """A span may be the child of one in another trace, and follow others; its caller is the one in its own."""
    stored = began()
    elsewhere = {"refType": "CHILD_OF", "traceID": "f" * 32, "spanID": "f" * 16}
    before = {"refType": "FOLLOWS_FROM", "traceID": stored.id, "spanID": stored.spans[2].id}
    jaeger.server.stored = [stored]
    jaeger.server.adds = lambda one: {
        "references": [
            elsewhere,
            before,
            *({"refType": "CHILD_OF", "traceID": stored.id, "spanID": parent} for parent in [one.parent] if parent),
        ]
    }

    [found] = await jaeger.traces()

    assert [one.parent for one in found.spans] == [one.parent for one in stored.spans]


async def test_jaeger_s_sample_spreads_over_the_window(jaeger: Asked) -> None:
    """It answers the newest first, so a window asked at once would be its last minute only."""
    jaeger.server.stored = [began(number / 4) for number in range(1200)]

    found = await jaeger.traces(patience_s=30)

    seconds = sorted(one.spans[0].start_ns / 1e9 - START.timestamp() for one in found)
    assert len(found) == MOST_TRACES
    assert seconds[0] < 75
    assert seconds[-1] > 290


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("563d623c76514f8e", "563d623c76514f8e"),
        ("563D623C76514F8E", "563d623c76514f8e"),
        ("Vj1iPHZRT44=", "563d623c76514f8e"),
        ("AAAAAAAAAAA=", None),
        ("0000000000000000", None),
        ("", None),
        ("not an id", "not an id"),
    ],
)
def test_an_id_is_the_same_in_hex_and_in_base64(text: str, identity: str | None) -> None:
    """A zero id is none; what is neither form is only ever compared with itself."""
    assert hex_id(text) == identity
