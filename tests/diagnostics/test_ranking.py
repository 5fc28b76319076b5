"""Suspects: time, scope and mechanism together, never time alone, and always room for "none"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.causes import knowledge
from diagnostics.changes.change import Change
from diagnostics.changes.diff import new_variable_at_start, short_diff
from diagnostics.changes.ranking import Scene, culprit, diff_of, rank_changes
from diagnostics.diagnosis import RankedCause
from diagnostics.findings import Measure
from diagnostics.onset import Onset
from tests.synthetic import ONSET

CAUSES = knowledge.load().causes
OLD = "You are a helpful assistant for the shop.\nAnswer from the passages.\n{{passages}}\n{{question}}"
GUILTY = Change(
    id="guilty",
    at=ONSET,
    kind="prompt",
    service="chat",
    summary="chat-system on version 8",
    before=OLD,
    after="It is {{now}}.\n" + OLD,
    scope={"prompt": ("chat-system",), "prompt_version": ("8",)},
    undo={"prompt": "chat-system", "label": "production", "version": "8", "previous_version": "7"},
)
DECOY = Change(
    id="decoy",
    at=ONSET - timedelta(minutes=6),
    kind="prompt",
    service="chat",
    summary="chat-summary on version 4",
    before="Summarise in five points.\n{{history}}",
    after="Summarise in four points.\n{{history}}",
    scope={"prompt": ("chat-summary",), "prompt_version": ("4",)},
)
CACHE_LOST = (
    RankedCause(cause="S04", title="", probability=0.85),
    RankedCause(cause="S02", title="", probability=0.05),
)


def scene(causes: Sequence[RankedCause] = CACHE_LOST, onset: datetime | None = ONSET, *measures: Measure) -> Scene:
    known = None
    if onset is not None:
        slack = timedelta(seconds=90)
        known = Onset(at=onset, earliest=onset - slack, latest=onset + slack, signal="ttft")
    return Scene(service="chat", onset=known, causes=causes, knowledge=CAUSES, measures=measures)


def test_the_guilty_prompt_leads_its_decoy() -> None:
    """A new variable part at the start of the prompt explains a lost prefix cache; one changed word does not."""
    first, second = rank_changes([DECOY, GUILTY], scene())
    assert (first.change.id, second.change.id) == ("guilty", "decoy")
    assert first.score > 3 * second.score
    assert any("{{now}}" in reason for reason in first.reasons)
    assert culprit((first, second), CACHE_LOST[0], CAUSES) == "guilty"


def test_the_diff_shows_what_changed() -> None:
    """Named by versions, with the new line in it."""
    [suspect] = rank_changes([GUILTY], scene())
    assert "--- chat-system version 7" in suspect.diff
    assert "+It is {{now}}." in suspect.diff


def test_a_rollouts_diff_names_its_revision() -> None:
    """Whoever reads the diff must know which side is running."""
    undo = {"deployment": "chat-vllm", "revision": "3", "to_revision": "2"}
    rollout = replace(GUILTY, kind="config", before="--max-num-seqs 256", after="--max-num-seqs 64", undo=undo)
    assert diff_of(rollout).splitlines()[:2] == ["--- chat-vllm before", "+++ chat-vllm revision 3"]


def test_a_change_after_the_onset_is_innocent() -> None:
    """It is not even among the suspects, whatever it changed."""
    late = replace(GUILTY, at=ONSET + timedelta(minutes=2))
    assert rank_changes([late], scene()) == ()


@given(minutes=st.floats(min_value=1.6, max_value=600), kind=st.sampled_from(["prompt", "engine", "infra", "secret"]))
def test_no_kind_of_change_is_guilty_from_the_future(minutes: float, kind: str) -> None:
    """Causes come before effects, for every kind and any delay beyond the onset's interval."""
    late = replace(GUILTY, at=ONSET + timedelta(minutes=minutes), kind=kind)
    suspects = rank_changes([late, DECOY], scene())
    assert "guilty" not in {suspect.change.id for suspect in suspects}


@given(
    st.lists(
        st.tuples(st.floats(min_value=0, max_value=300), st.sampled_from(["prompt", "engine", "config", "judge"])),
        max_size=8,
    )
)
def test_scores_always_leave_room_for_none(entries: list[tuple[float, str]]) -> None:
    """However many changes there are, that none of them did it stays possible."""
    changes = [
        replace(GUILTY, id=str(number), at=ONSET - timedelta(minutes=minutes), kind=kind)
        for number, (minutes, kind) in enumerate(entries)
    ]
    suspects = rank_changes(changes, scene())
    assert all(0 <= suspect.score < 0.8 for suspect in suspects)
    assert sum(suspect.score for suspect in suspects) < 1


