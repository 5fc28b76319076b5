"""Faults of providers, retrieval, tools, guardrails, clients and money: what moves, where, what stays, what heals."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta

import pytest

from lab.providers import ACCOUNTS, OPENAI
from lab.scenarios.faults_integration import FAULTS
from lab.scenarios.provider_faults import CredentialVoid
from tests.lab.integration_readings import FaultyWorld, Growth

_ENGINE = ("rps", "ptok", "otok", "prefill", "ttft", "itl", "e2e")
_ANSWERS = ("fmt", "refusal", "gblock")
_NEAR = {"fmt": 0.02, "refusal": 0.015, "gblock": 0.01, "rempty": 0.1, "toolerr": 0.03, "5xx": 0.01, "4xx": 0.02}


@dataclass(frozen=True, kw_only=True)
class Played:
    """A world before its fault, during it, and after the state was healed."""

    world: FaultyWorld
    before: Growth
    during: Growth
    after: Growth


@functools.cache
def played(cause: str) -> Played:
    """Minutes of each, at the usual strength."""
    world = FaultyWorld(FAULTS[cause](1.0))
    world.pass_time(timedelta(minutes=2))
    before = Growth(world)
    world.begin()
    during = Growth(world)
    world.heal()
    return Played(world=world, before=before, during=during, after=Growth(world))


MOVES = {  # at least half of the way that the reference's figures go, for the whole service
    "I05": {"retr": 2.9, "rempty": 0.38, "ptok": -1600, "prefill": -0.21, "judge": -0.12},
    "I06": {"retr": -0.1, "rempty": 0.97, "ptok": -2300, "prefill": -0.30, "judge": -0.20},
    "I07": {"rscore": -0.31, "rempty": 0.53, "ptok": -1300, "prefill": -0.17, "judge": -0.16},
    "I08": {"ptok": 1200, "otok": 90, "prefill": 0.16, "ttft": 0.16, "running": 10, "retry": 0.2, "judge": -0.08},
    "I09": {"guard": 2.44, "client": 2.44, "gateway": 2.44},
    "I10": {"rps": 28.8, "retry": 1.2, "aborted": 0.145, "5xx": 0.049, "running": 78, "itl": 0.0096},
    "I12": {"4xx": 0.175, "ptok": 600, "prefill": 0.079},
    "X04": {"rps": 4.8, "ptok": 3900, "prefill": 0.51, "ttft": 0.79, "kv": 0.76},
    "X05": {"rps": 9.6, "running": 13},
}


@pytest.mark.parametrize("cause", MOVES)
def test_its_signals_move_as_the_reference_says(cause: str) -> None:
    """In the right direction, by half of the stated way or more and not more than twice it."""
    fault = played(cause)
    before, during = fault.before.signals(), fault.during.signals()
    for name, way in MOVES[cause].items():
        moved = (during[name] - before[name]) / way
        assert 0.5 <= moved <= 2.0, f"{name}: {before[name]:.4g} -> {during[name]:.4g}, {moved:.2f} of the way"


FLAT = {
    "I01": (*_ENGINE, *_ANSWERS, "5xx", "4xx", "retr", "guard", "toolerr"),
    "I02": (*_ENGINE, *_ANSWERS, "4xx", "retr", "guard", "toolerr"),
    "I03": (*_ENGINE, *_ANSWERS, "5xx", "4xx", "retr", "guard", "toolerr"),
    "I04": (*_ENGINE, *_ANSWERS, "5xx", "retr", "guard", "toolerr"),
    "I05": ("rps", "otok", "itl", "guard", "5xx", "4xx", "fmt", "toolerr", "gateway"),
    "I06": ("rps", "otok", "itl", "guard", "5xx", "4xx", "fmt", "toolerr"),
    "I07": ("rps", "otok", "itl", "guard", "5xx", "4xx", "fmt", "toolerr", "retr"),
    "I08": ("rps", "itl", "guard", "toolrate", "5xx", "4xx", "fmt", "retr", "rempty"),
    "I09": (*_ENGINE, *_ANSWERS, "5xx", "4xx", "retr", "spend", "toolrate"),
    "I10": ("ptok", "otok", "guard", "retr", "4xx", "rempty", "fmt", "toolrate"),
    "I12": ("otok", "itl", "guard", "retr", "5xx", "fmt", "rempty"),
    "X04": ("guard", "retr", "5xx", "4xx", "fmt", "rempty", "toolrate"),
    "X05": ("ptok", "otok", "guard", "retr", "5xx", "4xx", "rempty", "toolrate"),
    "X07": (*_ENGINE, *_ANSWERS, "5xx", "4xx", "retr", "guard", "toolerr"),
}


@pytest.mark.parametrize("cause", FLAT)
def test_everything_else_stays(cause: str) -> None:
    """Signals that the cause does not touch stay within a normal day's variation."""
    fault = played(cause)
    before, during = fault.before.signals(), fault.during.signals()
    for name in FLAT[cause]:
        allowed = _NEAR.get(name, 0.1 * before[name] if name == "itl" else 0.18 * before[name])
        assert during[name] == pytest.approx(before[name], abs=allowed), name


