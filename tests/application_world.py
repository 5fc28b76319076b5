"""
A whole application on paper: what it exports when all is well, and a fault as the difference.

Beside the small fleet of `tests/synthetic.py`, whose engines stay as they are; independent of the lab's simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests import synthetic
from tests.application_signals import Series, text
from tests.diagnosed import HISTORY

Labels = tuple[tuple[str, str], ...]
Rates = dict[tuple[str, Labels], float]

GAUGES = {"llm_app_input_drift_auc"}


@dataclass(frozen=True)
class Cell:
    """The answers of one prompt version, by one model, on one pod; rates per second and shares."""

    pod: str = ""
    model: str = "chat-8b"
    version: str = "7"
    route: str = "/chat"
    prompt: str = "chat-system"
    rps: float = 6.0
    refusal: float = 0.015
    empty: float = 0.002
    truncated: float = 0.03
    valid: float = 0.992
    down: float = 0.04
    judge: float = 0.86
    tokens: float = 300.0
    status: Mapping[str, float] = field(default_factory=lambda: {"5xx": 0.001, "4xx": 0.005, "429": 0.0005})


@dataclass(frozen=True)
class Key:
    """One consumer: its share of the usual requests, and what each of them is like."""

    name: str
    share: float
    prompt_tokens: float = 3000.0
    models: Mapping[str, float] | None = None  # the shares of its requests; None as everybody's


@dataclass(frozen=True)
class Tool:
    """One tool as one agent calls it, calls per second."""

    name: str
    verb: str
    agent: str
    rate: float
    errors: float = 0.007
    approved: float = 0.98


@dataclass(frozen=True)
class World:
    """Everything that the application exports."""

    cells: tuple[Cell, ...] = (
        *(Cell(pod=pod) for pod in synthetic.PODS),
        Cell(model="gpt-x", tokens=280.0),
        *(Cell(pod=pod, route="/summary", prompt="summary", version="3", rps=1.0) for pod in synthetic.PODS),
    )
    keys: tuple[Key, ...] = tuple(Key(f"key-{n}", share) for n, share in enumerate((0.4, 0.2, 0.15, 0.15, 0.1), 1))
    retry: float = 1.01
    prices: Mapping[str, float] = field(default_factory=lambda: {"chat-8b": 0.1e-6, "gpt-x": 0.5e-6})
    stages: Mapping[str, float] = field(
        default_factory=lambda: {"gateway": 0.03, "guardrail_in": 0.06, "retrieval": 0.12}
    )
    policy: str = "14"
    blocked: float = 0.008
    evaluator: str = "4"
    retrieval: Mapping[str, float] = field(default_factory=lambda: {"empty": 0.02, "error": 0.002, "timeout": 0.001})
    score: float = 0.72
    tools: tuple[Tool, ...] = (
        Tool("search", "read", "assistant", 6.0),
        Tool("calendar", "read", "assistant", 3.0),
        Tool("tickets", "write", "clerk", 1.0),
    )
    injected: Mapping[str, float] = field(default_factory=lambda: {f"user-{n}": 0.004 for n in range(12)})
    poisoned: Mapping[str, float] = field(default_factory=lambda: {"wiki": 0.004, "mails": 0.004})
    leaks: Mapping[tuple[str, str, str], float] = field(default_factory=lambda: {("email", "7", "tenant-1"): 0.02})
    drift: Mapping[str, float] = field(default_factory=lambda: {"en": 0.5, "de": 0.51})
    provider_errors: Mapping[str, float] = field(default_factory=lambda: {"429": 0.005, "500": 0.005})


def telemetry(since: World, engines: str | synthetic.Scenario = "none") -> Recorded:
    """Thirty-five minutes of a world that is well until the onset, and `since` from then on."""
    fleet = synthetic.openmetrics(engines, history=HISTORY, without=("llm_app_",))
    before, after = _rates(World()), _rates(since)
    series = [
        Series(name, labels, before.get((name, labels)), after.get((name, labels)), is_gauge=name in GAUGES)
        for name, labels in {**before, **after}
    ]
    return load_openmetrics(fleet.removesuffix("# EOF\n") + text(series))


def with_cells(world: World, only: Mapping[str, object], **changes: object) -> World:
    """The same world, with the cells whose fields are as in `only` changed."""
    return replace(
        world,
        cells=tuple(
            replace(cell, **changes) if all(getattr(cell, name) == value for name, value in only.items()) else cell  # type: ignore[arg-type]
            for cell in world.cells
        ),
    )


def _rates(world: World) -> Rates:
    rates: Rates = {}
    for name, value, labels in (*_edge(world), *_answers(world), *_around(world), *_safety(world)):
        place = (name, tuple(sorted(labels.items())))
        rates[place] = rates.get(place, 0.0) + value
    return rates


Item = tuple[str, float, dict[str, str]]


def _edge(world: World) -> Iterator[Item]:
    rps = sum(cell.rps for cell in world.cells)
    yield "llm_app_sessions_total", rps / world.retry, {"tenant": "all"}
    for cell in world.cells:
        where = {"route": cell.route, "prompt_name": cell.prompt, "prompt_version": cell.version, "model": cell.model}
        for key in world.keys:
            who = {"api_key": key.name, "tenant": key.name.replace("key", "tenant")}
            for status, share in {**cell.status, "ok": 1 - sum(cell.status.values())}.items():
                yield "llm_app_requests_total", cell.rps * key.share * share, {**where, **who, "status": status}
    for key in world.keys:
        who = {"api_key": key.name, "tenant": key.name.replace("key", "tenant")}
        for cell in world.cells:
            for model, part in (key.models or {cell.model: 1.0}).items():
                asked = cell.rps * key.share * part
                made = {"input": asked * key.prompt_tokens, "output": asked * cell.tokens}
                about = {**who, "model": model, "prompt_version": cell.version}
                for direction, tokens in made.items():
                    yield "llm_app_tokens_total", tokens, {**about, "direction": direction}
                yield "llm_app_cost_usd_total", sum(made.values()) * world.prices[model], {**who, "model": model}


def _answers(world: World) -> Iterator[Item]:
    for cell in world.cells:
        about = {"prompt_version": cell.version, "model": cell.model, "pod": cell.pod}
        named = {**about, "prompt_name": cell.prompt}
        bad = {"refusal": cell.refusal, "empty": cell.empty, "truncated": cell.truncated}
        for outcome, share in {**bad, "ok": 1 - sum(bad.values())}.items():
            yield "llm_app_responses_total", cell.rps * share, {**named, "outcome": outcome}
        for result, share in (("valid", cell.valid), ("invalid", 1 - cell.valid)):
            yield "llm_app_format_checks_total", cell.rps * share, {**about, "result": result}
        for rating, share in (("down", cell.down), ("up", 1 - cell.down)):
            yield "llm_app_feedback_total", 0.1 * cell.rps * share, {**about, "rating": rating}
        judged = {**about, "evaluator_version": world.evaluator}
        yield "llm_app_judge_score_sum", 0.2 * cell.rps * cell.judge, judged
        yield "llm_app_judge_score_count", 0.2 * cell.rps, judged


def _around(world: World) -> Iterator[Item]:
    rps = sum(cell.rps for cell in world.cells)
    for stage, seconds in world.stages.items():
        yield "llm_app_stage_seconds_sum", rps * seconds, {"stage": stage}
        yield "llm_app_stage_seconds_count", rps, {"stage": stage}
    for outcome, share in {**world.retrieval, "ok": 1 - sum(world.retrieval.values())}.items():
        yield "llm_app_retrieval_total", rps * share, {"data_source": "docs", "outcome": outcome}
    yield "llm_app_retrieval_score_sum", rps * world.score, {"data_source": "docs"}
    yield "llm_app_retrieval_score_count", rps, {"data_source": "docs"}
    for tool in world.tools:
        for outcome, share in (("error", tool.errors), ("ok", 1 - tool.errors)):
            for approved, part in (("yes", tool.approved), ("no", 1 - tool.approved)):
                about = {"tool": tool.name, "verb": tool.verb, "agent": tool.agent}
                made = tool.rate * share * part
                yield "llm_app_tool_calls_total", made, {**about, "outcome": outcome, "approved": approved}
    for code, rate in world.provider_errors.items():
        labels = {"provider": "openai", "account": "main", "key": "k1", "model": "gpt-x", "code": code}
        yield "llm_app_provider_errors_total", rate, labels


def _safety(world: World) -> Iterator[Item]:
    rps = sum(cell.rps for cell in world.cells)
    for decision, share in (("block", world.blocked), ("allow", 1 - world.blocked)):
        rail = {"rail": "input", "policy_version": world.policy, "surface": "user", "decision": decision}
        yield "llm_app_guardrail_total", rps * share, rail
    for principal, rate in world.injected.items():
        detected = {"surface": "user", "principal": principal, "data_source": ""}
        yield "llm_app_injection_detections_total", rate, detected
    for source, rate in world.poisoned.items():
        for n in range(4):
            detected = {"surface": "retrieved", "principal": f"user-{n}", "data_source": source}
            yield "llm_app_injection_detections_total", rate / 4, detected
    for (kind, version, tenant), rate in world.leaks.items():
        leak = {"kind": kind, "prompt_version": version, "tenant": tenant}
        yield "llm_app_sensitive_output_total", rate, leak
    for segment, auc in world.drift.items():
        yield "llm_app_input_drift_auc", auc, {"segment": segment}
