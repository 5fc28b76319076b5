"""The lab's gateway: where requests go by weights, quotas, fallbacks and keys' limits; the scenarios I01 and X04."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from lab.consumers import consumers
from lab.gateway import CHAT, NODE_WEIGHT, OVERFLOW, Gateway, ProviderLoad, Stream, build
from lab.scenarios.provider_rate_limit import LEFT_FOR_US
from lab.scenarios.runaway_key import JOB, KEY
from tests.lab.played_worlds import SmallWorld


@pytest.fixture
def gateway() -> Gateway:
    """At rest, with 24 requests per second."""
    made = build(np.random.default_rng(1), ["gpu-1", "gpu-2"])
    made.demand(24.0)
    return made


def load_of(gateway: Gateway, provider: str) -> ProviderLoad:
    [load] = [load for load in gateway.traffic().providers if (load.group, load.provider) == (OVERFLOW, provider)]
    return load


def test_at_rest_the_engines_get_what_clients_send(gateway: Gateway) -> None:
    """24 requests per second of 3000 and 300 tokens; a sixth more goes outside, a little of it to the large model."""
    demand = gateway.demand(24.0)
    assert (demand.rps, demand.prompt_tokens, demand.output_tokens) == pytest.approx((24.0, 3000, 300))
    assert [load.asked for load in gateway.traffic().providers] == pytest.approx([2.97, 0.99, 0.04])
    assert load_of(gateway, "openai").headroom == pytest.approx(0.6, abs=0.02)
    assert gateway.traffic().turned_away == {}
    assert gateway.engine_weights() == {"gpu-1": 1.0, "gpu-2": 1.0}


def test_a_nodes_weight_is_one_at_rest(gateway: Gateway) -> None:
    """Half the weight is half the share, and 0 takes the node out."""
    gateway.deployments["chat-gpu-1"].weight = NODE_WEIGHT // 2
    gateway.deployments["chat-gpu-2"].weight = 0
    assert gateway.engine_weights() == {"gpu-1": 0.5, "gpu-2": 0.0}


def test_beyond_its_quota_a_provider_refuses(gateway: Gateway) -> None:
    """What is served is the quota; a quarter is refused, since clients try again; headroom is gone."""
    gateway.quotas["openai"] = LEFT_FOR_US
    load = load_of(gateway, "openai")
    served_tokens_per_minute = (load.asked - load.refused) * 3300 * 60
    assert served_tokens_per_minute == pytest.approx(LEFT_FOR_US)
    assert load.refused / load.asked == pytest.approx(0.23, abs=0.02)
    assert load.asked == pytest.approx(2.97 + load.retried)
    assert load.headroom == 0.0
    assert load_of(gateway, "anthropic").refused == 0.0


def test_a_fallback_answers_what_is_refused(gateway: Gateway) -> None:
    """Clients need not try again; the engines get exactly what the provider refused; its limit stays reached."""
    gateway.quotas["openai"] = LEFT_FOR_US
    gateway.fallbacks[OVERFLOW] = [CHAT]
    load = load_of(gateway, "openai")
    assert (load.asked, load.retried) == pytest.approx((2.97, 0.0))
    assert load.refused > 0
    assert gateway.demand(24.0).rps == pytest.approx(24.0 + load.refused)


def test_weights_move_the_overflow(gateway: Gateway) -> None:
    """By their ratio; without any weight LiteLLM picks at random, which is evenly."""
    gateway.deployments["overflow-openai"].weight = 25
    assert load_of(gateway, "openai").asked == pytest.approx(1.98)
    for id_ in ("overflow-openai", "overflow-anthropic"):
        gateway.deployments[id_].weight = 0
    assert load_of(gateway, "openai").asked == pytest.approx(1.98)


def test_a_limit_holds_back_one_key(gateway: Gateway) -> None:
    """By requests or by tokens per minute, whichever is less; nobody else notices."""
    key = gateway.key("key-tenant-01")
    before = gateway.demand(24.0).rps
    own = 24.0 * key.share
    key.rpm_limit = 60
    assert gateway.demand(24.0).rps == pytest.approx(before - own + 1.0)
    assert gateway.traffic().turned_away == pytest.approx({"key-tenant-01": own - 1.0})

    key.tpm_limit = 3300 * 30
    assert gateway.demand(24.0).rps == pytest.approx(before - own + 0.5)


def test_a_blocked_key_gets_nothing(gateway: Gateway) -> None:
    """Neither engines nor providers see its requests."""
    key = gateway.key("key-tenant-20")
    key.blocked = True
    assert not [stream for stream in gateway.traffic().streams if stream.key == key.alias and stream.rps > 0]


def test_a_gateway_without_traffic_stands_still(gateway: Gateway) -> None:
    """No division by nothing when everybody is blocked."""
    for key in gateway.keys.values():
        key.blocked = True
    assert gateway.demand(24.0).rps == 0.0


def test_small_tenants_are_counted_together() -> None:
    """The five largest by name, the rest as `other`; shares of requests and of tokens are different things."""
    found = consumers(
        [
            Stream(key="key-tenant-01", group=CHAT, rps=1.0),
            Stream(key="key-tenant-06", group=CHAT, rps=0.5, prompt_tokens=9000),
            Stream(key="key-tenant-60", group=CHAT, rps=0.5, prompt_tokens=9000),
        ]
    )
    shares = {one.tenant: (one.requests, one.prompt, one.output) for one in found}
    assert shares == {"tenant-01": (0.5, 0.25, 0.5), "other": (0.5, 0.75, 0.5)}


# -- I01: a provider's quota -----------------------------------------------------------------------------------------


def share_of_429(small: SmallWorld) -> float:
    """What the alert rule reads, over the four minutes to come."""

    def counted() -> tuple[float, float]:
        where = {"api_provider": "openai"}
        asked = small.total("litellm_deployment_total_requests_total", **where)
        return small.total("litellm_deployment_failure_responses_total", exception_status="429", **where), asked

    refused, asked = counted()
    small.pass_time(timedelta(minutes=4))
    refused_later, asked_later = counted()
    return (refused_later - refused) / max(1.0, asked_later - asked)


def test_only_less_load_ends_the_rate_limit() -> None:
    """None before, near 22 % after; a fallback hides it from users and does not heal it, another weight does."""
    small = SmallWorld("I01")
    assert share_of_429(small) == 0
    small.break_it()
    assert share_of_429(small) == pytest.approx(0.22, abs=0.05)
    assert not small.scenario.is_healthy(small.stage)
    assert small.total("litellm_remaining_tokens_metric", litellm_model_name="gpt-4.1-nano") == 0

    small.gateway.fallbacks[OVERFLOW] = [CHAT]
    seen = small.total("llm_app_requests_total", status="429", model="gpt-4.1-nano")
    assert share_of_429(small) > 0.05
    assert small.total("llm_app_requests_total", status="429", model="gpt-4.1-nano") == seen
    assert not small.scenario.is_healthy(small.stage)

    small.gateway.deployments["overflow-openai"].weight = 25
    assert small.scenario.is_healthy(small.stage)
    assert share_of_429(small) == 0


def test_the_engines_do_not_feel_the_rate_limit() -> None:
    """Self-hosted requests and tokens stay as they were."""
    small = SmallWorld("I01")
    calm = small.fleet._loads()
    small.break_it()
    assert {pod: load.rps for pod, load in small.fleet._loads().items()} == pytest.approx(
        {pod: load.rps for pod, load in calm.items()}, rel=0.01
    )


# -- X04: a key runs away --------------------------------------------------------------------------------------------


def tokens_by_key(small: SmallWorld) -> dict[str, float]:
    """Tokens by key within the four minutes to come."""
    keys = [*(f"key-tenant-{place:02d}" for place in range(1, 6)), "key-other"]
    before = {key: small.total("llm_app_tokens_total", api_key=key) for key in keys}
    small.pass_time(timedelta(minutes=4))
    return {key: small.total("llm_app_tokens_total", api_key=key) - before[key] for key in keys}


def test_one_key_makes_the_growth() -> None:
    """Tokens grow to more than double, and nine tenths of the growth and more are the one key's."""
    small = SmallWorld("X04")
    small.pass_time(timedelta(minutes=1))
    calm = tokens_by_key(small)
    small.break_it()
    small.pass_time(timedelta(minutes=1))
    wild = tokens_by_key(small)
    growth = sum(wild.values()) - sum(calm.values())
    assert growth > sum(calm.values())
    assert (wild[KEY] - calm[KEY]) / growth > 0.9
    assert not small.scenario.is_healthy(small.stage)