@pytest.mark.parametrize("cause", sorted(FAULTS))
def test_a_healed_state_heals_the_telemetry(cause: str) -> None:
    """Two minutes later requests, errors, times and spend are what they were."""
    fault = played(cause)
    before, after = fault.before.signals(), fault.after.signals()
    for name in ("rps", "ptok", "ttft", "e2e", "guard", "retr", "client", "spend", "unit", "retry"):
        assert after[name] == pytest.approx(before[name], rel=0.15), name
    for name in ("5xx", "4xx", "429", "aborted", "rempty"):
        assert after[name] == pytest.approx(before[name], abs=0.015), name


# -- Providers -------------------------------------------------------------------------------------------------------


def failures(growth: Growth, provider: str, **which: str) -> float:
    """The share of the provider's requests that failed so, as the gateway counts them."""
    asked = growth.of("litellm_deployment_total_requests_total", api_provider=provider)
    return growth.of("litellm_deployment_failure_responses_total", api_provider=provider, **which) / max(1.0, asked)


PROVIDERS = {  # status class and share at the provider, and its codes
    "I01": ("429", 0.22, {"rate_limit_exceeded", "rate_limit_error"}),
    "I02": ("5", 0.35, {"server_error", "overloaded_error"}),
    "I03": ("429", 0.99, {"insufficient_quota", "enforced_spend_limit_reached"}),
    "I04": ("40", 0.97, {"invalid_api_key", "authentication_error", "permission_error"}),
}


@pytest.mark.parametrize("cause", PROVIDERS)
def test_one_provider_refuses_and_says_why(cause: str) -> None:
    """By its status at the gateway and its own code at the application; the other provider is well."""
    status, share, codes = PROVIDERS[cause]
    fault = played(cause)
    victim = fault.world.fault.provider  # type: ignore[attr-defined]
    for provider in ACCOUNTS:
        found = sum(
            failures(fault.during, provider, exception_status=each)
            for each in ("401", "403", "429", "500", "503", "529")
            if each.startswith(status)
        )
        of_keys = 1 / len(ACCOUNTS[provider].keys) if getattr(fault.world.fault, "key", "") else 1.0
        expected = pytest.approx(share * of_keys, rel=0.4) if provider == victim else pytest.approx(0.0, abs=0.02)
        assert found == expected, provider
    said = {code for code in codes if fault.during.of("llm_app_provider_errors_total", provider=victim, code=code) > 5}
    assert said
    assert said <= codes


def test_only_a_rate_limit_takes_the_headroom() -> None:
    """It goes to nothing in I01 and stays near where it was in the others."""
    for cause in PROVIDERS:
        fault = played(cause)
        victim = fault.world.fault.provider  # type: ignore[attr-defined]
        about = {"api_provider": victim, "model_group": "chat-overflow"}
        left = fault.during.level("litellm_remaining_tokens_metric", **about)
        usual = fault.before.level("litellm_remaining_tokens_metric", **about)
        assert left == 0 if cause == "I01" else left == pytest.approx(usual, rel=0.35), cause


def test_an_outage_is_an_outage_to_the_gateway() -> None:
    """The deployment's state is 2, it is cooled down again and again, and clients repeat what failed."""
    fault = played("I02")
    victim = fault.world.fault.provider  # type: ignore[attr-defined]
    about = {"api_provider": victim, "model_group": "chat-overflow"}
    assert fault.during.level("litellm_deployment_state", **about) == 2
    assert fault.before.of("litellm_deployment_cooled_down_total", **about) == 0
    assert fault.during.of("litellm_deployment_cooled_down_total", **about) > 10
    asked = "litellm_deployment_total_requests_total"
    assert fault.during.of(asked, **about) > 1.25 * fault.before.of(asked, **about)
    assert fault.after.level("litellm_deployment_state", **about) == 0