def test_a_decoy_alone_is_not_blamed() -> None:
    """The last change before the trouble is no culprit just for being there."""
    suspects = rank_changes([DECOY], scene())
    assert culprit(suspects, CACHE_LOST[0], CAUSES) is None


def test_a_kind_that_cannot_do_it_is_not_blamed() -> None:
    """A judge's new prompt at the very minute of the onset slows no prefill."""
    judge = replace(GUILTY, kind="judge")
    [suspect] = rank_changes([judge], scene())
    assert suspect.score < 0.2
    assert culprit([suspect], CACHE_LOST[0], CAUSES) is None
    assert any("does not bring about" in reason for reason in suspect.reasons)


def test_hardware_has_no_culprit() -> None:
    """Under a throttled GPU even a perfectly timed prompt change stays free."""
    hot = (RankedCause(cause="G04", title="", probability=0.95),)
    suspects = rank_changes([GUILTY], scene(hot))
    assert culprit(suspects, hot[0], CAUSES) is None


def test_two_equal_suspects_are_not_decided() -> None:
    """Without a clear lead nobody is named."""
    twin = replace(GUILTY, id="twin")
    suspects = rank_changes([GUILTY, twin], scene())
    assert culprit(suspects, CACHE_LOST[0], CAUSES) is None


def test_a_version_that_nobody_uses_weighs_little() -> None:
    """The share of the requests that a prompt version carries bounds what it can do to the service."""

    def share(value: float) -> Measure:
        where = (("prompt_name", "chat-system"), ("prompt_version", "8"))
        return Measure(signal="prompt_version_share", value=value, unit="ratio", scope=where)

    [used] = rank_changes([GUILTY], scene(CACHE_LOST, ONSET, share(0.95)))
    [unused] = rank_changes([GUILTY], scene(CACHE_LOST, ONSET, share(0.01)))
    assert used.score > 3 * unused.score


def test_trouble_elsewhere_is_counter_evidence() -> None:
    """A rollout on two pods does not explain a third."""
    rollout = replace(GUILTY, kind="engine", scope={"pod": ("a", "b")}, before=None, after=None)
    slow = (RankedCause(cause="S09", title="", probability=0.9),)
    elsewhere = Measure(signal="itl", value=0.03, baseline=0.016, scope=(("pod", "c"),))
    there = Measure(signal="itl", value=0.03, baseline=0.016, scope=(("pod", "a"),))
    [away] = rank_changes([rollout], scene(slow, ONSET, elsewhere))
    [near] = rank_changes([rollout], scene(slow, ONSET, there))
    assert near.score > 2 * away.score
    assert any("the trouble is elsewhere" in reason for reason in away.reasons)


def test_an_unknown_onset_weakens_time() -> None:
    """Nobody knows when it began: the change stays a suspect, with less weight and the reason said."""
    [suspect] = rank_changes([GUILTY], scene(onset=None))
    [dated] = rank_changes([GUILTY], scene())
    assert 0 < suspect.score < dated.score
    assert any("not known" in reason for reason in suspect.reasons)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Hello.", "Now {{time}}. Hello.", "{{time}}"),
        ("Hi {{name}}.", "Hi {{name}}. Bye {{time}}.", None),
        ("Hello " * 100, "Hello " * 100 + "{{time}}", None),
        ("Hello.", "As of 2026-03-02 14:00. Hello.", "2026-03-02 14:00"),
        ("Hello.", "Hello there.", None),
        ("", "${user} asks", "${user}"),
    ],
)
def test_a_new_variable_at_the_start_is_found(before: str, after: str, expected: str | None) -> None:
    """Only what varies earlier than anything did before shortens the common prefix."""
    assert new_variable_at_start(before, after) == expected


def test_a_long_diff_is_cut_and_says_so() -> None:
    """A card has room for a glance, not for a rewrite."""
    diff = short_diff("\n".join("a" * 500 for _ in range(80)), "\n".join("b" * 500 for _ in range(80)))
    assert len(diff.splitlines()) == 25
    assert diff.endswith("more lines")
    assert max(len(line) for line in diff.splitlines()) <= 200


@pytest.mark.parametrize(("before", "after"), [(None, "a"), ("a", None), ("same", "same")])
def test_no_diff_without_two_texts(before: str | None, after: str | None) -> None:
    """Nothing to compare gives nothing to show."""
    assert short_diff(before, after) == ""
