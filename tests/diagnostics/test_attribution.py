"""Which cells carry a change, with rate and mix kept apart, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from diagnostics.attribution import Cell, along, effects, longer_prompts, observed, standing_apart
from diagnostics.checks import CHECKS
from diagnostics.findings import Finding
from diagnostics.look import Look
from diagnostics.minutes import difference, error_of_change, minutes
from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests import synthetic
from tests.application_signals import Series, born, counter, has, of_service, text, values
from tests.diagnosed import frame_of, recorded

TTFT = "vllm:time_to_first_token_seconds"


def cell(count_now: float, mean_now: float, count_then: float, mean_then: float) -> Cell:
    return Cell(
        count_now=count_now,
        sum_now=count_now * mean_now,
        count_then=count_then,
        sum_then=count_then * mean_then,
    )


def serving(*series: Series) -> Recorded:
    return load_openmetrics(text(series, selector={"namespace": "chat"}))


def latencies(
    before: float, since: float, rps: float = 6.0, rps_since: float | None = None, **labels: str
) -> list[Series]:
    later = rps if rps_since is None else rps_since
    return [
        counter(f"{TTFT}_sum", rps * before, later * since, **labels),
        counter(f"{TTFT}_count", rps, later, **labels),
    ]


async def first_token(*series: Series) -> Finding:
    return await CHECKS["time_to_first_token"](synthetic.target(), serving(*series), frame_of())


def test_rate_and_mix_are_kept_apart_and_add_up() -> None:
    """Weights .7/.3 to .4/.6, means 1/3 to 1.2/3: of 0.68 s in all, 0.11 s is slower and 0.57 s moved."""
    found = effects({"a": cell(400, 1.2, 700, 1.0), "b": cell(600, 3.0, 300, 3.0)})
    assert found is not None
    assert found.rate == pytest.approx(0.11)
    assert found.mix == pytest.approx(0.57)
    assert found.is_mix


@pytest.mark.parametrize("gone", [True, False])
def test_cells_that_come_or_go_still_add_up(*, gone: bool) -> None:
    """A pod that was replaced has one window only; the two effects are still the whole change."""
    first = cell(0, 0, 500, 1.0) if gone else cell(500, 2.0, 0, 0)
    cells = {"a": first, "b": cell(500, 1.5, 500, 1.0)}
    whole = sum(cells.values(), Cell())
    found = effects(cells)
    assert found is not None
    change = whole.sum_now / whole.count_now - whole.sum_then / whole.count_then
    assert found.rate + found.mix == pytest.approx(change)


def test_an_empty_window_has_no_effects() -> None:
    """Without a baseline nothing changed that anybody could take apart."""
    assert effects({"a": cell(100, 1.0, 0, 0)}) is None


def test_the_slow_cell_stands_apart_and_carries_the_change() -> None:
    """One of four pods takes 1.6 times as long; its peers are no part of it."""
    cells = {name: cell(1800, 0.47, 6000, 0.46) for name in ("a", "b", "c")} | {"d": cell(1800, 0.75, 6000, 0.46)}
    [found] = standing_apart(cells)
    assert found.value == "d"
    assert found.lift == pytest.approx((0.75 / 0.46) / (0.47 / 0.46))
    assert found.carried > 0.85


def test_nobody_stands_apart_when_all_are_slow() -> None:
    """A shared cause lifts no cell above the others."""
    assert standing_apart({name: cell(1800, 0.9, 6000, 0.45) for name in "abcd"}) == []


def test_a_thin_cell_proves_nothing() -> None:
    """Twelve requests may all be slow by chance; below thirty a cell is not tested."""
    cells = {name: cell(1800, 0.46, 6000, 0.46) for name in "abc"} | {"d": cell(12, 3.0, 40, 0.46)}
    assert standing_apart(cells) == []


def test_a_slow_newcomer_is_held_against_everybodys_past() -> None:
    """A new revision has no baseline of its own."""
    cells = {"old": cell(900, 0.46, 12000, 0.46), "new": cell(900, 0.92, 0, 0)}
    [found] = standing_apart(cells)
    assert found.value == "new"
    assert found.mean.baseline == pytest.approx(0.46)


async def test_every_dimension_comes_from_the_same_answers() -> None:
    """Pods, nodes and models are the same observations, summed up along one label each."""
    cells = await observed(Look(synthetic.target(), recorded("none"), frame_of()), TTFT)
    by_pod, by_node = along(cells, lambda place: place.pod), along(cells, lambda place: place.node)
    assert (len(by_pod), len(by_node)) == (4, 2)
    assert sum(cell.count_now for cell in by_pod.values()) == pytest.approx(
        sum(cell.count_now for cell in by_node.values())
    )


async def test_places_are_named_where_they_stand_apart() -> None:
    """The slow pod's node and rack are told as well; the others are in order, so they are not."""
    slow = latencies(0.46, 0.9, pod="a", node="n1", rack="r1", revision="x", model_name="m")
    fine = [one for pod in "bcd" for one in latencies(0.46, 0.46, pod=pod, node="n2", rack="r2", revision="x")]
    finding = await first_token(*slow, *fine)
    assert values(finding, "pod") == {"a"}
    assert values(finding, "node") == {"n1"}
    assert values(finding, "rack") == {"r1"}
    assert values(finding, "revision") == set()


