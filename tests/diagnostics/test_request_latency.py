"""Whose requests got slower, as the gateway, the SDK and the application time them; slow providers by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnostics.causes import knowledge
from diagnostics.diagnosis import Diagnosis
from diagnostics.findings import Finding, Status
from diagnostics.runner import Diagnoser
from diagnostics.target import Provider, Target
from tests import synthetic
from tests.application_signals import Series, answer, counter, has, of_service, telemetry, values

CALL = "litellm_llm_api_latency_metric"
ASKED = "litellm_deployment_total_requests_total"
REQUEST = "llm_app_request_duration_seconds"
GATEWAY = replace(synthetic.target(), selectors={"gateway": {"service": "chat"}}, providers=())
BOTH = replace(synthetic.target(), selectors={"gateway": {"service": "chat"}, "application": {"service": "chat"}})


def timed(histogram: str, before: float, since: float, rps: float = 5.0, /, **labels: str) -> list[Series]:
    """So many observations a second of a histogram (seconds), before the onset and since."""
    return moving(histogram, (before, since), (rps, rps), **labels)


def moving(histogram: str, seconds: tuple[float, float], rates: tuple[float, float], /, **labels: str) -> list[Series]:
    """The same with another rate since the onset."""
    (before, since), (then, now) = seconds, rates
    return [
        counter(f"{histogram}_sum", then * before, now * since, **labels),
        counter(f"{histogram}_count", then, now, **labels),
    ]


def of_provider(name: str, before: float, since: float, rps: float = 5.0, later: float | None = None) -> list[Series]:
    """As LiteLLM tells it: latencies by model, and whose the model is by its deployments."""
    model = f"{name}-model"
    return [
        *moving(CALL, (before, since), (rps, rps if later is None else later), model=model, api_key_alias="k"),
        counter(ASKED, rps, rps if later is None else later, litellm_model_name=model, api_provider=name),
    ]


async def breakdown(*series: Series, target: Target = GATEWAY) -> Finding:
    return await answer("latency_breakdown", series, target)


async def test_a_slow_provider_is_the_stage_of_a_service_without_an_engine() -> None:
    """Its name, its seconds now and before, its part of a request, and what is around it stays small."""
    finding = await breakdown(
        *of_provider("openai", 1.0, 2.5),
        *of_provider("anthropic", 1.2, 1.2),
        *timed("litellm_overhead_latency_metric", 0.03, 0.03, 10.0),
    )
    assert finding.status is Status.BAD
    assert "provider carries the change" in finding.summary
    assert "Calls of openai take 2.50 s, normally 1.00 s" in finding.summary
    assert values(finding, "provider", "provider_latency") == {"openai"}
    assert of_service(finding, "provider_latency").value == pytest.approx(1.85, rel=0.02)
    assert of_service(finding, "provider_share").value == pytest.approx(1.85 / 1.88, rel=0.02)


async def test_traffic_that_moves_to_a_slow_provider_slows_no_provider() -> None:
    """The second was always slow and now gets most calls: mix, not rate."""
    finding = await breakdown(*of_provider("openai", 0.5, 0.5, 9, 3), *of_provider("anthropic", 2.0, 2.0, 1, 7))
    assert finding.status is Status.BAD
    assert "Mostly traffic that moved between providers" in finding.summary
    assert values(finding, "provider") == set()


async def test_calm_providers_are_calm() -> None:
    """A few percent more are no slowdown."""
    finding = await breakdown(*of_provider("openai", 1.0, 1.04), *of_provider("anthropic", 1.2, 1.2))
    assert finding.status is Status.OK


async def test_without_any_latency_nothing_is_known() -> None:
    """A gateway that times nothing leaves the question open."""
    assert (await breakdown(counter(ASKED, 5, api_provider="openai"))).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("dimension", "label"),
    [("tenant", "tenant"), ("route", "route"), ("prompt_version", "prompt_version"), ("api_key", "api_key")],
)
async def test_the_callers_that_got_slower_are_named(dimension: str, label: str) -> None:
    """One of three takes three times as long; the application's own labels say which."""
    requests = [
        line
        for name, since in (("a", 1.0), ("b", 3.0), ("c", 1.1))
        for line in timed(REQUEST, 1.0, since, **{label: name})
    ]
    finding = await breakdown(*requests, *of_provider("openai", 0.9, 1.6), target=BOTH)
    assert values(finding, dimension, "request_time") == {"b"}
    assert f"Slower than the others: {dimension.replace('_', ' ')} b (3.00 s, normally 1.00 s" in finding.summary


async def test_keys_of_the_gateway_are_told_apart() -> None:
    """Without an application, LiteLLM's own keys and teams are the callers."""
    finding = await breakdown(
        *timed(CALL, 1.0, 1.0, model="m", api_key_alias="web", team="shop"),
        *timed(CALL, 1.0, 3.0, model="m", api_key_alias="batch", team="etl"),
    )
    assert values(finding, "api_key") == {"batch"}
    assert values(finding, "tenant") == {"etl"}


@pytest.mark.parametrize("label", ["gen_ai_system", "gen_ai_provider_name"])
async def test_an_sdk_that_times_its_calls_will_do(label: str) -> None:
    """OpenTelemetry's duration of a client's operation, under the provider's old and new label."""
    name, first = "gen_ai_client_operation_duration_seconds", "gen_ai_client_operation_time_to_first_chunk_seconds"
    target = replace(synthetic.target(), selectors={"application": {"service": "chat"}}, providers=())
    finding = await breakdown(
        *timed(name, 1.0, 3.0, **{label: "openai"}), *timed(first, 0.3, 1.3, **{label: "openai"}), target=target
    )
    assert values(finding, "provider", "provider_latency") == {"openai"}
    assert "first token after 1.30 s, normally 0.30 s" in finding.summary


async def test_an_engine_of_ones_own_is_no_provider() -> None:
    """A gateway calls a self-hosted engine a provider too; who the providers are is the service's to say."""
    series = [*of_provider("hosted_vllm", 1.0, 3.0), *of_provider("openai", 1.0, 1.0)]
    assert not values(await breakdown(*series), "provider")
    named = replace(GATEWAY, providers=(Provider(name="hosted_vllm"),))
    assert values(await breakdown(*series, target=named), "provider", "provider_latency") == {"hosted_vllm"}


async def test_a_slow_provider_is_evidence_for_its_outage() -> None:
    """Calls that fail and take longer: the latency speaks for the provider's outage, with its numbers."""

    async def diagnosed(*series: Series) -> Diagnosis:
        return await Diagnoser(telemetry(series), patience_s=30).diagnose(GATEWAY, at=synthetic.END)

    failed = counter(
        "litellm_deployment_failure_responses_total", 0.005, 1.5, api_provider="openai", exception_status="503"
    )
    first = (await diagnosed(*of_provider("openai", 1.0, 2.5), failed)).causes[0]
    assert first.cause == "I02"
    assert any("time that a provider's answer takes rose from 1.00 s to 2.50 s" in said for said in first.evidence_for)
    assert "provider_latency" in knowledge.load().causes["I01"].expects
    assert not has(await breakdown(failed), "provider_latency")
