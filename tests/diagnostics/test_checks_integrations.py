"""Checks on what the service leans on: retrieval, providers, and the requests that fail for want of them."""

from __future__ import annotations

import pytest

from diagnostics.checks.provider_errors import signal_of
from diagnostics.findings import Status
from tests.application_signals import Series, answer, born, counter, gauge, has, of_service, values

CALLS, SCORE = "llm_app_retrieval_total", "llm_app_retrieval_score"
REQUESTS, CODES = "llm_app_requests_total", "llm_app_provider_errors_total"


def retrieval(source: str, rate: float, **since: float) -> list[Series]:
    before = {"empty": 0.02, "error": 0.002, "timeout": 0.001}
    now = {**before, **since}
    before["ok"], now["ok"] = 1 - sum(before.values()), 1 - sum(now.values())
    return [counter(CALLS, rate * before[kind], rate * now[kind], data_source=source, outcome=kind) for kind in before]


def similarity(source: str, rate: float, before: float, since: float) -> list[Series]:
    return [
        counter(f"{SCORE}_sum", rate * before, rate * since, data_source=source),
        counter(f"{SCORE}_count", rate, data_source=source),
    ]


@pytest.mark.parametrize(
    ("since", "signal"),
    [
        ({"timeout": 0.4}, "retrieval_timeout_ratio"),
        ({"error": 0.9}, "retrieval_error_ratio"),
        ({"empty": 0.5}, "retrieval_empty_ratio"),
    ],
)
async def test_each_outcome_is_a_signal_of_its_own(since: dict[str, float], signal: str) -> None:
    """A database that hangs, one that refuses and one that finds nothing are three faults; the source is named."""
    finding = await answer("retrieval", [*retrieval("docs", 10, **since), *retrieval("mails", 10)])
    assert finding.status is Status.BAD
    assert values(finding, "data_source", signal) == {"docs"}
    assert values(finding, "data_source") == {"docs"}
    assert (of_service(finding, signal).value or 0) > 0.15
    assert (of_service(finding, "retrieval_unanswered_ratio").value or 0) > 0.15


async def test_a_source_that_answers_less_well_is_named() -> None:
    """All retrievals bring something, but of the wrong index."""
    series = [*retrieval("docs", 10), *similarity("docs", 10, 0.72, 0.45), *similarity("mails", 10, 0.70, 0.70)]
    finding = await answer("retrieval", [*series, *retrieval("mails", 10)])
    assert values(finding, "data_source", "retrieval_score") == {"docs"}


async def test_a_shift_between_sources_is_no_worse_similarity() -> None:
    """More calls to the source with lower similarities lower the mean, and nothing got worse."""
    series = [
        *retrieval("docs", 10),
        *retrieval("mails", 2),
        counter(f"{SCORE}_sum", 8.0, data_source="docs"),
        counter(f"{SCORE}_count", 10.0, data_source="docs"),
        counter(f"{SCORE}_sum", 1.0, 20.0, data_source="mails"),
        counter(f"{SCORE}_count", 2.0, 40.0, data_source="mails"),
    ]
    finding = await answer("retrieval", series)
    assert of_service(finding, "retrieval_score").value == pytest.approx(0.75, abs=0.01)
    assert finding.status is Status.OK


async def test_a_similarity_alone_says_something() -> None:
    """The calls are not counted, the scores are: what they say is said, and no share is made up."""
    finding = await answer("retrieval", similarity("docs", 10, 0.72, 0.45))
    assert finding.status is Status.BAD
    assert values(finding, "data_source") == {"docs"}
    assert not has(finding, "retrieval_empty_ratio")


async def test_few_retrievals_are_unknown() -> None:
    """Thirty calls say nothing about a share."""
    finding = await answer("retrieval", retrieval("docs", 0.1, error=0.9))
    assert finding.status is Status.UNKNOWN
    assert "only 30 retrievals" in (finding.reason or "")


async def test_a_qdrant_that_lost_its_points_is_seen() -> None:
    """Its own metrics say more than an empty answer: the collection shrank, its calls are fine."""
    database = [
        gauge("collection_points", 50000.0, 9000.0, namespace="chat", id="docs"),
        counter("rest_responses_total", 10.0, namespace="chat", status="200"),
        counter("rest_responses_total", 0.01, namespace="chat", status="500"),
    ]
    finding = await answer("retrieval", [*retrieval("docs", 10, empty=0.5), *database])
    assert of_service(finding, "index_points").value == pytest.approx(9000)
    assert (of_service(finding, "vector_database_error_ratio").value or 0) < 0.01
    assert "Points in the vector database" in finding.summary


async def test_a_second_collection_beside_the_first_is_no_loss() -> None:
    """A reindexing fills one of its own, and its few points are not all there are."""
    database = [
        gauge("collection_points", 50000.0, 50000.0, namespace="chat", id="docs-v1"),
        gauge("collection_points", 0.0, 900.0, namespace="chat", id="docs-v2"),
    ]
    finding = await answer("retrieval", [*retrieval("docs", 10), *database])
    assert finding.status is Status.OK
    assert of_service(finding, "index_points").value == pytest.approx(50000)


def codes(code: str, since: float, *, account: str = "main", provider: str = "openai") -> Series:
    return counter(CODES, 0.005, since, provider=provider, account=account, key="k1", model="gpt-x", code=code)


EDGE = [counter(REQUESTS, 10.0, model="gpt-x", route="/chat", status="ok")]