async def test_traffic_that_moves_is_no_slowdown() -> None:
    """The big model was always slow; now it gets most of the traffic. The finding says that nothing got slower."""
    small = latencies(0.3, 0.3, 20, 5, pod="a", model_name="small")
    big = latencies(1.5, 1.5, 5, 20, pod="b", model_name="big")
    finding = await first_token(*small, *big)
    assert "traffic that moved between models" in finding.summary
    assert values(finding, "model") == set()


async def test_longer_prompts_have_an_owner() -> None:
    """One tenant of three sends three times the tokens per request; where nobody tells tenants, nobody is named."""

    def tenant(name: str, tokens: float, since: float) -> list[Series]:
        return [
            counter("llm_app_tokens_total", 5 * tokens, 5 * since, tenant=name, direction="input"),
            counter("llm_app_requests_total", 5, 5, tenant=name, status="ok"),
        ]

    series = [*tenant("t1", 3000, 3000), *tenant("t2", 3000, 9000), *tenant("t3", 2500, 2500)]
    look = Look(synthetic.target(), load_openmetrics(text(series)), frame_of())
    assert [(label, one.value) for label, one in await longer_prompts(look)] == [("tenant", "t2")]
    assert await longer_prompts(Look(synthetic.target(), recorded("S02"), frame_of())) == []


async def test_a_new_revision_is_recognised_by_its_pods() -> None:
    """Without a revision label the ReplicaSet's hash in kube_pod_owner or the pod's name tells."""
    old = latencies(0.46, 0.46, pod="chat-vllm-7f9c4d5b6-abcde")
    new = [
        born(f"{TTFT}_sum", 6 * 0.9, pod="chat-vllm-5d8f7c6b9-fghij"),
        born(f"{TTFT}_count", 6, pod="chat-vllm-5d8f7c6b9-fghij"),
    ]
    owners = [
        Series("kube_pod_info", (("pod", "chat-vllm-7f9c4d5b6-abcde"), ("node", "n1")), 1, 1, is_gauge=True),
        Series("kube_pod_info", (("pod", "chat-vllm-5d8f7c6b9-fghij"), ("node", "n2")), None, 1, is_gauge=True),
    ]
    finding = await first_token(*old, *new, *owners)
    assert values(finding, "revision") == {"5d8f7c6b9"}


async def test_the_error_of_a_change_comes_from_its_minutes() -> None:
    """A healthy run's minutes scatter by a few percent, and so little is the error; a short window has none."""
    look = Look(synthetic.target(), recorded("none"), frame_of())
    found = await minutes(look, {"ttft": TTFT})
    error = error_of_change(found["ttft"], look)
    assert error is not None
    assert 0 < error < 0.05 * 0.466
    assert error_of_change(found["ttft"][-2:], look) is None


def test_what_is_left_needs_every_part() -> None:
    """A minute in which one part is unknown has no rest."""
    one, two = synthetic.ONSET, synthetic.END
    assert difference([(one, 5.0), (two, 6.0)], [(one, 1.0), (two, 1.0)], [(one, 3.0)]) == [(one, 1.0)]


ITL = "vllm:inter_token_latency_seconds"


def tokens(pod: str, revision: str, before: float | None, since: float) -> list[Series]:
    """A pod's time between tokens at 1,800 tokens a second, with the gauge that says that it is there."""
    labels = (("pod", pod), ("revision", revision))
    old = before is not None
    return [
        Series(f"{ITL}_sum", labels, 1800 * before if before is not None else None, 1800 * since),
        Series(f"{ITL}_count", labels, 1800 if old else None, 1800),
        Series("vllm:num_requests_running", labels, 30 if old else None, 30, is_gauge=True),
    ]


@pytest.mark.parametrize(("new", "follows"), [(0.030, 1.0), (0.017, 0.0)])
async def test_slow_tokens_of_a_new_revision_are_told(new: float, follows: float) -> None:
    """Old and new pods in the same minute: the strongest sign that the rollout did it."""
    series = [*tokens("a", "v1", 0.016, 0.016), *tokens("b", "v2", None, new)]
    finding = await CHECKS["inter_token_latency"](synthetic.target(), serving(*series), frame_of())
    assert of_service(finding, "itl_follows_revision").value == follows


async def test_without_revisions_nothing_follows_one() -> None:
    """Labels that nobody sets are unknown, not a fleet without a rollout."""
    finding = await CHECKS["inter_token_latency"](synthetic.target(), recorded("S09"), frame_of())
    assert not has(finding, "itl_follows_revision")
