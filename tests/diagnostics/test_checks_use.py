"""Checks on how the service is used: tools, consumers, spend, and who is hurt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnostics.checks import CHECKS
from diagnostics.findings import Finding, Measure, Status
from diagnostics.impact import Impact, burn_rate, impact_of, share_above
from diagnostics.look import Compared
from diagnostics.target import Budgets
from tests import synthetic
from tests.application_signals import Series, answer, born, counter, has, of_service, values
from tests.diagnosed import frame_of, recorded

CALLS, TOKENS, COST = "llm_app_tool_calls_total", "llm_app_tokens_total", "llm_app_cost_usd_total"
REQUESTS = "llm_app_requests_total"


def calls(tool: str, rate: float, errors: float, since: float | None = None) -> list[Series]:
    now = errors if since is None else since
    return [
        counter(CALLS, rate * errors, rate * now, tool=tool, verb="read", outcome="error"),
        counter(CALLS, rate * (1 - errors), rate * (1 - now), tool=tool, verb="read", outcome="ok"),
    ]


def writes(agent: str, rate: float, since: float, *, unapproved: float = 0.02, then: float = 0.02) -> list[Series]:
    return [
        counter(
            CALLS,
            rate * before,
            since * now,
            tool="tickets",
            verb="write",
            agent=agent,
            approved=approved,
            outcome="ok",
        )
        for approved, before, now in (("yes", 1 - then, 1 - unapproved), ("no", then, unapproved))
    ]


EDGE = [counter(REQUESTS, 20.0, status="ok")]


def used(key: str, team: str, model: str, before: float, since: float) -> Series:
    """Tokens as LiteLLM counts them: a key without an alias, or no team, is the word None."""
    labels = {"model_group": "chat", "api_key_alias": key, "team": team, "model": model}
    return counter("litellm_total_tokens_metric_total", before, since, **labels)


async def test_a_key_without_an_alias_is_nobody() -> None:
    """The team that grew is named, and never a consumer called None."""
    target = replace(synthetic.target(), selectors={"gateway": {"model_group": "chat"}})
    finding = await answer("consumers", [used("None", "a", "m", 1e3, 5e3), used("None", "b", "m", 1e3, 1e3)], target)
    assert finding.status is Status.BAD
    assert values(finding, "tenant") == {"a"}
    nobody = await answer("consumers", [used("None", "None", "m", 1e3, 5e3), used("k", "b", "m", 1e3, 1e3)], target)
    assert "None" not in nobody.summary


async def test_the_gateways_models_are_told_apart() -> None:
    """LiteLLM's tokens and spend have the label model; a dearer mix is seen without the application."""
    target = replace(synthetic.target(), selectors={"gateway": {"model_group": "chat"}})
    paid = [
        counter("litellm_spend_metric_total", before, since, model_group="chat", model=model)
        for model, before, since in (("cheap", 0.01, 0.001), ("dear", 0.0001, 0.1))
    ]
    tokens = [used("k", "t", "cheap", 1000.0, 100.0), used("k", "t", "dear", 1.0, 900.0)]
    finding = await answer("token_cost", [*paid, *tokens], target)
    assert (of_service(finding, "model_mix").value or 0) == pytest.approx(0.9, abs=0.02)


async def test_one_failing_tool_is_named() -> None:
    """Its backend fails; the others work."""
    finding = await answer("tool_calls", [*EDGE, *calls("search", 5, 0.007, 0.45), *calls("mail", 5, 0.007)])
    assert finding.status is Status.BAD
    assert values(finding, "tool") == {"search"}
    assert (of_service(finding, "tool_error_concentration").value or 0) > 0.95


async def test_all_tools_failing_are_nobodys_backend() -> None:
    """Arguments that no tool can read: the failures are spread."""
    series = [one for tool in ("search", "mail", "map") for one in calls(tool, 5, 0.007, 0.08)]
    finding = await answer("tool_calls", [*EDGE, *series])
    assert finding.status is Status.BAD
    assert (of_service(finding, "tool_error_concentration").value or 1) < 0.4


async def test_an_agent_that_writes_more_is_named() -> None:
    """Six times the writes, errors flat, approvals missing."""
    series = [*EDGE, *calls("search", 5, 0.007), *writes("clerk", 1.0, 6.0, unapproved=0.5), *writes("aide", 1.0, 1.0)]
    finding = await answer("tool_calls", series)
    assert finding.status is Status.BAD
    assert values(finding, "agent") == {"clerk"}
    assert (of_service(finding, "unapproved_write_ratio").value or 0) > 0.3
    assert (of_service(finding, "write_tool_ratio").value or 0) == pytest.approx(7 / 20, rel=0.05)


