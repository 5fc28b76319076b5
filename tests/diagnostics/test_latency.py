"""The latency breakdown's arithmetic, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from diagnostics.latency import breakdown, frontend, split_decode, split_prefill
from diagnostics.look import CannotTellError, Compared, Look
from tests import synthetic
from tests.diagnosed import frame_of, recorded


def prefill_seconds(tokens: float, hit: float) -> float:
    return 0.030 + 0.00022 * tokens * (1 - hit)


def test_prefill_splits_into_its_reasons_and_they_sum_up() -> None:
    """Fewer cache hits explain a lost prefix cache; the parts add up to the whole change."""
    prefill = Compared(now=prefill_seconds(3000, 0.03), baseline=prefill_seconds(3000, 0.40))
    parts = split_prefill(prefill, Compared(now=3000, baseline=3000), Compared(now=0.03, baseline=0.40))
    by_name = {part.name: part.seconds for part in parts}
    assert by_name["longer prompts"] == 0
    assert by_name["fewer cache hits"] == pytest.approx(prefill.gain, rel=0.1)
    assert sum(by_name.values()) == pytest.approx(prefill.gain)


def test_longer_prompts_are_told_from_slower_compute() -> None:
    """Twice the tokens explain twice the time; the same tokens at half the speed explain none of it."""
    longer = split_prefill(
        Compared(now=prefill_seconds(6000, 0.4), baseline=prefill_seconds(3000, 0.4)),
        Compared(now=6000, baseline=3000),
        Compared(now=0.4, baseline=0.4),
    )
    slower = split_prefill(
        Compared(now=0.852, baseline=0.426), Compared(now=3000, baseline=3000), Compared(now=0.4, baseline=0.4)
    )
    assert max(longer, key=lambda part: part.seconds).name == "longer prompts"
    assert {part.name: part.seconds for part in slower}["slower compute"] == pytest.approx(0.426)


def test_decode_splits_into_longer_outputs_and_slower_tokens() -> None:
    """300 to 900 tokens at 16 ms are 9.6 s; 16 to 20 ms over 900 tokens are 3.6 s."""
    parts = split_decode(
        Compared(now=18.0, baseline=4.8), Compared(now=900, baseline=300), Compared(now=0.020, baseline=0.016)
    )
    assert {part.name: round(part.seconds, 3) for part in parts} == {"longer outputs": 9.6, "slower tokens": 3.6}


@pytest.mark.parametrize("missing", ["now", "baseline"])
def test_a_missing_number_gives_no_split(missing: str) -> None:
    """Half a comparison explains nothing."""
    half = Compared(**{"now": 1.0, "baseline": 1.0, missing: None})
    whole = Compared(now=1.0, baseline=1.0)
    assert split_prefill(half, whole, Compared(now=0.1, baseline=0.1)) == ()
    assert split_decode(whole, half, whole) == ()


def test_the_frontend_is_what_is_left_and_never_negative() -> None:
    """Noise may make queue and prefill sum to more than the time to first token."""
    left = frontend(
        Compared(now=0.46, baseline=0.47), Compared(now=0.02, baseline=0.02), Compared(now=0.45, baseline=0.43)
    )
    assert left.now == 0.0
    assert left.baseline == pytest.approx(0.02)


async def test_the_stages_add_up_to_the_request() -> None:
    """Means add: gateway to decode give the equations' 5.46 s, and the retained stages all have both numbers."""
    result = await breakdown(Look(synthetic.target(), recorded("none"), frame_of()))
    assert result.total.baseline == pytest.approx(5.46, rel=0.02)
    assert {stage.stage for stage in result.stages} == {
        "gateway",
        "guardrail",
        "retrieval",
        "frontend",
        "queue",
        "prefill",
        "decode",
    }
    assert all(stage.now_s is not None and stage.baseline_s is not None for stage in result.stages)


async def test_nothing_is_blamed_without_a_regression() -> None:
    """Stages of a healthy run wobble; below ten percent in all there is nothing to attribute."""
    result = await breakdown(Look(synthetic.target(), recorded("none"), frame_of()))
    assert (result.is_regression, result.first_token_reason, result.total_reason) == (False, None, None)


@pytest.mark.parametrize(
    ("scenario", "first_token", "whole"),
    [
        ("S04", "prefill", "decode"),
        ("S03", "queue", "queue"),
        ("S13", "frontend", None),
        ("S09", None, "decode"),
        ("I09", "guardrail", "guardrail"),
    ],
)
async def test_the_stage_that_carries_the_change_is_named(
    scenario: str, first_token: str | None, whole: str | None
) -> None:
    """Judged until the first token and over the whole request, since slow decoding would drown a slow prefill."""
    result = await breakdown(Look(synthetic.target(), recorded(scenario), frame_of()))
    assert result.first_token_reason == first_token
    if whole is not None:
        assert result.total_reason == whole


async def test_without_finished_requests_there_is_nothing_to_break_down() -> None:
    """An engine that is gone has no means; the reason is said."""
    with pytest.raises(CannotTellError, match="fewer than 30 requests finished"):
        await breakdown(Look(synthetic.target(), recorded("S14"), frame_of()))
