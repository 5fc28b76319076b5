"""
Twenty thousand random policies, people, fixes and times against a second opinion: nothing may open that must not.

The oracle is written from the documentation, in another shape: it lists the reasons against, over plain dicts, and
walks weekly freezes minute by minute. A seed makes every run the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bot.config import Config, Freeze, Limit, Person, PolicyRule, Service
from bot.incidents import Incident, IncidentState, NotAllowedError
from bot.limits import Act
from bot.policy import ITSELF, Policy, person_of
from bot.quorum import lacking
from runbooks.engine.values import Plan, Tier
from tests.kit import INCIDENT, NOW, plan, step

CASES = 20_000
ROLES = ("on-call", "service-owner", "platform", "security")
ACTIONS = ("kubernetes.scale", "litellm.set_weight", "kubernetes.drain")
TARGETS = ("a", "b")
NAMES = ("ann", "ben", "cai", "dee")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def some(dice: random.Random, values: Any, most: int) -> list[Any]:
    return dice.sample(list(values), dice.randint(0, most))


def world(dice: random.Random, now: datetime) -> dict[str, Any]:
    """A configuration as plain values; what loading would refuse is in it, too."""
    environments = ["prod", "staging", "*"]
    return {
        "service": {
            "mode": dice.choice(["observe", "suggest", "approve", "approve", "auto", "auto"]),
            "auto": dice.sample(ACTIONS, dice.randint(1, 3)),
            "team": dice.choice(["chat", "chat", ""]),
            "environment": dice.choice(["prod", "prod", "prod", "staging"]),
            "owners": some(dice, NAMES, 2),
        },
        "rules": [
            {
                "tier": tier,
                "environment": dice.choice(environments),
                "service": dice.choice(["chat", "other", "*"]),
                "roles": dice.sample(ROLES, dice.randint(1, 3)),
                "count": dice.randint(2 if tier == "R3" else 1, 3),
                "other_team": dice.random() < 0.3,
            }
            for tier in dice.choices(["R0", "R1", "R1", "R2", "R3", "R3"], k=dice.randint(3, 10))
        ],
        "people": {name: {"team": dice.choice(["chat", "infra", ""]), "roles": some(dice, ROLES, 2)} for name in NAMES},
        "freezes": [freeze(dice, now) for _ in range(dice.randint(0, 2))],
        "limits": [
            {
                "tier": dice.choice(["R1", "R2", "*"]),
                "service": dice.choice(["chat", "other", "*"]),
                "action": dice.choice([*ACTIONS, "*", "*"]),
                "per_hour": dice.choice([2, 4, 8, None]),
                "per_target_per_hour": dice.choice([1, 2, 3]),
            }
            for _ in range(dice.randint(0, 4))
        ],
    }


def freeze(dice: random.Random, now: datetime) -> dict[str, Any]:
    about = {
        "services": dice.choice([[], ["chat"], ["other"]]),
        "environments": dice.choice([[], ["prod"], ["staging"]]),
        "tiers": dice.choice([["R1", "R2", "R3"], ["R2", "R3"], ["R1"], ["R1"]]),
    }
    if dice.random() < 0.5:
        start = now + timedelta(minutes=dice.randint(-300, 100))
        return {
            **about,
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=dice.randint(1, 400))).isoformat(),
        }
    first, last = dice.sample(range(7 * 24), 2)
    return {
        **about,
        "timezone": "UTC",
        **{key: f"{WEEKDAYS[hour // 24]} {hour % 24:02}:00" for key, hour in (("start", first), ("end", last))},
    }


def built(told: Mapping[str, Any]) -> Config:
    """The product's view of it."""
    service = Service(name="chat", selectors={}, datasource="metrics", **told["service"])
    return Config(
        path=Path("watchkeeper.toml"),
        services=(service,),
        policy=tuple(PolicyRule(**rule) for rule in told["rules"]),
        people=tuple(Person(id=name, name=name, pagerduty=f"P{name}", **each) for name, each in told["people"].items()),
        freezes=tuple(Freeze(name="rest", reason="quiet", **each) for each in told["freezes"]),
        limits=tuple(Limit(**each) for each in told["limits"]),
    )