async def test_calm_tools_are_ok_and_few_calls_unknown() -> None:
    """No complaint without a reason, no opinion on a handful of calls."""
    assert (await answer("tool_calls", [*EDGE, *calls("search", 5, 0.01)])).status is Status.OK
    few = await answer("tool_calls", [*EDGE, *calls("search", 0.05, 0.0, 1.0)])
    assert few.status is Status.UNKNOWN
    assert "15 times" in (few.reason or "")


async def test_tools_without_labels_accuse_no_tool() -> None:
    """Calls that name no tool and no agent: the share is known, the place is not."""
    series = [counter(CALLS, 0.1, 4.0, outcome="error"), counter(CALLS, 9.9, 6.0, outcome="ok")]
    finding = await answer("tool_calls", [*EDGE, *series])
    assert finding.status is Status.BAD
    assert not values(finding, "tool")
    assert not has(finding, "tool_error_concentration")


def consumer(
    key: str, rps: float, since: float, *, tokens: float = 3000.0, now: float | None = None, model: str = "m"
) -> list[Series]:
    per_request = tokens if now is None else now
    return [
        counter(REQUESTS, rps, since, api_key=key, tenant=f"t-{key}", status="ok"),
        counter(TOKENS, rps * tokens, since * per_request, api_key=key, tenant=f"t-{key}", model=model),
    ]


def others(since: float = 1.0) -> list[Series]:
    return [one for n in range(8) for one in consumer(f"k{n}", 2.0, 2.0 * since)]


async def test_a_runaway_key_sends_longer_requests() -> None:
    """One key carries the growth, with requests twice as long, by the model that it always used."""
    finding = await answer("consumers", [*others(), *consumer("big", 4.0, 5.0, now=12000.0)])
    assert finding.status is Status.BAD
    assert values(finding, "api_key", "top_key_growth_share") == {"big"}
    assert values(finding, "tenant", "top_key_growth_share") == {"t-big"}
    longer = of_service(finding, "key_tokens_per_request")
    assert longer.value == pytest.approx(12000, rel=0.02)
    assert longer.baseline == pytest.approx(3000, rel=0.02)
    assert of_service(finding, "key_new_models").value == 0.0


async def test_a_leaked_key_uses_models_that_are_new_to_it() -> None:
    """More requests of the same length, on a model that it never used."""
    series = [*others(), *consumer("big", 2.0, 2.0), born(TOKENS, 60000.0, api_key="big", tenant="t-big", model="xl")]
    finding = await answer("consumers", series)
    assert of_service(finding, "key_new_models").value == 1.0
    assert "it never used xl before" in finding.summary


async def test_growth_that_many_share_is_nobodys() -> None:
    """Eight keys grow alike: traffic, and the number of those that share it is said."""
    finding = await answer("consumers", others(since=2.0))
    assert finding.status is Status.OK
    assert (of_service(finding, "top_key_growth_share").value or 1) < 0.2
    assert "8 of 8 api_keys share" in finding.summary


async def test_new_clients_of_a_key_are_counted_where_the_gateway_tells() -> None:
    """LiteLLM's spend names addresses and programs."""
    spend = "litellm_spend_metric_total"
    series = [*others(), *consumer("big", 4.0, 12.0)]
    gateway = [
        counter(spend, 0.01, api_key_alias="big", client_ip="10.0.0.1", user_agent="app", model_group="chat"),
        born(spend, 0.02, api_key_alias="big", client_ip="203.0.113.9", user_agent="curl", model_group="chat"),
    ]
    finding = await answer("consumers", [*series, *gateway])
    assert of_service(finding, "key_new_clients").value == 1.0


async def test_tokens_without_a_key_are_unknown() -> None:
    """Nobody to share the growth out to: the metric that lacks the labels is named."""
    finding = await answer("consumers", [counter(TOKENS, 100.0, 900.0)])
    assert finding.status is Status.UNKNOWN
    assert TOKENS in (finding.reason or "")


def spend(model: str, tokens: float, since: float, usd: float) -> list[Series]:
    return [
        counter(TOKENS, tokens, since, model=model, api_key="k1"),
        counter(COST, tokens * usd, since * usd, model=model, api_key="k1"),
        counter(REQUESTS, tokens / 1000, since / 1000, model=model, route="/chat", status="ok", api_key="k1"),
    ]


async def test_a_dearer_mix_is_told_from_more_tokens() -> None:
    """The same tokens by a model five times as dear: the mix, and the route that moved."""
    series = [
        *spend("small", 20000, 8000, 1e-7),
        *spend("large", 1000, 13000, 5e-7),
        counter(REQUESTS, 5.0, model="small", route="/batch", status="ok", api_key="k1"),
    ]
    finding = await answer("token_cost", series)
    assert finding.status is Status.BAD
    assert "mostly dearer models in the mix" in finding.summary
    assert (of_service(finding, "model_mix").value or 0) == pytest.approx(12 / 21, abs=0.02)
    assert values(finding, "route") == {"/chat"}
    parts = {m.signal: m.value or 0.0 for m in finding.measures if m.signal.startswith("cost_of_")}
    hourly = of_service(finding, "cost_per_hour")
    assert sum(parts.values()) == pytest.approx((hourly.value or 0) - (hourly.baseline or 0), rel=0.01)