def test_a_provider_that_answers_nothing_costs_nothing() -> None:
    """Its models' spend falls to a twentieth or so, by the application's account and by the gateway's."""
    fault = played("I03")
    victim = fault.world.fault.provider  # type: ignore[attr-defined]
    models = {one.model for one in fault.world.gateway.deployments.values() if one.provider == victim}
    for name in ("llm_app_cost_usd_total", "litellm_spend_metric_total"):
        before = sum(fault.before.of(name, model=model) for model in models)
        assert sum(fault.during.of(name, model=model) for model in models) < 0.1 * before, name


def test_a_fallback_hides_an_outage() -> None:
    """With one, the engines answer what the provider does not, and users see no error."""
    world = FaultyWorld(FAULTS["I02"](1.0))
    world.gateway.fallbacks["chat-overflow"] = ["chat"]
    world.begin()
    during = Growth(world).signals()
    assert during["5xx"] < 0.005
    assert world.total("litellm_deployment_successful_fallbacks_total", fallback_model="chat") > 50


# -- Retrieval, tools, prompts ---------------------------------------------------------------------------------------


def searches(growth: Growth, status: str) -> float:
    return growth.share("rest_responses_total", {"status": status})


def test_the_vector_store_says_what_is_wrong_with_it() -> None:
    """Slow searches fail with 503, those of a wrong dimension with 400 at once, and a wrong index answers 200."""
    assert searches(played("I05").during, "503") > 0.1
    assert searches(played("I06").during, "400") > 0.99
    assert played("I06").during.mean("rest_responses_duration_seconds") < 0.03
    assert searches(played("I07").during, "200") > 0.99
    for cause in ("I05", "I06"):
        assert played(cause).during.of("rest_responses_fail_total") > 100 * played(cause).before.of(
            "rest_responses_fail_total"
        ) / max(1.0, played(cause).before.of("rest_responses_fail_total"))


def test_a_poor_index_has_fewer_points() -> None:
    """The collection that is searched lost four fifths of them, more or less."""
    fault = played("I07")
    world = FaultyWorld(FAULTS["I07"](1.0))
    before = world.stage.knowledge_store.collection.points
    world.begin()
    serves = world.stage.knowledge_store.serves
    assert world.total("collection_points", collection=serves) < 0.4 * before
    assert fault.after.signals()["rscore"] == pytest.approx(fault.before.signals()["rscore"], abs=0.02)


def test_only_one_tool_fails() -> None:
    """Nearly half of its calls, and none more of the others'."""
    fault = played("I08")
    victim = fault.world.fault.scope(fault.world.stage)[1][0]
    for tool in ("search_orders", "calendar", "create_ticket"):
        wrong = fault.during.share("llm_app_tool_calls_total", {"outcome": "error"}, tool=tool)
        assert wrong == (pytest.approx(0.45, rel=0.3) if tool == victim else pytest.approx(0.007, abs=0.012))


def test_too_long_prompts_are_refused_by_the_engines() -> None:
    """As 400 at the engine, the gateway and the edge; they cost no tokens."""
    fault = played("I12")
    refused = fault.during.of("litellm_deployment_failure_responses_total", exception_status="400")
    assert refused > 500
    assert fault.during.of("llm_app_provider_errors_total", code="context_length_exceeded") == refused
    assert fault.during.share("http_requests_total", {"status": "4xx"}) > 0.1
    assert fault.during.of("llm_app_requests_total", status="4xx", route="summary") < 20
    assert fault.during.signals()["spend"] < 1.1 * fault.before.signals()["spend"]


def test_a_slow_guardrail_counts_its_errors() -> None:
    """By the gateway's own metrics, and the latency is the guardrail's."""
    fault = played("I09")
    assert fault.before.of("litellm_guardrail_errors_total") == 0
    assert fault.during.of("litellm_guardrail_errors_total") > 50
    assert fault.during.mean("litellm_guardrail_latency_seconds") > 1.2