@pytest.mark.parametrize("by", ["limit", "block"])
def test_a_limit_or_a_block_ends_it(by: str) -> None:
    """Both stop the job; another key's limit does nothing; without its limit the job runs on."""
    small = SmallWorld("X04")
    small.break_it()
    small.gateway.key("key-tenant-05").rpm_limit = 1
    assert not small.scenario.is_healthy(small.stage)

    key = small.gateway.key(KEY)
    if by == "limit":
        key.tpm_limit, key.rpm_limit = 400_000, 120
    else:
        key.blocked = True
    assert small.scenario.is_healthy(small.stage)
    small.pass_time(timedelta(minutes=1))
    assert small.fleet._loads()
    key.tpm_limit = key.rpm_limit = key.blocked = None
    assert not small.scenario.is_healthy(small.stage)


def test_who_is_turned_away_shows() -> None:
    """A limit answers 429, a block 401; a refused job waits between its tries and makes no storm."""
    small = SmallWorld("X04")
    small.break_it()
    key = small.gateway.key(KEY)
    for change, status in (({"rpm_limit": 60}, "429"), ({"blocked": True}, "4xx")):
        for name, value in change.items():
            setattr(key, name, value)
        before = small.total("llm_app_requests_total", api_key=KEY, status=status)
        small.pass_time(timedelta(minutes=4))
        refused = small.total("llm_app_requests_total", api_key=KEY, status=status) - before
        assert 0.5 * 240 * 0.7 < refused < 240 * JOB.rps
