"""Checks on what the service answers: quality, whose answers got worse, the judge, one model's lengths."""

from __future__ import annotations

import pytest

from diagnostics.findings import Status
from tests.application_signals import Series, answer, born, counter, gauge, gone, has, of_service, values

RESPONSES, FORMATS = "llm_app_responses_total", "llm_app_format_checks_total"
FEEDBACK, JUDGE = "llm_app_feedback_total", "llm_app_judge_score"


def outcomes(rps: float, since: dict[str, float] | None = None, **labels: str) -> list[Series]:
    """Responses of which, before, 1.5 % are refusals, 0.2 % empty and 3 % truncated."""
    before = {"refusal": 0.015, "empty": 0.002, "truncated": 0.03}
    now = {**before, **(since or {})}
    before["ok"], now["ok"] = 1 - sum(before.values()), 1 - sum(now.values())
    return [counter(RESPONSES, rps * before[kind], rps * now[kind], outcome=kind, **labels) for kind in before]


def formats(rps: float, *, valid: float = 0.992, since: float | None = None, **labels: str) -> list[Series]:
    now = valid if since is None else since
    return [
        counter(FORMATS, rps * valid, rps * now, result="valid", **labels),
        counter(FORMATS, rps * (1 - valid), rps * (1 - now), result="invalid", **labels),
    ]


def votes(rps: float, *, since: float = 0.04, **labels: str) -> list[Series]:
    return [
        counter(FEEDBACK, rps * 0.04, rps * since, rating="down", **labels),
        counter(FEEDBACK, rps * 0.96, rps * (1 - since), rating="up", **labels),
    ]


def scores(rps: float, *, mean: float = 0.86, since: float | None = None, **labels: str) -> list[Series]:
    now = mean if since is None else since
    return [
        counter(f"{JUDGE}_sum", rps * mean, rps * now, **labels),
        counter(f"{JUDGE}_count", rps, rps, **labels),
    ]


def healthy() -> list[Series]:
    return [
        *outcomes(20, prompt_version="7", model="m", pod="a"),
        *formats(20, prompt_version="7", model="m", pod="a"),
        *votes(2, prompt_version="7", model="m", pod="a"),
        *scores(2, prompt_version="7", model="m", pod="a"),
    ]


async def test_good_answers_are_ok() -> None:
    """Every aspect is measured, none is complained about, and no part stands out."""
    finding = await answer("output_quality", healthy())
    assert finding.status is Status.OK
    assert {m.signal for m in finding.measures} == {
        "refusal_ratio",
        "empty_answer_ratio",
        "length_finish_ratio",
        "format_valid_ratio",
        "thumbs_down_ratio",
        "judge_score",
    }
    apart = await answer("answers_apart", healthy())
    assert (apart.status, of_service(apart, "quality_new_version").value) == (Status.OK, 0.0)


@pytest.mark.parametrize(
    ("series", "signal", "words"),
    [
        (outcomes(20, {"refusal": 0.17}), "refusal_ratio", "Refusals: 17 %"),
        (outcomes(20, {"empty": 0.02}), "empty_answer_ratio", "Empty answers: 2.0 %"),
        (outcomes(20, {"truncated": 0.38}), "length_finish_ratio", "Truncated answers: 38 %"),
        (formats(20, since=0.71), "format_valid_ratio", "Valid formats: 71 %"),
        (votes(4, since=0.12), "thumbs_down_ratio", "Thumbs down: 12 %"),
        (scores(2, since=0.74), "judge_score", "Judge's score: 0.74"),
    ],
)
async def test_each_aspect_is_bad_by_itself(series: list[Series], signal: str, words: str) -> None:
    """One aspect is enough, and the others that nobody exports are not made up."""
    finding = await answer("output_quality", series)
    assert finding.status is Status.BAD
    assert words in finding.summary
    assert of_service(finding, signal).baseline is not None


async def test_few_events_are_unknown_and_not_zero() -> None:
    """Forty answers in five minutes say nothing about a share; the reason counts them."""
    finding = await answer("output_quality", outcomes(40 / 300, {"refusal": 0.5}))
    assert finding.status is Status.UNKNOWN
    assert "refusals (of 40)" in (finding.reason or "")


async def test_an_aspect_with_few_events_is_left_out() -> None:
    """Plenty of answers and three votes: the votes are not measured, and the summary says so."""
    finding = await answer("output_quality", [*outcomes(20), *votes(0.01, since=1.0)])
    assert finding.status is Status.OK
    assert not has(finding, "thumbs_down_ratio")
    assert "Too few to judge: thumbs down (of 3)." in finding.summary


