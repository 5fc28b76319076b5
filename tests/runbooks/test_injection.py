"""
Every parameter of every action takes more than two thousand hostile texts as what they are, or refuses them.

The parameters come from the actions' own models, so one that somebody adds is tried as well. Most are names, which let
nothing in that means anything anywhere. What takes free text is listed in `PLACES`, and there the text is followed to
the far end: every request has to be one that a harmless value makes, with the text in the place of that value.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

import pytest
import pytest_asyncio
from pydantic import TypeAdapter, ValidationError

from lab.people import DANA, WATCHKEEPER_EMAIL
from runbooks.engine.actions import (
    ClusterAccess,
    CommandAccess,
    EngineAccess,
    FlagAccess,
    HttpAccess,
    LangfuseAccess,
    LiteLLMAccess,
    OpenSearchAccess,
    PagerDutyAccess,
    QdrantAccess,
    build_actions,
)
from runbooks.engine.values import Action, ActionError
from tests.runbooks import flag_servers, kubernetes_server, langfuse_server, opensearch_server, qdrant_server
from tests.runbooks.http_server import RememberingServer, Seen
from tests.runbooks.kubernetes_server import KubernetesServer
from tests.runbooks.litellm_server import ADMIN, litellm_server
from tests.runbooks.pagerduty_server import pagerduty_server
from tests.runbooks.payloads import payloads
from tests.runbooks.test_http_request import FlagServer
from tests.runbooks.test_litellm_guardrails import GuardrailServer, entry
from tests.runbooks.vllm_server import VllmServer

ACTIONS = build_actions()
PAYLOADS = payloads()
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
PROGRAM = ("/usr/bin/printf", "%s\\n")
SENT = 20
"""Of each free parameter's texts; the ones that are followed to the far end, spread over all families."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """
    Where a free parameter's text goes: the other parameters, a harmless value of the same kind, and its shape.

    `plant` lets the far end know a thing of this name, so that the change itself is sent; without it only what is asked
    before can hold the text. `is_sent` is False where nothing is asked of anybody.
    """

    fine: Mapping[str, Any]
    harmless: str = "harmless"
    shaped: Callable[[str], Any] = str
    plant: Callable[[World, str], None] | None = None
    is_sent: bool = True


@dataclass(kw_only=True)
class World:
    """All far ends that an action can reach here; each fails the test over what it does not know."""

    langfuse: langfuse_server.LangfuseServer = field(default_factory=langfuse_server.LangfuseServer)
    flags: flag_servers.LaunchDarkly = field(default_factory=flag_servers.LaunchDarkly)
    cluster: KubernetesServer = field(default_factory=KubernetesServer)
    litellm: RememberingServer = field(default_factory=litellm_server)
    guardrails: GuardrailServer = field(default_factory=GuardrailServer)
    web: FlagServer = field(default_factory=FlagServer)
    engine: VllmServer = field(default_factory=VllmServer)
    qdrant: qdrant_server.QdrantServer = field(default_factory=qdrant_server.QdrantServer)
    search: opensearch_server.OpenSearchServer = field(default_factory=opensearch_server.OpenSearchServer)
    pagerduty: Any = field(default_factory=pagerduty_server)

    @property
    def servers(self) -> list[RememberingServer]:
        return [each for each in vars(self).values() if isinstance(each, RememberingServer)]

    def seen(self) -> list[Seen]:
        return [one for server in self.servers for one in server.seen]

    def reset(self) -> None:
        for server in self.servers:
            server.seen.clear()
        self.search.tasks.clear()
        self.cluster.version = 100
        self.cluster.__post_init__()
        incident = self.pagerduty.incident
        for kept in (incident.notes, incident.responders, incident.status_updates):
            kept.clear()

    def actions(self) -> dict[str, Action]:
        stores: dict[str, Any] = {
            "services": ("chat",), "collections": (".*",), "source_field": "source", "quarantine_key": "quarantined",
        }  # fmt: skip
        return build_actions(
            langfuse={
                "prompts": LangfuseAccess(
                    url=self.langfuse.url, public_key=langfuse_server.PUBLIC, secret_key=langfuse_server.SECRET
                )
            },
            flags={
                "flags": FlagAccess(
                    kind="launchdarkly",
                    url=self.flags.url,
                    authorization=flag_servers.TOKEN,
                    project="default",
                    environment="production",
                )
            },
            clusters={
                "lab": ClusterAccess(url=self.cluster.url, token=kubernetes_server.TOKEN, patch_env=("FREE_TEXT",))
            },
            gateways={
                "edge": LiteLLMAccess(url=self.litellm.url, key=ADMIN),
                "rails": LiteLLMAccess(url=self.guardrails.url, key=ADMIN),
            },
            endpoints={"web": HttpAccess(url=self.web.url, methods=("POST",), paths=("/api/.*",))},
            commands={"say": CommandAccess(argv=(*PROGRAM, "{text}"), arguments={"text": "(?s:.*)"})},
            engines={
                "chat-0": EngineAccess(
                    url=self.engine.url, services=("chat",), lora_paths=(".*",), token="vllm-api-key"
                )
            },
            stores={"vectors": QdrantAccess(url=self.qdrant.url, key=qdrant_server.KEY, **stores)},
            indices={"search": OpenSearchAccess(url=self.search.url, key=opensearch_server.KEY, **stores)},
            pagerduty=PagerDutyAccess(
                key=self.pagerduty.account.api_key, from_email=WATCHKEEPER_EMAIL, url=self.pagerduty.url
            ),
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    made = World()
    async with AsyncExitStack() as stack:
        for server in made.servers:
            await stack.enter_async_context(server.running())
        yield made


def _prompt(world: World, name: str) -> None:
    world.langfuse.prompts[name] = {7: set(), 8: {"production"}}


def _flag(world: World, name: str) -> None:
    world.flags.flags[name] = True


def _guardrail(world: World, name: str) -> None:
    world.guardrails.rows[:] = [entry(name, "15")]


def _adapter(world: World, name: str) -> None:
    world.engine.adapters = {name: "/adapters/one"}


def _no_adapter(world: World, _text: str) -> None:
    world.engine.adapters = {}


def _points(world: World, source: str) -> None:
    world.qdrant.points["docs"] = [{"id": 1, "source": source}, {"id": 2, "source": "another"}]


def _documents(world: World, source: str) -> None:
    world.search.indices["docs"] = [{"id": 1, "source": source}, {"id": 2, "source": "another"}]


ENGINE = {"engine": "chat-0", "service": "chat"}
PATCHED = {"cluster": "lab", "namespace": "chat", "deployment": "chat-vllm", "field": "env.FREE_TEXT"}
POSTED = {"endpoint": "web", "method": "POST", "path": "/api/x"}
PLACES: Mapping[tuple[str, str], Place] = {
    ("langfuse.move_label", "prompt"): Place(fine={"label": "production", "version": 7}, plant=_prompt),
    ("flag.set", "flag"): Place(fine={"on": False}, plant=_flag),
    ("kubernetes.patch", "value"): Place(fine=PATCHED),
    ("litellm.set_weight", "deployment"): Place(fine={"gateway": "edge", "weight": 1}),
    ("litellm.set_weight", "model_group"): Place(fine={"gateway": "edge", "weight": 1, "deployment": "openai"}),
    ("litellm.set_fallbacks", "model_group"): Place(fine={"gateway": "edge", "fallbacks": []}),
    ("litellm.set_fallbacks", "fallbacks"): Place(
        fine={"gateway": "edge", "model_group": "chat"}, shaped=lambda text: [text]
    ),
    ("litellm.limit_key", "key"): Place(fine={"gateway": "edge", "tpm": 1, "rpm": 1}),
    ("litellm.block_key", "key"): Place(fine={"gateway": "edge"}),
    ("litellm.set_guardrail_version", "guardrail"): Place(fine={"gateway": "rails", "version": "14"}, plant=_guardrail),
    ("http.request", "path"): Place(fine=POSTED, shaped=lambda text: f"/api/{text}"),
    ("http.request", "body"): Place(fine=POSTED, shaped=lambda text: {"why": text, text: [text]}),
    ("command.run", "arguments"): Place(fine={"command": "say"}, shaped=lambda text: {"text": text}, is_sent=False),
    ("vllm.load_lora", "name"): Place(fine={**ENGINE, "path": "/adapters/sql"}, plant=_no_adapter),
    ("vllm.load_lora", "path"): Place(fine={**ENGINE, "name": "sql"}, plant=_no_adapter),
    ("vllm.unload_lora", "name"): Place(fine=ENGINE, plant=_adapter),
    ("qdrant.quarantine", "source"): Place(
        fine={"store": "vectors", "service": "chat", "collection": "docs"}, plant=_points
    ),
    ("opensearch.quarantine", "source"): Place(
        fine={"store": "search", "service": "chat", "collection": "docs"}, plant=_documents
    ),
    ("pagerduty.note", "text"): Place(fine={}),
    ("pagerduty.status_update", "message"): Place(fine={}),
    ("pagerduty.add_responders", "message"): Place(fine={"users": [DANA.pagerduty]}),
    ("manual", "instruction"): Place(fine={}, is_sent=False),
}


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, the keys of mappings among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (key, *texts(each))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)


def alone(action: str, parameter: str) -> TypeAdapter[Any]:
    """The parameter's type by itself, so that nothing but its own rules can refuse a text."""
    info = ACTIONS[action].params.model_fields[parameter]
    kind: Any = info.annotation
    for rule in info.metadata:
        kind = Annotated[kind, rule]
    return TypeAdapter(kind)