def fix(dice: random.Random) -> Plan:
    steps = [
        step(index=index, tier=Tier(dice.choice([0, 1, 1, 1, 1, 2, 3])), action=dice.choice(ACTIONS), target=target)
        for index, target in enumerate(dice.sample(TARGETS, dice.randint(1, 2)))
    ]
    return plan(
        "v",
        steps=tuple(steps),
        requester=dice.choice([None, None, *NAMES]),
        undoes="plan-0" if dice.random() < 0.1 else None,
    )


def past(dice: random.Random, now: datetime) -> list[Act]:
    return [
        Act(
            at=now - timedelta(minutes=dice.randint(1, 120)),
            tier=dice.choice(["R1", "R2"]),
            environment="prod",
            service=dice.choice(["chat", "chat", "other"]),
            action=dice.choice(ACTIONS),
            target=dice.choice(TARGETS),
        )
        for _ in range(dice.randint(0, 3))
    ]


# The second opinion: every reason why this fix must not start on the word of these voices.


def against(
    told: Mapping[str, Any], item: Plan, voices: Mapping[str, bool], acts: list[Act], on_call: str, now: datetime
) -> set[str]:
    reasons = {"mode"} if told["service"]["mode"] in ("observe", "suggest") else set()
    if not item.undoes:
        reasons |= {"freeze" for each in told["freezes"] if rests(each, item, now)}
        reasons |= {"limit" for each in told["limits"] if too_often(each, item, acts, now)}
    return reasons | (itself(told, item) if voices == {"policy": False} else people(told, item, voices, on_call))


def people(told: Mapping[str, Any], item: Plan, voices: Mapping[str, bool], on_call: str) -> set[str]:
    worst = max(f"R{int(each.tier)}" for each in item.steps)
    wanted = [
        rule
        for rule in told["rules"]
        if rule["tier"] == worst and rule["environment"] in ("*", "prod") and rule["service"] in ("*", "chat")
    ][:1]
    if not wanted:
        return {"no rule"}
    final = worst == "R3"
    good = set()
    for name, proven in voices.items():
        roles = set(told["people"][name]["roles"])
        roles |= {"service-owner"} if name in told["service"]["owners"] else set()
        roles |= {"on-call"} if name == on_call else set()
        if name != item.requester and roles & set(wanted[0]["roles"]) and (proven or not final):
            good.add(name)
    reasons = {"too few"} if len(good) < wanted[0]["count"] or not good or (final and len(good) == 1) else set()
    if final or wanted[0]["other_team"]:
        own = [told["service"]["team"], *([told["people"][item.requester]["team"]] if item.requester else [])]
        strangers = {told["people"][name]["team"] for name in good} - {"", *own}
        reasons |= set() if all(own) and strangers else {"same team"}
    return reasons


def itself(told: Mapping[str, Any], item: Plan) -> set[str]:
    reasons = {"asked for"} if item.requester or item.undoes else set()
    reasons |= {"not auto"} if told["service"]["mode"] != "auto" or told["service"]["environment"] != "prod" else set()
    for each in item.steps:
        tier = f"R{int(each.tier)}"
        reasons |= {"too risky"} if tier in ("R2", "R3") else set()
        reasons |= {"not listed"} if each.action not in told["service"]["auto"] else set()
        bounds = [limit for limit in told["limits"] if limit["per_hour"] and is_about(limit, tier, "chat", each.action)]
        reasons |= set() if bounds else {"unlimited"}
    return reasons


def is_about(limit: Mapping[str, Any], tier: str, service: str, action: str) -> bool:
    given = {"tier": tier, "service": service, "action": action}
    return all(limit[key] in ("*", value) for key, value in given.items())