async def test_what_is_not_exported_is_unknown() -> None:
    """Tokens alone say nothing of quality; the reason names the metrics."""
    finding = await answer("output_quality", [counter("llm_app_tokens_total", 5.0)])
    assert finding.status is Status.UNKNOWN
    assert RESPONSES in (finding.reason or "")


async def test_a_rise_within_chance_is_no_complaint() -> None:
    """Valid formats two points down among 250 answers happen by chance."""
    finding = await answer("output_quality", formats(250 / 300, valid=0.98, since=0.96))
    assert finding.status is Status.OK


async def test_a_new_version_that_breaks_the_format_is_named() -> None:
    """Version 8 serves half of the traffic and breaks the format; version 7, in the same minutes, does not."""
    series = [
        *formats(10, prompt_version="7", model="m"),
        born(FORMATS, 10 * 0.71, prompt_version="8", model="m", result="valid"),
        born(FORMATS, 10 * 0.29, prompt_version="8", model="m", result="invalid"),
    ]
    finding = await answer("answers_apart", series)
    assert finding.status is Status.BAD
    assert of_service(finding, "quality_new_version").value == 1.0
    assert values(finding, "prompt_version", "format_valid_ratio") == {"8"}


async def test_a_version_that_took_everything_over_is_new() -> None:
    """No old version is left to compare with: it is held against the service's past."""
    series = [
        gone(FORMATS, 20 * 0.99, prompt_version="7", result="valid"),
        gone(FORMATS, 20 * 0.01, prompt_version="7", result="invalid"),
        born(FORMATS, 20 * 0.70, prompt_version="8", result="valid"),
        born(FORMATS, 20 * 0.30, prompt_version="8", result="invalid"),
    ]
    finding = await answer("answers_apart", series)
    assert of_service(finding, "quality_new_version").value == 1.0
    assert values(finding, "prompt_version") == {"8"}


async def test_an_old_version_that_gets_worse_is_not_the_prompt() -> None:
    """What changed answers of a version that did not change lies elsewhere."""
    finding = await answer("answers_apart", formats(20, since=0.8, prompt_version="7", model="m"))
    assert finding.status is Status.BAD
    assert of_service(finding, "quality_new_version").value == 0.0
    assert not has(finding, "quality_some_models")


async def test_one_model_of_two_is_named() -> None:
    """The provider's model refuses more, our own does not: the model, though the version is the same."""
    series = [
        *outcomes(10, {"refusal": 0.06}, prompt_version="7", model="gpt-x"),
        *outcomes(10, prompt_version="7", model="llama"),
    ]
    finding = await answer("answers_apart", series)
    assert of_service(finding, "quality_some_models").value == 1.0
    assert values(finding, "model") == {"gpt-x"}


async def test_all_models_alike_are_not_the_model() -> None:
    """Both get worse by as much: what they share is to blame."""
    series = [outcomes(10, {"refusal": 0.08}, prompt_version="7", model=name) for name in ("gpt-x", "llama")]
    finding = await answer("answers_apart", [one for many in series for one in many])
    assert of_service(finding, "quality_some_models").value == 0.0


def running(pod: str, revision: str) -> Series:
    return gauge("vllm:num_requests_running", 30.0, 30.0, namespace="chat", pod=pod, revision=revision)


@pytest.mark.parametrize(("revision", "follows"), [("r2", 1.0), ("r1", 0.0)])
async def test_bad_pods_with_a_revision_of_their_own(revision: str, follows: float) -> None:
    """Two pods of four answer worse: a mixed rollout when only they run the revision, a sick GPU otherwise."""
    series = [
        *(one for pod in ("a", "b") for one in formats(5, since=0.9, pod=pod)),
        *(one for pod in ("c", "d") for one in formats(5, pod=pod)),
        *(running(pod, revision if pod in {"a", "b"} else "r1") for pod in ("a", "b", "c", "d")),
    ]
    finding = await answer("answers_apart", series)
    assert of_service(finding, "quality_some_pods").value == 1.0
    assert of_service(finding, "quality_follows_revision").value == follows
    assert values(finding, "pod", "format_valid_ratio") == {"a", "b"}