def shapes(payload: str, schema: str) -> Iterator[Any]:
    """The text by itself, and inside of what the parameter's schema says that it takes."""
    yield payload
    if '"array"' in schema:
        yield [payload]
    if '"object"' in schema:
        yield from ({payload: "x"}, {"x": payload})


def test_there_are_more_than_two_thousand() -> None:
    """Different ones."""
    assert len(set(PAYLOADS)) >= 2000


@pytest.mark.parametrize("action", ACTIONS)
def test_a_hostile_text_is_literal_or_refused(action: str) -> None:
    """By itself, in a list, as a key and as a value. What is no free text is a name that means nothing anywhere."""
    for parameter in ACTIONS[action].params.model_fields:
        adapter, is_free = alone(action, parameter), False
        schema = json.dumps(adapter.json_schema())
        for payload in PAYLOADS:
            for shape in shapes(payload, schema):
                try:
                    taken = list(texts(adapter.validate_python(shape)))
                except ValidationError:
                    continue
                assert set(taken) <= {payload, payload.strip(), "x", *map(str.strip, payload.split(","))}
                is_free |= not all(PLAIN.fullmatch(text) for text in taken)
        assert is_free == ((action, parameter) in PLACES), f"say in PLACES where the text of {parameter} goes"


def framed(one: Seen, text: str) -> str:
    """The request with a hole where the text is, as a whole part of the path, of the query or of the JSON."""

    def hole(value: Any) -> Any:
        if isinstance(value, dict):
            return {hole(key): hole(each) for key, each in value.items()}
        if isinstance(value, list):
            return [hole(each) for each in value]
        return "<TEXT>" if value in (text, f"{text}\n\n(Watchkeeper t-1)") else value

    path, _, query = one.path.partition("?")
    way: Any = "<TEXT>" if one.path == text else [hole(unquote(part)) for part in path.split("/")]
    asked = [
        (name, hole(value)) for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    ]
    headers = {name: value for name, value in one.headers.items() if name not in ("host", "content-length")}
    return json.dumps([one.method, way, asked if way != "<TEXT>" else [], headers, hole(one.json)], sort_keys=True)


