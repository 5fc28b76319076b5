"""
What a span does in an LLM request, read from its attributes under any of the names in use.

OpenTelemetry's generative AI conventions, old (1.27 to 1.36: `gen_ai.system`, `prompt_tokens`) and new, vLLM's own
(`gen_ai.latency.*`), OpenLLMetry's (`traceloop.*`, `llm.*`), OpenInference's, NeMo Guardrails', LiteLLM's and MCP's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from diagnostics.target import Target
from diagnostics.traces.model import LONGEST, Attribute, Span

_OPERATION = "gen_ai.operation.name"
_KINDS = ("openinference.span.kind", "traceloop.span.kind", "gen_ai.span.kind", "llm.request.type")
_TOOL_NAMES = ("gen_ai.tool.name", "tool.name", "traceloop.entity.name")
_ERRORS = ("error.type", "exception.type")
_STATUSES = ("http.response.status_code", "http.status_code")
_DATABASES = ("db.system.name", "db.system")
_HTTP = ("http.request.method", "http.method")
_RESENT = "http.request.resend_count"
_GUARDRAILS = ("rail.type", "rail.name", "guardrail_name", "gen_ai.guardrail.name")
_MODELS = ("gen_ai.request.model", "gen_ai.response.model", "llm.model_name", "gen_ai.system", "gen_ai.provider.name")
_QUEUE = "gen_ai.latency.time_in_queue"
_FIRST_TOKEN = "gen_ai.latency.time_to_first_token"  # noqa: S105 - a token of a language model
_PREFILL = "gen_ai.latency.time_in_model_prefill"
_DECODE = "gen_ai.latency.time_in_model_decode"
_MCP = "mcp.method.name"

KEPT = frozenset(
    {
        *(_OPERATION, _RESENT, _QUEUE, _FIRST_TOKEN, _PREFILL, _DECODE, _MCP, "error", "otel.status_code"),
        *(*_KINDS, *_TOOL_NAMES, *_ERRORS, *_STATUSES, *_DATABASES, *_HTTP, *_GUARDRAILS, *_MODELS),
    }
)
"""The only attributes that are kept; whatever an instrumentation writes beside them is dropped unread."""

_TYPE = re.compile(r"[\w.:/$*<>-]{1,80}")
_TOOL = re.compile(r"[\w.:/@-]+(?: [\w.:/@-]+){0,2}")
_OPERATIONS = {
    "chat": "model",
    "text_completion": "model",
    "generate_content": "model",
    "completion": "model",
    "llm": "model",
    "embeddings": "retrieval",
    "embedding": "retrieval",
    "retrieval": "retrieval",
    "retriever": "retrieval",
    "rerank": "retrieval",
    "reranker": "retrieval",
    "execute_tool": "tool",
    "tool": "tool",
    "guardrail": "guardrail",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
    "create_agent": "agent",
    "agent": "agent",
    "workflow": "agent",
}
_VECTOR_STORES = frozenset(
    {"chroma", "chromadb", "elasticsearch", "lancedb", "marqo", "milvus", "opensearch", "pinecone", "qdrant", "vespa"}
    | {"weaviate", "pgvector"}
)
_OF_DEPLOYMENTS = {
    "gateway": "gateway",
    "guardrail": "guardrail",
    "retrieval": "retrieval",
    "embedder": "retrieval",
}
_GATEWAY_SPANS = ("Received Proxy Server Request", "litellm_request", "litellm_proxy_pre_call")


def kept(name: str, value: Any) -> Attribute | None:
    """
    The attribute's value if it is one of those we read; else None.

    Names are cut, and what is no name is not kept: some instrumentations write a whole message where a type belongs.
    """
    if name not in KEPT or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return value
    if name in _ERRORS and not _TYPE.fullmatch(value):
        return "error"
    if name in _TOOL_NAMES and not _TOOL.fullmatch(value):
        return None
    return value[:LONGEST]


def role_of(span: Span) -> str | None:
    """What its attributes say that it does: model, retrieval, tool, guardrail or agent; None where they do not."""
    said = [_text(span, name).lower() for name in (_OPERATION, *_KINDS)]
    for word in said:
        if word in _OPERATIONS:
            return _OPERATIONS[word]
    if _text(span, _MCP) == "tools/call" or _text(span, "gen_ai.tool.name"):
        return "tool"
    if span.name.startswith("guardrails.") or any(name in span.attributes for name in _GUARDRAILS):
        return "guardrail"
    if any(_text(span, name).lower() in _VECTOR_STORES for name in _DATABASES):
        return "retrieval"
    if is_engine(span) or any(name in span.attributes for name in _MODELS):
        return "model"
    return None


def stage_of(span: Span, target: Target) -> str:
    """The stage that its own time belongs to: its role's, else that of the deployment or gateway it runs in."""
    role = role_of(span)
    if role is not None and role != "agent":
        return role
    for deployment in target.deployments:
        if deployment.name == span.service and deployment.kind in _OF_DEPLOYMENTS:
            return _OF_DEPLOYMENTS[deployment.kind]
    return "gateway" if span.name in _GATEWAY_SPANS else "other"