def too_often(limit: Mapping[str, Any], item: Plan, acts: list[Act], now: datetime) -> bool:
    begun = [(each.target, True) for each in item.steps if is_about(limit, f"R{int(each.tier)}", "chat", each.action)]
    targets = Counter(target for target, _ in begun)
    known = [
        each.target
        for each in acts
        if is_about(limit, each.tier, each.service, each.action) and (now - each.at).total_seconds() < 3600
    ]
    all_in_all = limit["per_hour"] is not None and begun and len(begun) + len(known) > limit["per_hour"]
    return bool(all_in_all) or any(
        count + known.count(target) > limit["per_target_per_hour"] for target, count in targets.items()
    )


def rests(window: Mapping[str, Any], item: Plan, now: datetime) -> bool:
    about = (
        window["services"] in ([], ["chat"])
        and window["environments"] in ([], ["prod"])
        and any(f"R{int(each.tier)}" in window["tiers"] for each in item.steps)
    )
    if "timezone" not in window:
        return about and window["start"] <= now.isoformat() < window["end"]
    moment = now
    while True:  # back in time, hour by hour, until the last thing that happened
        said = f"{WEEKDAYS[moment.weekday()]} {moment.hour:02}:00"
        if said in (window["start"], window["end"]):
            return about and said == window["start"]
        moment -= timedelta(hours=1)


def says_yes(
    policy: Policy, config: Config, item: Plan, voices: Mapping[str, bool], acts: list[Act], on_call: str, now: datetime
) -> bool:
    """The product's answer, asked as `Approvals` asks it; a refused click is no approval."""
    counted, requirement = [], policy.requirement(item)
    for name, proven in voices.items():
        person = ITSELF if name == "policy" else person_of(config, name)
        with suppress(NotAllowedError):
            granted = policy.grant(person, item, paged(on_call))
            counted.append(policy.voice(name, granted.role, stepped_up=proven))
            requirement = granted.requirement
    is_free = not policy.frozen(item, now) and not policy.over_limit(item, acts, now)
    return is_free and bool(counted) and requirement is not None and not lacking(requirement, counted)


def paged(on_call: str) -> Incident:
    return Incident(
        incident_id=INCIDENT, number=1, title="slow", state=IncidentState.TRIGGERED, state_at=NOW, created_at=NOW,
        pagerduty_service="PCHAT01", pagerduty_service_name="Chat", service="chat", url="", urgency="high",
        assignees={f"P{on_call}": on_call}, run=1, revision=1,
    )  # fmt: skip


def test_nothing_opens_that_must_not() -> None:
    """And what may open does: two opinions, one answer. Each reason decides often enough to be tried."""
    dice = random.Random(20261122)
    answers: Counter[str] = Counter()
    for number in range(CASES):
        if number % 4 == 0:  # reading a configuration takes longer than all the rest
            about = NOW + timedelta(hours=dice.randint(0, 400))
            told = world(dice, about)
            config = built(told)
            policy = Policy(config)
        now = about + timedelta(hours=dice.randint(-2, 2))
        item, acts, on_call = fix(dice), past(dice, now), dice.choice(NAMES)
        proven = dice.random() < 0.7
        chosen = ["policy"] if dice.random() < 0.3 else dice.sample(NAMES, dice.randint(1, 4))
        voices = {name: proven and name != "policy" for name in chosen}

        reasons = against(told, item, voices, acts, on_call, now)
        opens = says_yes(policy, config, item, voices, acts, on_call, now)

        assert opens is not bool(reasons), f"case {number}, {reasons}: {told}, {item}, {voices}, {acts}, {now}"
        answers.update(reasons or {"opened"})
        answers.update({f"only {reasons.pop()}"} if len(reasons) == 1 else ())

    assert answers["opened"] > CASES // 50, answers
    assert all(answers[f"only {reason}"] > CASES // 2000 for reason in REASONS), answers


REASONS = (
    "mode", "freeze", "limit", "no rule", "too few", "same team", "not auto", "asked for", "too risky", "not listed",
    "unlimited",
)  # fmt: skip