async def reached(world: World, action: Action, place: Place, parameter: str, text: str) -> list[str] | None:
    """The requests that a value makes, framed, from the plan to the change; None where it was refused before any."""
    world.reset()
    if place.plant is not None:
        place.plant(world, text)
    needed = action.params.model_fields
    own = {"incident": world.pagerduty.incident.id} if "incident" in needed else {}
    try:
        params = action.params.model_validate({**own, **place.fine, parameter: place.shaped(text)})
    except ValidationError:
        return None
    [kept] = set(texts(getattr(params, parameter))) - {"why", "text"}
    try:
        before = await action.read(params)
        answer = await action.act(params, before, "t-1")
    except ActionError:
        return [framed(one, kept) for one in world.seen()] or None
    if action.name == "command.run":
        assert before["argv"] == [*PROGRAM, text]
        assert answer == {
            "exit_status": 0,
            "output": f"It wrote: {text.strip()}" if text.strip() else "It wrote nothing.",
        }
    return [framed(one, kept) for one in world.seen()]


def chosen(action: str, parameter: str) -> list[str]:
    """Texts that the parameter's type takes and that are no plain names, spread over all of them."""
    adapter, place, found = alone(action, parameter), PLACES[action, parameter], []
    for payload in PAYLOADS:
        try:
            adapter.validate_python(place.shaped(payload))
        except ValidationError:
            continue
        if not PLAIN.fullmatch(payload):
            found.append(payload)
    return found[:: max(1, len(found) // SENT)]


@pytest.mark.integration  # real HTTP, real processes
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("action", "parameter"), PLACES)
async def test_the_far_end_gets_the_literal_text_and_nothing_else(world: World, action: str, parameter: str) -> None:
    """The same requests as a harmless value makes, in the same order, with the text in its place; or none at all."""
    place, built = PLACES[action, parameter], world.actions()[action]
    usual = await reached(world, built, place, parameter, place.harmless)
    assert bool(usual) == place.is_sent
    arrived = 0
    for text in chosen(action, parameter):
        sent = await reached(world, built, place, parameter, text)
        assert sent is None or sent == usual, repr(text)
        arrived += sent is not None
    assert arrived or not place.is_sent