async def test_a_used_up_account_is_named() -> None:
    """One account of two is out of credit; its key and model carry the failures."""
    series = [*EDGE, codes("insufficient_quota", 4.0), codes("insufficient_quota", 0.005, account="spare")]
    finding = await answer("provider_errors", series)
    assert finding.status is Status.BAD
    assert values(finding, "account") == {"main"}
    assert values(finding, "provider") == {"openai"}
    assert (of_service(finding, "provider_quota_ratio").value or 0) == pytest.approx(0.4, rel=0.05)


async def test_both_providers_that_fail_are_named() -> None:
    """Not only the worst one."""
    series = [*EDGE, codes("529", 4.0), codes("503", 2.0, provider="anthropic")]
    finding = await answer("provider_errors", series)
    assert values(finding, "provider", "provider_5xx_ratio") == {"openai", "anthropic"}


async def test_the_gateways_exception_class_tells_a_400_apart() -> None:
    """LiteLLM's status is 400 for every bad request; its class says that the prompt was too long."""
    gateway = {"model_group": "chat", "api_provider": "openai"}
    series = [
        counter("litellm_deployment_total_requests_total", 10.0, **gateway),
        born(
            "litellm_deployment_failure_responses_total",
            2.0,
            exception_status="400",
            exception_class="ContextWindowExceededError",
            **gateway,
        ),
    ]
    finding = await answer("provider_errors", series)
    assert (of_service(finding, "provider_context_ratio").value or 0) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "status", "signal"),
    [
        ("Openai.Timeout", "408", "provider_5xx_ratio"),
        ("Vertex_ai.ContextWindowExceededError", "400", "provider_context_ratio"),
        ("Openai.RateLimitError", "429", "provider_429_ratio"),
    ],
)
async def test_litellm_puts_the_provider_before_the_class(kind: str, status: str, signal: str) -> None:
    """A provider that only times out fails as much as one that answers 500."""
    gateway = {"model_group": "chat", "api_provider": "openai"}
    failures = {"exception_status": status, "exception_class": kind, **gateway}
    series = [
        counter("litellm_deployment_total_requests_total", 10.0, **gateway),
        born("litellm_deployment_failure_responses_total", 4.0, **failures),
    ]
    finding = await answer("provider_errors", series)
    assert finding.status is Status.BAD
    assert values(finding, "provider", signal) == {"openai"}


async def test_dead_deployments_and_fallbacks_are_measured() -> None:
    """The gateway took a provider out, and a fifth of the requests went to a fallback."""
    gateway = {"model_group": "chat", "api_provider": "openai"}
    series = [
        counter("litellm_deployment_total_requests_total", 10.0, **gateway),
        gauge("litellm_deployment_state", 0.0, 2.0, **gateway),
        counter("litellm_deployment_successful_fallbacks_total", 0.0, 2.0, **gateway),
    ]
    finding = await answer("provider_errors", series)
    assert of_service(finding, "deployment_outage").value == 1.0
    assert of_service(finding, "fallback_ratio").value == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("code", "signal"),
    [
        ("rate_limit_exceeded", "provider_429_ratio"),
        ("enforced_spend_limit_reached", "provider_quota_ratio"),
        ("402", "provider_quota_ratio"),
        ("AuthenticationError", "provider_auth_ratio"),
        ("overloaded_error", "provider_5xx_ratio"),
        ("529", "provider_5xx_ratio"),
        ("ContextWindowExceededError", "provider_context_ratio"),
        ("content_filter", None),
        ("", None),
    ],
)
def test_what_a_code_means(code: str, signal: str | None) -> None:
    """Codes of OpenAI, Anthropic and LiteLLM; one that we do not know counts for nothing."""
    assert signal_of(code) == signal


def failing(route: str, rate: float, since: float, kind: str = "4xx") -> list[Series]:
    return [
        counter(REQUESTS, rate * 0.005, rate * since, route=route, status=kind),
        counter(REQUESTS, rate * 0.995, rate * (1 - since), route=route, status="ok"),
    ]


async def test_a_route_that_fails_alone_is_measured_by_itself() -> None:
    """Two fifths of one small route: the service's mean would hide it."""
    finding = await answer("error_ratio", [*failing("/chat", 30, 0.005), *failing("/summary", 2, 0.4)])
    assert finding.status is Status.BAD
    assert values(finding, "route", "error_4xx_ratio") == {"/summary"}
    assert not [m for m in finding.measures if m.signal == "error_4xx_ratio" and not m.scope]
    assert "on /summary 40 %" in finding.summary


async def test_routes_that_all_fail_are_the_services() -> None:
    """What all share is measured for all."""
    finding = await answer("error_ratio", [*failing("/chat", 20, 0.3, "5xx"), *failing("/summary", 5, 0.3, "5xx")])
    assert of_service(finding, "error_5xx_ratio").value == pytest.approx(0.3, abs=0.01)
    assert values(finding, "route") == {"/chat", "/summary"}


async def test_statuses_without_a_route_are_counted() -> None:
    """No label, no place; the share is known all the same."""
    series = [counter(REQUESTS, 0.1, 4.0, status="503"), counter(REQUESTS, 19.9, 16.0, status="ok")]
    finding = await answer("error_ratio", series)
    assert of_service(finding, "error_5xx_ratio").value == pytest.approx(0.2, abs=0.01)
    assert not has(finding, "unheard_of")
    assert not values(finding, "route")
