"""Checks on safety: injection attempts, leaks, drift of the inputs, guardrails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnostics.checks import CHECKS
from diagnostics.findings import Status
from tests import synthetic
from tests.application_signals import Series, answer, born, counter, gauge, gone, has, of_service, telemetry, values
from tests.diagnosed import frame_of

DETECTIONS, LEAKS = "llm_app_injection_detections_total", "llm_app_sensitive_output_total"
RAILS, CALLS = "llm_app_guardrail_total", "llm_app_tool_calls_total"

EDGE = [counter("llm_app_requests_total", 20.0, status="ok")]


def attempts(principal: str, before: float, since: float, *, surface: str = "user", source: str = "") -> Series:
    return counter(DETECTIONS, before, since, surface=surface, principal=principal, data_source=source)


CROWD = [attempts(f"u{n}", 0.004, 0.004) for n in range(10)]


async def test_a_campaign_of_few_principals_is_named() -> None:
    """Two principals carry the attempts in what users write; nothing says that any succeeded."""
    series = [*EDGE, *CROWD, attempts("mallory", 0.004, 1.0), attempts("eve", 0.004, 0.5), *writes(0.02)]
    finding = await answer("injection", series)
    assert finding.status is Status.BAD
    assert values(finding, "api_key") == {"mallory", "eve"}
    assert (of_service(finding, "injection_top_principals_share").value or 0) > 0.9
    assert of_service(finding, "injection_retrieved_ratio").value == 0.0
    assert of_service(finding, "injection_succeeded").value == 0.0


async def test_a_poisoned_source_is_named() -> None:
    """Many users, one source, in retrieved content."""
    poisoned = [attempts(f"u{n}", 0.001, 0.1, surface="retrieved", source="wiki") for n in range(8)]
    clean = [attempts("u1", 0.001, 0.001, surface="retrieved", source="mails")]
    finding = await answer("injection", [*EDGE, *CROWD, *poisoned, *clean])
    assert values(finding, "data_source") == {"wiki"}
    assert (of_service(finding, "injection_top_source_share").value or 0) > 0.95
    assert (of_service(finding, "injection_top_principals_share").value or 1) < 0.7
    assert of_service(finding, "injection_ratio").baseline is not None


def writes(unapproved: float) -> list[Series]:
    return [
        counter(CALLS, 0.98, 1 - unapproved, tool="t", verb="write", approved="yes", outcome="ok"),
        counter(CALLS, 0.02, unapproved, tool="t", verb="write", approved="no", outcome="ok"),
    ]


async def test_attempts_that_succeed_are_told_by_what_follows() -> None:
    """Leaks or unapproved writes rise in the same minutes."""
    attack = [*EDGE, *CROWD, attempts("mallory", 0.004, 1.0)]
    written = await answer("injection", [*attack, *writes(0.4)])
    leaked = await answer("injection", [*attack, counter(LEAKS, 0.02, 0.5, kind="email")])
    assert [of_service(one, "injection_succeeded").value for one in (written, leaked)] == [1.0, 1.0]
    assert "more tools write without approval" in written.summary
    assert "more answers hold sensitive data" in leaked.summary


async def test_success_is_unknown_where_nothing_would_show_it() -> None:
    """Neither leaks nor tool calls are exported: said, and no measure made up."""
    finding = await answer("injection", [*EDGE, *CROWD, attempts("mallory", 0.004, 1.0)])
    assert not has(finding, "injection_succeeded")
    assert "is not known" in finding.summary


async def test_a_few_attempts_more_are_chance() -> None:
    """Four hits instead of one are three times as many, and no campaign."""
    finding = await answer("injection", [*EDGE, attempts("u", 0.004, 4 / 300)])
    assert finding.status is Status.OK


async def test_attempts_without_requests_are_unknown() -> None:
    """A rate per request needs requests."""
    finding = await answer("injection", CROWD)
    assert finding.status is Status.UNKNOWN


async def test_leaks_of_a_new_version_are_named() -> None:
    """All tenants, version 8: the prompt."""
    before = [gone(LEAKS, 0.004, kind="email", prompt_version="7", tenant=f"t{n}") for n in range(5)]
    since = [born(LEAKS, 0.1, kind="email", prompt_version="8", tenant=f"t{n}") for n in range(5)]
    finding = await answer("sensitive_output", [*EDGE, *before, *since])
    assert finding.status is Status.BAD
    assert values(finding, "prompt_version") == {"8"}
    assert values(finding, "kind") == {"email"}
    assert not values(finding, "tenant")


async def test_leaks_of_one_tenant_are_theirs() -> None:
    """One tenant carries nearly all of them: the tenant, not the version that all share."""
    series = [counter(LEAKS, 0.004, 0.5 if n == 0 else 0.004, prompt_version="7", tenant=f"t{n}") for n in range(5)]
    finding = await answer("sensitive_output", [*EDGE, *series])
    assert values(finding, "tenant") == {"t0"}
    assert not values(finding, "prompt_version")


async def test_four_leaks_are_too_few() -> None:
    """Three times as many, but fewer than five."""
    finding = await answer("sensitive_output", [*EDGE, counter(LEAKS, 0.002, 4 / 300, kind="email")])
    assert finding.status is Status.OK


async def test_a_drifted_segment_is_named() -> None:
    """One language is new; the others are as in the reference week."""
    auc = "llm_app_input_drift_auc"
    series = [
        gauge(auc, 0.5, 0.52, segment="en"),
        gauge(auc, 0.51, 0.8, segment="de"),
        gauge(auc, 0.5, 7.0, segment="x"),
    ]
    finding = await answer("input_drift", series)
    assert finding.status is Status.BAD
    assert values(finding, "segment") == {"de"}
    assert of_service(finding, "input_drift_auc").value == pytest.approx(0.8, abs=0.01)


async def test_a_segment_that_was_always_apart_is_ok() -> None:
    """High, but not higher than before; and nonsense is no value."""
    auc = "llm_app_input_drift_auc"
    assert (await answer("input_drift", [gauge(auc, 0.7, 0.71, segment="fr")])).status is Status.OK
    assert (await answer("input_drift", [gauge(auc, 5.0, 9.0, segment="fr")])).status is Status.UNKNOWN


def rails(policy: str, blocked: float, since: float | None = None, rate: float = 20.0) -> list[Series]:
    now = blocked if since is None else since
    labels = {"rail": "input", "policy_version": policy, "surface": "user"}
    return [
        counter(RAILS, rate * blocked, rate * now, decision="block", **labels),
        counter(RAILS, rate * (1 - blocked), rate * (1 - now), decision="allow", **labels),
    ]


def replaced(old: str, new: str, blocked: float) -> list[Series]:
    made = []
    for decision, before, since in (("block", 0.008, blocked), ("allow", 0.992, 1 - blocked)):
        made.append(gone(RAILS, 20 * before, rail="input", policy_version=old, surface="user", decision=decision))
        made.append(born(RAILS, 20 * since, rail="input", policy_version=new, surface="user", decision=decision))
    return made


async def test_a_new_policy_that_blocks_is_named() -> None:
    """Version 15 took over and blocks fifteen times as much."""
    finding = await answer("guardrails", replaced("14", "15", 0.12))
    assert finding.status is Status.BAD
    assert of_service(finding, "new_policy").value == 1.0
    assert values(finding, "policy") == {"15"}
    assert "(by input 15)" in finding.summary
    policy = await answer("guardrail_policy", replaced("14", "15", 0.12))
    assert (policy.status, policy.summary) == (Status.BAD, "Guardrail policy 15 is new.")


async def test_a_harmless_new_policy_is_no_complaint() -> None:
    """New, and it blocks as the old one did."""
    finding = await answer("guardrails", replaced("14", "15", 0.008))
    assert (finding.status, of_service(finding, "new_policy").value) == (Status.OK, 1.0)
    assert (await answer("guardrail_policy", replaced("14", "15", 0.008))).status is Status.OK


async def test_an_old_policy_that_blocks_more_is_no_new_one() -> None:
    """Attacks raise blocks too."""
    finding = await answer("guardrails", rails("14", 0.008, 0.05))
    assert (finding.status, of_service(finding, "new_policy").value) == (Status.BAD, 0.0)
    assert (await answer("guardrail_policy", rails("14", 0.008, 0.05))).status is Status.OK
    assert (await answer("guardrail_policy", rails("", 0.008, 0.05))).status is Status.UNKNOWN


async def test_guardrails_that_fail_open_are_told() -> None:
    """Blocks stopped while the guardrails' own calls fail: nobody has looked at what passes."""
    gateway = {"model_group": "chat"}
    series = [
        *rails("14", 0.02, 0.0),
        counter("litellm_guardrail_errors_total", 0.0, 10.0, **gateway),
        counter("litellm_guardrail_requests_total", 20.0, **gateway),
    ]
    finding = await answer("guardrails", series)
    assert finding.status is Status.BAD
    assert "may let everything pass" in finding.summary
    assert of_service(finding, "guardrail_error_ratio").value == pytest.approx(0.5, abs=0.02)


async def test_the_gateways_guardrails_are_enough() -> None:
    """A service that only the gateway observes: its latency is read."""
    target = replace(synthetic.target(), selectors={"gateway": {"model_group": "chat"}})
    name = "litellm_guardrail_latency_seconds"
    slow = telemetry(
        [counter(f"{name}_sum", 1.2, 40.0), counter(f"{name}_count", 20.0)], selector={"model_group": "chat"}
    )
    finding = await CHECKS["guardrails"](target, slow, frame_of())
    assert finding.status is Status.BAD
    assert of_service(finding, "guardrail").value == pytest.approx(2.0, rel=0.02)
