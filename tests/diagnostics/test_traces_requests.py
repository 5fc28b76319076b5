"""What a trace says of a request: stages under every convention's names, retries, turns, tools and errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diagnostics.target import Deployment, Target
from diagnostics.traces.genai import kept
from diagnostics.traces.model import Span, Trace
from diagnostics.traces.requests import TracedRequest, read_request
from tests.traced import span, trace

TARGET = Target(service="chat", deployments=(Deployment(name="edge", kind="gateway"),))
CHAT: dict[str, Any] = {"gen_ai__operation__name": "chat"}
TOOL: dict[str, Any] = {"gen_ai__operation__name": "execute_tool"}


def read(found: Trace) -> TracedRequest:
    request = read_request(found, TARGET)
    assert request is not None
    return request


def stages(request: TracedRequest) -> dict[str, float]:
    return {stage: round(request.stage(stage), 6) for stage, _ in request.seconds}


def test_an_agent_s_request_by_stage() -> None:
    """Guardrail, retrieval, model, tool and what is left over: 1 + 2 + 3 + 2 of 10 seconds."""
    root = span(0, 10, name="POST /chat")
    agent = span(0, 10, of=root, gen_ai__operation__name="invoke_agent")
    rail = span(0, 1, of=agent, name="guardrails.rail", rail__type="input")
    search = span(1, 3, of=agent, gen_ai__operation__name="retrieval")
    model = span(3, 6, of=agent, **CHAT)
    tool = span(6, 8, of=agent, **TOOL, gen_ai__tool__name="crm")

    request = read(trace(root, agent, rail, search, model, tool))

    assert stages(request) == {"guardrail": 1, "retrieval": 2, "model": 3, "tool": 2, "other": 2}
    assert (request.turns, request.retries) == (1, 0)
    assert [(call.tool, call.seconds, call.is_failed) for call in request.tools] == [("crm", 2, False)]


@pytest.mark.parametrize(
    ("stage", "attributes"),
    [
        ("model", {"gen_ai.operation.name": "chat"}),
        ("model", {"gen_ai.system": "openai", "gen_ai.request.model": "m"}),
        ("model", {"llm.request.type": "completion"}),
        ("model", {"openinference.span.kind": "LLM"}),
        ("retrieval", {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "m"}),
        ("retrieval", {"gen_ai.operation.name": "retrieval"}),
        ("retrieval", {"openinference.span.kind": "RETRIEVER"}),
        ("retrieval", {"llm.request.type": "rerank"}),
        ("retrieval", {"db.system": "qdrant"}),
        ("retrieval", {"db.system.name": "milvus"}),
        ("tool", {"gen_ai.operation.name": "execute_tool"}),
        ("tool", {"gen_ai.tool.name": "crm"}),
        ("tool", {"traceloop.span.kind": "tool"}),
        ("tool", {"openinference.span.kind": "TOOL"}),
        ("tool", {"mcp.method.name": "tools/call"}),
        ("guardrail", {"openinference.span.kind": "GUARDRAIL"}),
        ("guardrail", {"rail.name": "self check input"}),
    ],
)
def test_old_and_new_names_mean_the_same(stage: str, attributes: dict[str, str]) -> None:
    """OpenTelemetry's old and new conventions, OpenLLMetry, OpenInference, NeMo and MCP; each name is kept."""
    root = span(0, 4)
    work = replace(span(1, 3, of=root), attributes=attributes)

    assert stages(read(trace(root, work))) == {stage: 2, "other": 2}
    assert all(kept(name, value) == value for name, value in attributes.items())


def test_an_engine_s_span_is_taken_apart_as_it_measured_itself() -> None:
    """vLLM says how long it queued, prefilled and decoded; what is left of its ten seconds is its frontend's."""
    engine = span(
        0,
        10,
        name="llm_request",
        gen_ai__latency__time_in_queue=2.0,
        gen_ai__latency__time_to_first_token=3.5,
        gen_ai__latency__time_in_model_prefill=1.0,
        gen_ai__latency__time_in_model_decode=6.5,
    )

    assert stages(read(trace(engine))) == {"queue": 2, "prefill": 1, "decode": 6.5, "frontend": 0.5}


def test_an_older_engine_s_span_is_taken_apart_by_its_first_token() -> None:
    """Without prefill and decode: the first token ends prefill, and the rest is decode. Numbers may come as text."""
    engine = span(0, 10, gen_ai__latency__time_in_queue="2.0", gen_ai__latency__time_to_first_token="3.5")

    assert stages(read(trace(engine))) == {"queue": 2, "prefill": 1.5, "decode": 6.5, "frontend": 0}


