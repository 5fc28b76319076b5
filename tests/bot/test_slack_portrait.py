"""Diagnosis, hits and plans as lines of the card, and the pictures."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot import narrate
from bot.incidents import PlanState
from bot.slack import portrait
from bot.slack.picture import ChangeMark, LatencyPicture, SignalPanel, SignalsPicture, StageBar, describe, draw
from bot.slack.view import StepState
from diagnostics.changes.change import Change
from diagnostics.diagnosis import BlindSpot, Diagnosis, Frame, RankedCause, Scope, Suspect
from diagnostics.findings import Finding, Measure, Status
from diagnostics.impact import UNSEEN, who_is_hurt
from diagnostics.key_signals import Curve
from retrieval.documents import Hit
from runbooks.engine.values import Plan, PlannedStep, Tier

NOW = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
ONSET = NOW - timedelta(minutes=12)


def change(number: str) -> Suspect:
    made = Change(id=number, at=ONSET - timedelta(minutes=1), kind="prompt", service="chat", summary=f"change {number}")
    return Suspect(change=made, score=0.5)


DIAGNOSIS = Diagnosis(
    service="chat",
    frame=Frame(at=NOW, baseline_start=NOW - timedelta(hours=2), baseline_end=ONSET),
    since=ONSET,
    user_impact=True,
    causes=(RankedCause(cause="S04", title="Prefix cache", probability=0.9, evidence_for=("hits fell",)),),
    findings=(
        Finding.ok("gpu", "The GPUs are healthy."),
        Finding.bad("itl", "Tokens are slower.", Measure(signal="itl", value=0.0184, baseline=0.016, unit="s")),
        Finding.bad(
            "cache", "Prefix hits fell.", Measure(signal="prefix_hit_ratio", value=0.03, baseline=0.4, unit="ratio")
        ),
        Finding.bad("queue", "3 requests wait.", Measure(signal="queue", value=3.0, baseline=3.0)),
        Finding.unknown("cost", "not exported"),
    ),
    scope=Scope(dimension="prompt_version", values=("8",)),
    suspects=(change("decoy"), change("culprit")),
    culprit_change="culprit",
    blind_spots=(BlindSpot(check="token_cost", why="llm_app_cost_usd_total is not exported"),),
)


def test_evidence_puts_first_what_is_bad_and_moved_most() -> None:
    """A fall from 40 % to 3 % is told before 16 ms to 18.4 ms; fine findings come last."""
    lines = portrait.evidence(DIAGNOSIS)

    assert [line.summary for line in lines] == [
        "Prefix hits fell.",
        "Tokens are slower.",
        "3 requests wait.",
        "not exported",
        "The GPUs are healthy.",
    ]
    assert (lines[0].label, lines[0].now, lines[0].baseline, lines[0].unit) == ("prefix hit ratio", 0.03, 0.4, "ratio")
    assert lines[2].now is None  # the sentence has its number already
    assert [line.status for line in lines][-2:] == [Status.UNKNOWN, Status.OK]


def test_the_culprit_is_the_suspect_and_the_decoy_is_not() -> None:
    """Whom the diagnosis does not name is only among the others."""
    culprit, others = portrait.suspects(DIAGNOSIS)

    assert culprit is not None
    assert (culprit.summary, culprit.before_onset_s) == ("change culprit", 60.0)
    assert [other.summary for other in others] == ["change decoy"]


def test_scope_and_blind_spots_in_words() -> None:
    """Names of the program become words."""
    assert portrait.scope(DIAGNOSIS.scope) == "prompt version: 8"
    assert portrait.scope(Scope(dimension="fleet")) == "the whole fleet"
    assert portrait.scope(None) == ""
    assert portrait.scope(Scope(dimension="tenant")) == "", "usually one tenant, and nobody knows which"
    [spot] = portrait.blind_spots(DIAGNOSIS)
    assert spot.sentence == "token cost (llm_app_cost_usd_total is not exported)"
    assert portrait.causes(DIAGNOSIS)[0].evidence_for == ("hits fell",)
    assert portrait.runbook(Hit(doc_id="r", title="T", heading="H", score=0.5, reasons=("why",))).reasons == ("why",)


def plan(undo: dict[str, str] | None) -> Plan:
    step = PlannedStep(
        index=0,
        title="Move the label",
        action="langfuse.move_label",
        tier=Tier.R1,
        target="langfuse/prompt/chat-system",
        params={"version": "7"},
        before={"version": "8"},
        effect="Move it to 7.",
        undo=undo,
        verify=("time_to_first_token",),
        settle_s=60,
    )
    return Plan(
        plan_id="p-1",
        incident_id="Q1",
        service="chat",
        environment="prod",
        runbook_id="r",
        runbook_revision="x",
        title="Roll back",
        steps=(step,),
        policy_version="1",
        nonce="n",
        made_at=NOW,
        expires_at=NOW + timedelta(minutes=15),
    )


def test_a_plan_becomes_literal_lines() -> None:
    """The undo shows the parameters that would be sent; progress goes to its step."""
    line = portrait.plan(
        plan({"prompt": "chat-system", "version": "8"}),
        PlanState.RUNNING,
        may_approve=("prompt-owner",),
        progress={0: (StepState.VERIFYING, "sample 1 of 2")},
    )

    assert line.steps[0].undo == "langfuse.move_label prompt: chat-system, version: 8"
    assert (line.steps[0].state, line.steps[0].note) == (StepState.VERIFYING, "sample 1 of 2")
    assert (line.can_undo, line.tier, line.is_undo) == (True, Tier.R1, False)
    assert portrait.plan(plan(None), PlanState.PROPOSED, may_approve=()).can_undo is False
    assert [choice.title for choice in portrait.choices([plan(None)])] == ["Move it to 7."]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.466, "s", "466 ms"), (1.25, "s", "1.2 s"), (0.9999, "s", "1.0 s"), (45, "s", "45 s"), (720, "s", "12 min"),
        (0.0042, "s", "4.2 ms"), (86_400 * 3, "s", "3 d"), (0.034, "ratio", "3.4 %"), (0.4, "ratio", "40 %"),
        (1234.5, "tokens", "1,234 tokens"), (12.345, "1/s", "12.3/s"), (12.3, "usd/h", "12.30 USD/h"), (3, "", "3"),
        (None, "s", "unknown"), (float("nan"), "s", "unknown"), (float("inf"), "", "unknown"),
    ],
)  # fmt: skip
def test_numbers_have_units(value: float | None, unit: str, words: str) -> None:
    """A number is said as a person says it, and an absent one is unknown, never zero."""
    assert narrate.amount(value, unit) == words


def png_size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


STAGES = (
    StageBar(stage="queue $x$", now_s=0.06, baseline_s=0.03),
    StageBar(stage="prefill", now_s=0.67, baseline_s=0.43),
    StageBar(stage="retrieval", now_s=None, baseline_s=None),
)


def panel(title: str = "prefix $cache$ hit ratio", *points: float) -> SignalPanel:
    times = [NOW - timedelta(minutes=len(points) - 1 - number) for number in range(len(points))]
    return SignalPanel(
        title=title, unit="ratio", now=0.053, baseline=0.4, points=tuple(zip(times, points, strict=True))
    )


async def test_the_pictures_are_pngs_for_a_phone() -> None:
    """1,200 pixels wide; drawn at once, since incidents come together."""
    latency = LatencyPicture(service="chat", stages=STAGES)
    signals = SignalsPicture(
        service="chat",
        panels=(panel("hits", *[0.4] * 30, *[0.05] * 10), panel("misses", *[0.6] * 40)),
        since=NOW - timedelta(minutes=10),
        until=NOW,
        changes=(
            ChangeMark(at=NOW - timedelta(minutes=11), summary="prompt " * 40, is_culprit=True),
            ChangeMark(at=NOW - timedelta(days=1), summary="long ago"),
        ),
    )
    one, two, three = await asyncio.gather(draw(latency), draw(signals), draw(signals))

    assert one[:8] == two[:8] == b"\x89PNG\r\n\x1a\n"
    assert two == three
    assert png_size(one)[0] == png_size(two)[0] == 1200
    assert png_size(two)[1] > png_size(await draw(replace(signals, panels=signals.panels[:1])))[1]
    assert describe(latency) == "Latency of chat, baseline to now: queue $x$ 30 ms to 60 ms, prefill 430 ms to 670 ms"
    assert describe(signals) == (
        "Key signals of chat: hits 40 % → 5.3 %; misses 40 % → 5.3 %. The trouble began at 13:53 UTC."
    )


@pytest.mark.parametrize("stages", [(), STAGES[2:]], ids=["none", "unmeasured"])
async def test_a_picture_of_little_is_still_a_picture(stages: tuple[StageBar, ...]) -> None:
    """Nothing measured: no exception in the night."""
    picture = LatencyPicture(service="chat", stages=stages)

    assert png_size(await draw(picture))[0] == 1200
    assert "no stage was measured" in describe(picture)


@pytest.mark.parametrize(
    "panels",
    [
        (),
        (panel("gap"),),
        (replace(panel("odd", float("nan"), float("inf"), 0.0), baseline=float("nan")),),
        (panel("flat", *[0.0] * 9),),
    ],
    ids=["none", "no points", "no numbers", "zeros"],
)
async def test_odd_signals_make_a_picture(panels: tuple[SignalPanel, ...]) -> None:
    """No point, not a number, all zeros: the drawing does not care."""
    picture = SignalsPicture(service="chat", panels=panels, since=ONSET, changes=(ChangeMark(at=ONSET, summary="x"),))

    assert png_size(await draw(picture))[0] == 1200


async def test_the_culprit_is_marked_in_the_picture() -> None:
    """What is drawn of a diagnosis: its onset, its end, and the suspects with the culprit apart."""
    curve = Curve(
        signal="itl", words="inter-token latency", unit="s", now=0.018, baseline=0.016, points=[(ONSET, 0.016)]
    )
    picture = portrait.signals_picture(DIAGNOSIS, [curve])

    assert (picture.since, picture.until, picture.panels[0].title) == (ONSET, NOW, "inter-token latency")
    assert [(mark.summary, mark.is_culprit) for mark in picture.changes] == [
        ("change decoy", False),
        ("change culprit", True),
    ]


def impact_finding(now: float, *hurt: str) -> Finding:
    measures = [
        Measure(signal="failing_ratio", value=now, baseline=0.002, unit="ratio"),
        Measure(signal="tenants_seen", value=60.0),
        Measure(signal="burn_rate", value=now / 0.001),
    ]
    measures += [Measure(signal="failing_ratio", value=now, scope=(("tenant", name),)) for name in hurt]
    return Finding.bad("impact", "as below", *measures)


def test_who_is_hurt_is_one_sentence_with_names() -> None:
    """Shares, tenants, the budget; it is not told a second time among the evidence."""
    found = replace(DIAGNOSIS, findings=(*DIAGNOSIS.findings, impact_finding(0.041, "acme", "b", "c", "d")))

    assert who_is_hurt(found) == (
        "4.1 % of requests fail (normally 0.2 %), 4 of 60 tenants are hit, the error budget burns 41 times too fast. "
        "Hit: acme, b, c and 1 more. At this rate a month's budget lasts 18 h."
    )
    assert "as below" not in [line.summary for line in portrait.evidence(found)]


def test_slow_requests_alone_are_requests() -> None:
    """A share without its whole would be a riddle."""
    slow = Finding.bad("impact", "slow", Measure(signal="slow_ratio", value=0.18, baseline=0.046, unit="ratio"))

    assert who_is_hurt(replace(DIAGNOSIS, findings=(slow,))).startswith(
        "18 % of requests are slower than promised (normally 4.6 %)."
    )


def test_nobody_is_called_hurt_who_is_not() -> None:
    """A trouble that users feel but no counter shows is said so; without a measurement nothing is."""
    calm = impact_finding(0.002)

    assert who_is_hurt(replace(DIAGNOSIS, findings=(calm,))) == UNSEEN
    assert who_is_hurt(replace(DIAGNOSIS, findings=(calm,), user_impact=False)).startswith("Users notice nothing")
    assert who_is_hurt(DIAGNOSIS) == ""


def test_blind_spots_with_one_reason_are_one_line() -> None:
    """What most questions wait for comes first; many checks are counted."""
    why = "the service has no gpu selector"
    spots = [BlindSpot(check=f"gpu_{name}", why=why) for name in ("ecc", "xid", "pcie", "nvlink", "health")]
    lines = portrait.blind_spots(replace(DIAGNOSIS, blind_spots=(*DIAGNOSIS.blind_spots, *spots)))

    assert [line.sentence for line in lines] == [
        f"gpu ecc, gpu xid, gpu pcie and 2 more ({why})",
        "token cost (llm_app_cost_usd_total is not exported)",
    ]


def test_there_is_always_something_to_look_at() -> None:
    """The cause's own question; for an unknown cause what moved most; where nothing was answered, why not."""
    other = replace(DIAGNOSIS, causes=(RankedCause(cause="other", title="something", probability=0.6),))
    dead = replace(
        other,
        findings=(Finding.unknown("gpu", "no answer"), Finding.unknown("itl", "no answer")),
        blind_spots=(BlindSpot(check="gpu", why="no answer"), BlindSpot(check="itl", why="no answer")),
    )

    assert portrait.next_check(replace(DIAGNOSIS, next_check="the prompt")) == "the prompt"
    assert portrait.next_check(other).startswith("what moved most: prefix cache hit ratio")
    assert portrait.next_check(dead) == "no answer (2 open questions less)"


def test_what_is_bad_has_its_graph() -> None:
    """The address is asked for by our own signal's name; what is fine needs none."""
    asked: list[str] = []

    def graph(signal: str) -> str:
        asked.append(signal)
        return f"https://prometheus.example.com/graph?{signal}" if signal == "itl" else ""

    lines = portrait.evidence(DIAGNOSIS, graph)

    assert {line.summary: line.url for line in lines if line.url} == {
        "Tokens are slower.": "https://prometheus.example.com/graph?itl"
    }
    assert set(asked) == {"itl", "prefix_hit_ratio", "queue"}
