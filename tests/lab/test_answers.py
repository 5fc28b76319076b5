"""How answers get good or bad: by their prompt's text, by caps, by how strong a fault is, and when scores come in."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from lab.answers import USUAL, Answering, AnswerQuality, drawn, limit
from lab.fleet import hit_ratio
from lab.judge import Judge
from lab.prompt_store import PRODUCTION
from lab.prompt_texts import ACTING_ALONE, SHOWING_RECORDS, TURNING_AWAY, WITHOUT_FORM, chat_system
from lab.routes import ROUTES
from lab.scenarios.faults_quality import FAULTS
from lab.threats import Threats, acts_alone
from lab.verdicts import Answers, quality
from tests.lab.integration_readings import FaultyWorld, Growth
from tests.lab.played_worlds import LIVE_START, SmallWorld
from tests.lab.quality_readings import judged, refused, valid


def test_texts_decide_what_becomes_of_a_prompt() -> None:
    """Each bad text has its own fault and no other, and leaves the prefix cache alone; the good ones have none."""
    answering, threats = Answering(), Threats()

    def effects(text: str) -> tuple[bool, bool, bool, bool]:
        good = answering.to(text, needs_json=True)
        return good.valid < USUAL.valid, good.refusal > USUAL.refusal, acts_alone(text), bool(threats.leaking(text))

    bad = (WITHOUT_FORM, TURNING_AWAY, ACTING_ALONE, SHOWING_RECORDS)
    for place, texts in enumerate(bad):
        assert len(set(texts.values())) == len(texts)
        for text in texts.values():
            assert [each for each, holds in enumerate(effects(text)) if holds] == [place]
            assert hit_ratio(text) == pytest.approx(0.40, abs=0.03)
    assert not any(any(effects(chat_system(version))) for version in range(1, 8))


def test_a_repaired_version_heals() -> None:
    """The fault is in the text: a ninth version that asks for JSON again is as good as the seventh."""
    world = FaultyWorld(FAULTS["Q01"](1.0))
    world.begin()
    about = Answers(route=ROUTES[0], version=8, model="llama-3.1-8b-instruct", number=1)
    assert quality(world.stage, about).valid < 0.85
    repaired = world.prompts.get("chat-system", 8).prompt + "\n\nPut it into one JSON object."
    world.prompts.create("chat-system", repaired, at=world.fleet.now, created_by="bob", labels=[PRODUCTION])
    world.pass_time(timedelta(minutes=2))
    assert valid(Growth(world, timedelta(minutes=2)), prompt_version="9") > 0.97


def test_a_cap_cuts_and_shortens() -> None:
    """No cap that matters leaves all as it is; the lower it is, the shorter the mean and the more answers it cuts."""
    assert (limit(1024, 300).length, limit(1024, 300).cut) == (1.0, 0.0)
    caps = [limit(most, 300) for most in (800, 400, 208, 100)]
    assert [cap.length for cap in caps] == sorted((cap.length for cap in caps), reverse=True)
    assert [cap.cut for cap in caps] == sorted(cap.cut for cap in caps)
    sample = np.minimum(208, np.random.default_rng(1).lognormal(np.log(208) - 0.18, 0.6, 200_000))
    assert limit(208, 300).length * 300 == pytest.approx(float(sample.mean()), rel=0.02)
    assert limit(208, 300).cut == pytest.approx(float((sample == 208).mean()), abs=0.01)


def test_harm_adds_up_and_stays_a_share() -> None:
    """Two faults at once are worse than each; no share leaves 0 to 1, however strong."""
    bad = AnswerQuality(valid=0.7, judge=0.5, refusal=0.3, length=0.5)
    both = USUAL.moved(bad).moved(bad)
    assert (both.valid, both.judge, both.length) == pytest.approx((0.408, 0.14, 0.25))
    worst = USUAL.moved(bad, 9.0)
    assert (worst.valid, worst.judge, worst.refusal) == (0.0, 0.0, 1.0)
    assert sum(worst.outcomes.values()) == pytest.approx(1.0)
    assert drawn(np.random.default_rng(1), bad, 0.0) == USUAL


def test_scores_come_late_where_the_judge_lags() -> None:
    """Seven minutes after a prompt broke the judge still scores what was before; the schema check knows at once."""
    fault = FAULTS["Q02"](1.0)
    world = FaultyWorld(fault)
    late = SmallWorld("I01")
    for small, lag in ((world, timedelta(0)), (late, timedelta(minutes=7))):
        small.stage.judge.lag = lag
    late.fleet = type(late.fleet)(start=LIVE_START, peak=LIVE_START, stage=late.stage)
    late.fleet.step()
    assert late.total("llm_app_judge_score_count") > 0
    fault.draw(late.stage)
    fault.begin(late.stage, LIVE_START)
    fault.apply(late.stage, 1.0, LIVE_START)
    soon = Growth(late, timedelta(minutes=6))
    assert refused(soon, prompt_version="8") > 0.09
    assert not soon.of("llm_app_judge_score_count", prompt_version="8")
    assert judged(soon) == pytest.approx(0.86, abs=0.03)
    late.pass_time(timedelta(minutes=3))
    assert judged(Growth(late, timedelta(minutes=3)), prompt_version="8") < 0.82
    assert Judge().lag == timedelta(0)