@pytest.mark.parametrize("nonsense", ["nan", float("nan"), float("inf"), -1.0, "soon", 10**400])
def test_an_engine_that_measures_nonsense_is_not_taken_apart(nonsense: str | float) -> None:
    """Its time is a model call's, whole."""
    engine = span(0, 10, gen_ai__latency__time_in_queue=nonsense, gen_ai__latency__time_to_first_token=1.0, **CHAT)

    assert stages(read(trace(engine))) == {"model": 10}


def test_what_is_around_a_model_call_is_the_gateway_s() -> None:
    """The client's span and the proxy's hold the engine's: their own time is the way there and back."""
    client = span(0, 10, service="chat", **CHAT)
    proxy = span(1, 9, of=client, service="litellm", name="litellm_request", **CHAT)
    inner = span(3, 8, of=proxy, service="litellm", name="raw_gen_ai_request", gen_ai__system="vllm")

    request = read(trace(client, proxy, inner))

    assert stages(request) == {"gateway": 5, "model": 5}
    assert request.turns == 1


def test_a_deployment_s_kind_tells_where_plain_spans_belong() -> None:
    """A span of the deployment that the configuration calls a gateway; elsewhere the same span is other."""
    root = span(0, 10, service="edge")
    model = span(2, 8, of=root, **CHAT)

    assert stages(read(trace(root, model))) == {"gateway": 4, "model": 6}
    assert stages(read(trace(replace(root, service="somewhere"), model))) == {"other": 4, "model": 6}


def failing(one: Span, error: str = "rate_limit") -> Span:
    return replace(one, attributes={**one.attributes, "error.type": error})


def test_a_second_try_after_a_failed_one_is_a_retry() -> None:
    """Two tries fail, the third answers: two retries, one turn, and the failures by type."""
    root = span(0, 10)
    tries = [span(1, 2, of=root, **CHAT), span(3, 4, of=root, **CHAT), span(5, 9, of=root, **CHAT)]

    request = read(trace(root, failing(tries[0]), failing(tries[1], "timeout"), tries[2]))

    assert (request.turns, request.retries) == (1, 2)
    assert request.errors == {("model", "rate_limit"): 1, ("model", "timeout"): 1}


def test_a_second_turn_is_no_retry() -> None:
    """An agent that asks its model again after a tool answered repeats nothing."""
    root = span(0, 10, gen_ai__operation__name="invoke_agent")
    first, tool, second = span(1, 2, of=root, **CHAT), span(2, 4, of=root, **TOOL), span(4, 9, of=root, **CHAT)

    request = read(trace(root, first, tool, second))

    assert (request.turns, request.retries, len(request.tools)) == (2, 0, 1)


def test_parallel_calls_are_no_retries() -> None:
    """Both began before either failed."""
    root = span(0, 10)
    one, another = span(1, 4, of=root, **CHAT), span(1, 5, of=root, **CHAT)

    assert read(trace(root, failing(one), another)).retries == 0


def test_what_an_http_client_sends_again_is_a_retry() -> None:
    """Within one model call: by the failed attempt before it, or by the client's own count; never twice."""
    model = span(0, 10, **CHAT)
    calls = [
        span(0, 2, of=model, name="POST", http__request__method="POST", http__response__status_code=529.0),
        span(3, 5, of=model, name="POST", http__request__method="POST", http__response__status_code=429.0),
        span(6, 9, of=model, name="POST", http__request__method="POST", http__request__resend_count=2.0),
    ]

    assert read(trace(model, *calls)).retries == 2
    assert read(trace(model, calls[2])).retries == 1


def test_a_tool_s_client_and_server_are_one_call() -> None:
    """The agent's span and the MCP server's stand for the same call, also when it fails."""
    root = span(0, 10, gen_ai__operation__name="invoke_agent")
    client = failing(span(1, 5, of=root, **TOOL, gen_ai__tool__name="crm"), "timeout")
    server = span(2, 4, of=client, service="crm-mcp", mcp__method__name="tools/call", gen_ai__tool__name="crm")

    request = read(trace(root, client, failing(server, "timeout")))

    assert [(call.tool, call.is_failed) for call in request.tools] == [("crm", True)]
    assert request.errors == {("tool", "timeout"): 1}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("crm", "crm"), ("execute_tool crm", "execute_tool crm"), ("find me all of the people who owe us", "unnamed")],
)
def test_a_tool_without_a_name_is_called_by_its_span_s(name: str, shown: str) -> None:
    """Unless that is a sentence: somebody may have said it."""
    [call] = read(trace(span(0, 1, name=name, **TOOL))).tools

    assert call.tool == shown


def test_a_trace_without_any_work_of_a_language_model_is_no_request() -> None:
    """Health checks and billing share the service, and say nothing about it."""
    root = span(0, 1, name="GET /healthz")

    assert read_request(trace(root, span(0, 1, of=root, db__system="postgresql")), TARGET) is None
