"""The trace backends of the configuration: opened with what reads, tried by the doctor, given to their services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.config import ConfigError
from bot.connections import connect
from bot.doctor import sources
from bot.doctor.advice import State
from bot.settings import Settings
from diagnostics.traces.jaeger import JaegerTraces
from diagnostics.traces.model import Trace
from diagnostics.traces.tempo import TempoTraces
from tests.kit import config_in
from tests.traced import JaegerServer, TempoServer, at, span, trace

ENVIRON = {"TEMPO_READ": "tempo-token", "JAEGER_READ": "jaeger-token"}


def text(tempo: str, jaeger: str) -> str:
    return f"""
format = 1
[[datasource]]
name = "metrics"
kind = "prometheus"
url = "http://127.0.0.1:9"
[[datasource]]
name = "tempo"
kind = "tempo"
url = "{tempo}"
credential = "TEMPO_READ"
[[datasource]]
name = "jaeger"
kind = "jaeger"
url = "{jaeger}"
credential = "JAEGER_READ"
[[service]]
name = "chat"
traces = {{source = "tempo", service = "chat-api"}}
[service.selectors]
[[service]]
name = "search"
traces = {{source = "jaeger"}}
[service.selectors]
[[service]]
name = "plain"
[service.selectors]
"""


def a_trace(service: str) -> Trace:
    root = span(0, 2, service=service)
    work = span(0, 1, of=root, service=service, gen_ai__operation__name="chat")
    return at(trace(root, work), datetime.now(UTC) - timedelta(minutes=5))


@pytest.fixture
async def tempo() -> AsyncIterator[TempoServer]:
    server = TempoServer(token="Bearer tempo-token", stored=[a_trace("chat-api") for _ in range(60)])
    async with server.running():
        yield server


@pytest.fixture
async def jaeger() -> AsyncIterator[JaegerServer]:
    server = JaegerServer(token="Bearer jaeger-token", stored=[a_trace("search")])
    async with server.running():
        yield server


@pytest.mark.integration
async def test_the_doctor_says_whether_traces_can_be_read(
    tempo: TempoServer, jaeger: JaegerServer, tmp_path: Path
) -> None:
    """Each backend gets its own credential and is asked for the service's name in traces; few are too few."""
    config = config_in(tmp_path, text(tempo.url, jaeger.url))

    found = {one.about: one for one in await sources.examine(Settings.load(ENVIRON), config)}

    assert found.keys() == {"traces in tempo", "traces in jaeger"}
    assert found["traces in tempo"].state is State.OK
    assert "60 of 60 traces" in found["traces in tempo"].says
    assert found["traces in jaeger"].state is State.UNKNOWN
    assert "1 of 1 traces" in found["traces in jaeger"].says
    assert {one.method for one in (*tempo.seen, *jaeger.seen)} == {"GET"}


@pytest.mark.integration
async def test_the_doctor_says_what_is_wrong(tempo: TempoServer, jaeger: JaegerServer, tmp_path: Path) -> None:
    """A wrong token and a page of HTML, in words."""
    jaeger.faults.before["GET"] = "garbage"
    environ = {**ENVIRON, "TEMPO_READ": "another"}

    found = {
        one.about: one
        for one in await sources.examine(Settings.load(environ), config_in(tmp_path, text(tempo.url, jaeger.url)))
    }

    assert {one.state for one in found.values()} == {State.BAD}
    assert "refuses the credential" in found["traces in tempo"].says
    assert "not JSON" in found["traces in jaeger"].says


async def test_each_service_gets_its_own_backend(tmp_path: Path) -> None:
    """By the kind of the datasource that it names; a service that names none has none."""
    connections = connect(Settings.load(ENVIRON), config_in(tmp_path, text("http://127.0.0.1:9", "http://127.0.0.1:9")))
    try:
        assert {name: type(one) for name, one in connections.traces.items()} == {
            "chat": TempoTraces,
            "search": JaegerTraces,
        }
    finally:
        await connections.close()


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ('source = "jaeger"', 'source = "jager"', "did you mean jaeger?"),
        ('source = "jaeger"', 'source = "metrics"', "is of kind prometheus and has no traces"),
        ('name = "plain"', 'name = "plain"\nchanges = ["tempo"]', "knows no changes"),
        ('name = "plain"', 'name = "plain"\ndatasource = "tempo"', "has no metrics"),
        ("http://127.0.0.1:9", "http://tempo.example.com", "https://"),
    ],
)
def test_each_kind_of_datasource_stands_where_it_can_answer(tmp_path: Path, good: str, bad: str, said: str) -> None:
    """Whoever mixes them up is told, with the place to name it instead."""
    whole = text("http://127.0.0.1:9", "http://127.0.0.1:8")

    with pytest.raises(ConfigError) as refused:
        config_in(tmp_path, whole.replace(good, bad))
    assert said in str(refused.value)


def test_a_backend_in_the_cluster_needs_no_encryption(tmp_path: Path) -> None:
    """Without a credential there is nothing to overhear, as for Prometheus."""
    whole = text("http://tempo.monitoring:3200", "http://127.0.0.1:8").replace('credential = "TEMPO_READ"\n', "")

    assert config_in(tmp_path, whole).datasource("tempo") is not None