# -- Money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cause", "factor"), [("X04", 2.5), ("X05", 2.0), ("X07", 2.4), ("I08", 1.6), ("I10", 1.9)])
def test_spend_grows(cause: str, factor: float) -> None:
    """By half of the stated growth at least, in the application's account and in the gateway's alike."""
    fault = played(cause)
    for name in ("llm_app_cost_usd_total", "litellm_spend_metric_total"):
        grown = fault.during.of(name) / fault.before.of(name)
        assert 1 + 0.45 * (factor - 1) < grown < 2 * factor, name
    assert fault.during.of("llm_app_cost_usd_total") == pytest.approx(fault.during.of("litellm_spend_metric_total"))


@pytest.mark.parametrize("cause", ["X04", "X05"])
def test_one_key_carries_the_growth(cause: str) -> None:
    """Of tokens, seven tenths and more."""
    fault = played(cause)
    [key] = fault.world.fault.scope(fault.world.stage)[1]
    tokens = "llm_app_tokens_total"
    grown = fault.during.of(tokens) - fault.before.of(tokens)
    assert fault.during.of(tokens, api_key=key) - fault.before.of(tokens, api_key=key) > 0.7 * grown


def test_only_a_stolen_key_comes_from_elsewhere() -> None:
    """X05's key is used by a client and for a model that it never had; X04's job runs where its tenant always calls."""
    for cause, clients in (("X04", 1), ("X05", 2)):
        fault = played(cause)
        [key] = fault.world.fault.scope(fault.world.stage)[1]
        rows = [s.labels for s in fault.world.fleet.registry.series if s.family.name == "litellm_spend_metric_total"]
        assert len({row["client_ip"] for row in rows if row["api_key_alias"] == key}) == clients
        large = {"api_key": key, "model": "gpt-4.1"}
        assert fault.before.of("llm_app_requests_total", **large) == 0
        assert (fault.during.of("llm_app_requests_total", **large) > 20) == (cause == "X05")


def test_the_price_of_a_token_rises_and_nothing_else() -> None:
    """X07: the same tokens at twice the price and more, since the expensive model answers more of them."""
    fault = played("X07")
    before, during = fault.before.signals(), fault.during.signals()
    assert during["unit"] > 1.7 * before["unit"]
    assert during["retry"] == pytest.approx(before["retry"], rel=0.02)
    share = "llm_app_requests_total"
    assert fault.during.share(share, {"model": "gpt-4.1"}) > 10 * fault.before.share(share, {"model": "gpt-4.1"})


# -- All -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", sorted(FAULTS))
def test_a_fault_fits_the_format_of_a_case(cause: str) -> None:
    """Its id is its place, what it logs is guilty, its scope has values where it is bounded, and series stay few."""
    world = played(cause).world
    assert world.fault.id == cause
    assert all(change.is_guilty for change in world.stage.log)
    dimension, values = world.fault.scope(world.stage)
    assert (dimension == "fleet") == (values == [])
    assert len(world.fleet.registry.series) < 1500


@pytest.mark.parametrize(("cause", "name"), [("I07", "rempty"), ("I08", "ptok"), ("X05", "rps")])
def test_a_mild_fault_moves_less(cause: str, name: str) -> None:
    """At half the strength, about half of the way."""
    mild = FaultyWorld(FAULTS[cause](0.5))
    mild.begin()
    usual = played(cause)
    before, during = usual.before.signals()[name], usual.during.signals()[name]
    assert Growth(mild).signals()[name] - before == pytest.approx(0.5 * (during - before), rel=0.35)


def test_one_bad_key_is_half_of_a_provider_with_two() -> None:
    """The gateway takes an account's keys in turn, and every failure names the bad one."""
    fault = CredentialVoid()
    world = FaultyWorld(fault)
    fault.provider, fault.key = OPENAI, ACCOUNTS[OPENAI].keys[1]
    world.begin()
    during = Growth(world)
    assert sum(failures(during, OPENAI, exception_status=each) for each in ("401", "403")) == pytest.approx(
        0.5, abs=0.1
    )
    code = fault.trouble.refusal.code
    assert during.of("llm_app_provider_errors_total", code=code, key=fault.key) > 100
    assert during.of("llm_app_provider_errors_total", code=code, key=ACCOUNTS[OPENAI].keys[0]) == 0
    assert fault.scope(world.stage) == ("api_key", [fault.key])