async def test_one_bad_pod_spreads_the_formats() -> None:
    """The worst pod's share of invalid formats over the middle pod's, beyond chance."""
    series = [*formats(5, since=0.85, pod="a"), *(one for pod in ("b", "c", "d") for one in formats(5, pod=pod))]
    finding = await answer("answers_apart", series)
    assert (of_service(finding, "format_spread").value or 0) > 10
    assert not has(finding, "quality_follows_revision")


async def test_pods_that_differ_by_chance_are_alike() -> None:
    """Twelve invalid formats against eight of 1,500 are no spread."""
    series = [*formats(5, valid=0.992, pod="a"), *(one for pod in "bcd" for one in formats(5, valid=0.9945, pod=pod))]
    assert of_service(await answer("answers_apart", series), "format_spread").value == 1.0


async def test_cut_off_answers_name_their_route() -> None:
    """Responses carry no route, but requests say which routes a prompt serves."""
    series = [
        *outcomes(10, {"truncated": 0.4}, prompt_name="summary", prompt_version="3", model="m"),
        *outcomes(10, prompt_name="chat", prompt_version="7", model="m"),
        counter("llm_app_requests_total", 10, route="/summary", prompt_name="summary", prompt_version="3", status="ok"),
        counter("llm_app_requests_total", 10, route="/chat", prompt_name="chat", prompt_version="7", status="ok"),
    ]
    assert values(await answer("answers_apart", series), "route") == {"/summary"}


async def test_labels_that_are_missing_accuse_nobody() -> None:
    """Without versions, models and pods there is nobody to name, and no signal that says "nobody else"."""
    finding = await answer("answers_apart", formats(20, since=0.7))
    assert not [measure for measure in finding.measures if measure.scope]
    assert not has(finding, "quality_new_version")


async def test_a_new_judge_is_a_witness_of_itself() -> None:
    """Scores fell with a new judge while nothing else moved: the judge, and no complaint about the answers."""
    series = [
        *outcomes(20, prompt_version="7"),
        gone(f"{JUDGE}_sum", 2 * 0.86, evaluator_version="4"),
        gone(f"{JUDGE}_count", 2.0, evaluator_version="4"),
        born(f"{JUDGE}_sum", 2 * 0.74, evaluator_version="5"),
        born(f"{JUDGE}_count", 2.0, evaluator_version="5"),
    ]
    judge, quality = await answer("evaluator", series), await answer("output_quality", series)
    assert judge.status is Status.BAD
    assert of_service(judge, "new_evaluator").value == 1.0
    assert values(judge, "evaluator") == {"5"}
    assert quality.status is Status.OK
    assert "the judge itself is new" in quality.summary


async def test_the_same_judge_is_no_excuse() -> None:
    """Scores fell with the judge that there was: the answers are worse."""
    series = scores(2, since=0.74, evaluator_version="4", prompt_version="7")
    assert (await answer("evaluator", series)).status is Status.OK
    assert (await answer("output_quality", series)).status is Status.BAD


async def test_a_judge_without_a_version_cannot_be_told() -> None:
    """The label is missing: unknown, with its name."""
    finding = await answer("evaluator", scores(2, since=0.74))
    assert finding.status is Status.UNKNOWN
    assert "evaluator_version" in (finding.reason or "")


def lengths(model: str, before: float, since: float) -> list[Series]:
    return [
        *outcomes(10, prompt_version="7", model=model),
        counter("llm_app_tokens_total", 10 * before, 10 * since, model=model, direction="output"),
        counter("llm_app_tokens_total", 30000.0, model=model, direction="input"),
    ]


@pytest.mark.parametrize("since", [185.0, 420.0])
async def test_a_model_whose_answers_changed_their_length(since: float) -> None:
    """Shorter or longer, while the other model's stay: that model is named."""
    finding = await answer("model_answers", [*lengths("gpt-x", 300, since), *lengths("llama", 300, 300)])
    assert finding.status is Status.BAD
    assert values(finding, "model") == {"gpt-x"}
    assert (of_service(finding, "model_length_shift").value or 0) > 0.3


async def test_longer_answers_of_all_models_are_no_ones_model() -> None:
    """Longer questions make longer answers everywhere."""
    finding = await answer("model_answers", [*lengths("gpt-x", 300, 420), *lengths("llama", 200, 280)])
    assert finding.status is Status.OK


async def test_one_model_alone_cannot_stand_apart() -> None:
    """Nothing to compare with: no signal, and no complaint."""
    finding = await answer("model_answers", lengths("llama", 300, 420))
    assert not has(finding, "model_length_shift")