async def test_more_requests_are_the_reason_when_they_are() -> None:
    """Twice the requests at the same length and price."""
    finding = await answer("token_cost", spend("small", 20000, 40000, 1e-7))
    assert "mostly more requests" in finding.summary
    assert of_service(finding, "cost_per_1k_tokens").value == pytest.approx(1e-4, rel=0.01)


def edge(tenant: str, rps: float, failing: float, since: float) -> list[Series]:
    return [
        counter(REQUESTS, rps * failing, rps * since, tenant=tenant, status="5xx"),
        counter(REQUESTS, rps * (1 - failing), rps * (1 - since), tenant=tenant, status="ok"),
    ]


async def test_the_impact_says_who_and_how_many() -> None:
    """Two of four tenants fail; the budget of 0.1 % burns, and the sentence says it all."""
    series = [one for n in range(4) for one in edge(f"t{n}", 5, 0.0005, 0.08 if n < 2 else 0.0005)]
    target = replace(synthetic.target(), budgets=Budgets(error_ratio=0.001))
    finding = await answer("impact", series, target)
    assert finding.status is Status.BAD
    found = impact_of([finding])
    assert found is not None
    assert (found.hurt, found.tenants) == (("t0", "t1"), 4)
    assert found.failing.now == pytest.approx(0.04, abs=0.001)
    assert found.burn_rate == pytest.approx(40, rel=0.03)
    assert "2 of 4 tenants are hit, the error budget burns 40" in finding.summary
    assert found.sentence() == finding.summary


async def test_nobody_hurt_is_said_so() -> None:
    """The usual failures are no impact."""
    finding = await answer("impact", edge("t", 20, 0.001, 0.001))
    assert (finding.status, finding.summary) == (Status.OK, "Users notice nothing, as far as it is measured.")
    assert impact_of([]) is None


async def test_slow_answers_are_felt_where_a_time_was_promised() -> None:
    """The engines' first tokens come late: the share beyond the promise, and its burn rate."""
    slow = await CHECKS["impact"](synthetic.target(), recorded("S01"), frame_of())
    assert slow.status is Status.BAD
    found = impact_of([slow])
    assert found is not None
    assert (found.slow.now or 0) > 0.3
    assert (found.burn_rate or 0) > 6


async def test_useless_answers_are_felt() -> None:
    """A fifth of the answers is refused: they came with a 200."""
    responses = "llm_app_responses_total"
    series = [counter(responses, 0.3, 4.0, outcome="refusal"), counter(responses, 19.7, 16.0, outcome="ok")]
    finding = await answer("impact", series)
    assert finding.status is Status.BAD
    assert "of answers are useless" in finding.summary


@pytest.mark.parametrize(
    ("buckets", "limit", "expected"),
    [
        ({1.0: 90.0, 2.0: 100.0, float("inf"): 100.0}, 1.5, 0.05),
        ({1.0: 90.0, float("inf"): 100.0}, 1.0, 0.1),
        ({1.0: 90.0, float("inf"): 100.0}, 3.0, None),
        ({1.0: 100.0, float("inf"): 100.0}, 3.0, 0.0),
        ({1.0: 0.0, float("inf"): 0.0}, 1.0, None),
        ({1.0: 5.0}, 1.0, None),
        ({}, 1.0, None),
    ],
)
def test_the_share_beyond_a_limit(buckets: dict[float, float], limit: float, expected: float | None) -> None:
    """Interpolated between edges; unknown where the buckets do not reach that far, or hold nothing."""
    found = share_above(buckets, limit)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_burn_rate_needs_a_promise() -> None:
    """No error budget, no rate; the worse of the two promises counts."""
    assert burn_rate(0.04, None, None) is None
    assert burn_rate(0.04, 0.2, 0.001) == pytest.approx(40)
    assert burn_rate(0.0, 0.2, 0.001) == pytest.approx(4)


def test_an_impact_is_read_back_from_its_measures() -> None:
    """What the check measured is what the card gets; a blind check gives nothing."""
    finding = Finding.bad(
        "impact",
        "said",
        Measure(signal="failing_ratio", value=0.05, baseline=0.001),
        Measure(signal="failing_ratio", value=0.2, scope=(("tenant", "acme"),)),
        Measure(signal="tenants_seen", value=12.0),
    )
    assert impact_of([finding]) == Impact(
        failing=Compared(now=0.05, baseline=0.001), slow=Compared(), spoiled=Compared(), tenants=12, hurt=("acme",)
    )
    assert impact_of([Finding.unknown("impact", "blind")]) is None