def is_engine(span: Span) -> bool:
    """Whether it is an engine's own span of a request, which says how long each stage took."""
    return _seconds(span, _QUEUE) is not None and _seconds(span, _FIRST_TOKEN) is not None


def engine_parts(span: Span, seconds: float) -> Mapping[str, float]:
    """`seconds` of an engine's span shared out over queue, prefill, decode and frontend as it measured them itself."""
    whole = (span.end_ns - span.start_ns) / 1e9
    queue, first = _seconds(span, _QUEUE) or 0.0, _seconds(span, _FIRST_TOKEN) or 0.0
    prefill = _seconds(span, _PREFILL)
    prefill = max(first - queue, 0.0) if prefill is None else prefill
    decode = _seconds(span, _DECODE)
    decode = max(whole - max(first, queue + prefill), 0.0) if decode is None else decode
    frontend = max(whole - queue - prefill - decode, 0.0)
    parts = {"queue": queue, "prefill": prefill, "decode": decode, "frontend": frontend}
    total = sum(parts.values())
    return {name: seconds * part / total for name, part in parts.items()} if total > 0 else {"decode": seconds}


def tool_of(span: Span) -> str:
    """The tool's name, as the instrumentation gives it; a span's own name where that looks like one."""
    named = next((name for key in _TOOL_NAMES if (name := _text(span, key))), span.name)
    return named if _TOOL.fullmatch(named) else "unnamed"


def error_of(span: Span) -> str | None:
    """The error's type or HTTP status; never its message, which may quote a conversation. None where it went well."""
    for name in _ERRORS:
        if text := _text(span, name):
            return text
    for name in _STATUSES:
        status = _number(span, name)
        if status is not None and (status == 429 or status >= 500):
            return f"{status:.0f}"
    return "error" if span.is_error else None


def attempt_of(span: Span, parent: Span | None) -> str | None:
    """What it tries, the same for each attempt: a model call, a retrieval, or an HTTP call within one of them."""
    role = role_of(span)
    if role in {"model", "retrieval"}:
        return role
    is_within = parent is not None and role_of(parent) in {"model", "retrieval"}
    return f"http {span.name}" if is_within and any(name in span.attributes for name in _HTTP) else None


def is_resent(span: Span) -> bool:
    """Whether an HTTP client says that it sent this request before."""
    return (_number(span, _RESENT) or 0) >= 1


def _text(span: Span, name: str) -> str:
    value = span.attributes.get(name, "")
    return value if isinstance(value, str) else ""


def _number(span: Span, name: str) -> float | None:
    """A number, also one that was written as text; None for what is none, or not finite."""
    try:
        number = float(span.attributes.get(name, ""))
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds(span: Span, name: str) -> float | None:
    number = _number(span, name)
    return number if number is not None and number >= 0 else None
