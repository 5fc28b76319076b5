"""Changes that engines report of themselves, label moves from sightings, and one change that several sources tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.changes.labels import LabelSeen, change_id, newest_move, prompt_text
from diagnostics.changes.merge import distinct
from diagnostics.changes.ranking import Scene, rank_changes
from diagnostics.changes.self_report import NAME, SelfReport
from diagnostics.target import Target
from diagnostics.telemetry.model import Matrix, Query, TelemetryError

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(
    service="chat",
    selectors={"serving": {"namespace": "chat"}, "gpu": {"namespace": "chat"}, "application": {"service": "chat"}},
)
CONFIG = {"block_size": "16", "cache_dtype": "auto", "enable_prefix_caching": "True", "gpu_memory_utilization": "0.9"}
MINUTE = timedelta(minutes=1)

Series = tuple[str, Mapping[str, str], float, float]
"""Metric, labels, and from when to when it was there, in minutes before noon."""


class Exported:
    """Telemetry in which series are there for a while, each with the value 1."""

    def __init__(self, *series: Series, fails: bool = False) -> None:
        self.asked: list[Query] = []
        self._series = series
        self._fails = fails

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        self.asked.append(query)
        if self._fails:
            raise TelemetryError("connection refused")
        found: dict[tuple[str, ...], list[tuple[datetime, float]]] = {}
        at = start
        while at <= end:
            for metric, labels, since, until in self._series:
                if metric == query.metric and NOON - since * MINUTE <= at <= NOON - until * MINUTE:
                    key = tuple(labels.get(label, "") for label in query.by)
                    found.setdefault(key, []).append((at, 1.0))
            at += step
        return found

    async def now(self) -> datetime:
        return NOON

    async def vector(self, *_: Any) -> Any:
        raise AssertionError

    async def exported(self, metric: str, *_: Any) -> bool:
        if self._fails:
            raise TelemetryError("connection refused")
        return any(name == metric for name, *_ in self._series)


def cache(pod: str, since: float, until: float = 0, **labels: str) -> Series:
    return ("vllm:cache_config_info", {**CONFIG, "pod": pod, **labels}, since, until)


async def reported(*series: Series) -> list[Change]:
    return await SelfReport(Exported(*series)).changes(CHAT, SINCE, UNTIL)


async def test_an_engine_behind_another_prefix_reports_the_same() -> None:
    """Ray Serve renames vLLM's metrics; a configuration that nobody declared is found all the same."""
    labels = {**CONFIG, "pod": "b", "gpu_memory_utilization": "0.6"}
    sign: Series = ("ray_vllm_num_requests_running", {"pod": "a"}, 600, 0)
    old: Series = ("ray_vllm_cache_config_info", {**CONFIG, "pod": "a"}, 600, 33)
    new: Series = ("ray_vllm_cache_config_info", labels, 31, 0)
    [change] = await reported(sign, old, new)
    assert "gpu_memory_utilization 0.9 -> 0.6" in change.summary


async def test_an_engine_with_another_configuration_is_a_change() -> None:
    """New pods, other labels: since when to a quarter of a minute, what differs, and where."""
    [change] = await reported(
        cache("a", 600, 33),
        cache("b", 600, 31),
        cache("c", 32.3, gpu_memory_utilization="0.5"),
        cache("d", 30, gpu_memory_utilization="0.5"),
    )

    assert (change.kind, change.source) == ("config", NAME)
    assert timedelta(0) <= change.at - (NOON - 32.3 * MINUTE) <= timedelta(seconds=15)
    assert change.summary.endswith("gpu_memory_utilization 0.9 -> 0.5")
    assert change.scope == {"pod": ("c", "d")}
    assert "gpu_memory_utilization 0.9" in (change.before or "")


async def test_a_new_pod_with_the_same_configuration_is_none() -> None:
    """Restarts and more replicas; and a scrape that failed for a while."""
    assert await reported(cache("a", 600, 90), cache("b", 80), cache("c", 600, 300), cache("c", 200)) == []


async def test_what_was_there_all_along_is_none() -> None:
    """Two engines of different configurations are no change, and nothing was there before the telemetry began."""
    assert await reported(cache("a", 600), cache("b", 600, block_size="32")) == []
    assert await reported(cache("a", 100)) == []


async def test_a_canary_is_a_change() -> None:
    """The others go on as they were."""
    [change] = await reported(cache("a", 600), cache("canary", 20, enable_prefix_caching="False"))

    assert change.scope == {"pod": ("canary",)}
    assert change.summary.endswith("enable_prefix_caching True -> False")


async def test_other_models_and_drivers_are_changes() -> None:
    """The model that is served, the model that a provider answered with, and a node's driver."""
    running, answered = "vllm:num_requests_running", "gen_ai_client_operation_duration_seconds_count"
    driver = "DCGM_FI_DEV_GPU_TEMP"
    found = await reported(
        (running, {"pod": "a", "model_name": "llama-3"}, 600, 50),
        (running, {"pod": "a", "model_name": "llama-4"}, 49, 0),
        (answered, {"gen_ai_request_model": "gpt", "gen_ai_response_model": "gpt-05-13"}, 600, 41),
        (answered, {"gen_ai_request_model": "gpt", "gen_ai_response_model": "gpt-08-06"}, 40, 0),
        (driver, {"Hostname": "node-1", "DCGM_FI_DRIVER_VERSION": "535.1"}, 600, 31),
        (driver, {"Hostname": "node-1", "DCGM_FI_DRIVER_VERSION": "570.2"}, 30, 0),
        (driver, {"Hostname": "node-2", "DCGM_FI_DRIVER_VERSION": "535.1"}, 600, 0),
    )

    assert [(each.kind, dict(each.scope)) for each in found] == [
        ("model", {"pod": ("a",), "model": ("llama-4",)}),
        ("model", {"model": ("gpt-08-06",)}),
        ("infra", {"node": ("node-1",)}),
    ]


async def test_a_change_keeps_its_id_whenever_somebody_looks() -> None:
    """Else every minute's look would write it down anew."""
    telemetry = Exported(cache("a", 600, 33), cache("b", 32.3, block_size="32"))
    looks = [await SelfReport(telemetry).changes(CHAT, SINCE + d, UNTIL + d) for d in (0 * MINUTE, 1.37 * MINUTE)]

    assert looks[0] == looks[1]
    assert len(looks[0]) == 1


async def test_labels_that_never_rest_are_no_configuration() -> None:
    """Somebody writes the time into one; that would be a change at every scrape."""
    series = [cache("a", 300 - number, 294 - number, block_size=str(number)) for number in range(0, 200, 6)]

    assert await reported(*series) == []


async def test_telemetry_that_cannot_be_asked_is_a_blind_spot() -> None:
    """And a family that the service does not name is not asked for."""
    with pytest.raises(ChangeSourceError, match="connection refused"):
        await SelfReport(Exported(fails=True)).changes(CHAT, SINCE, UNTIL)
    assert await SelfReport(Exported(fails=True)).changes(Target(service="chat"), SINCE, UNTIL) == []


def seen(version: int, since: float, until: float | None = None) -> LabelSeen:
    last = None if until is None else NOON - until * MINUTE
    return LabelSeen(version=version, at=NOON - since * MINUTE, until=last)


def test_a_move_is_dated_by_the_last_sight_of_the_old_version() -> None:
    """Too late would make a cause look like a consequence; a hint of the store's own counts where it can be true."""
    move = newest_move([seen(7, 90, 11), seen(8, 10, 0)], 8)
    assert move is not None

    assert (move.previous, move.stretch) == (7, 1)
    assert move.at(None) == NOON - 11 * MINUTE
    assert move.at(NOON - 10.5 * MINUTE) == NOON - 10.5 * MINUTE
    assert move.at(NOON - 60 * MINUTE) == NOON - 11 * MINUTE
    assert move.at(NOON) == NOON - 11 * MINUTE


def test_sightings_of_the_old_kind_are_dated_as_before() -> None:
    """Rows that know only when a version was first seen."""
    move = newest_move([seen(7, 90), seen(8, 10)], 8)

    assert move is not None
    assert move.at(None) == NOON - 10 * MINUTE
    assert move.at(NOON - 60 * MINUTE) == NOON - 60 * MINUTE


def test_going_back_and_forth_makes_changes_of_their_own() -> None:
    """7, 8, 7, 8: the second time on 8 is another change than the first."""
    history = [seen(7, 90, 80), seen(8, 79, 60), seen(7, 59, 40), seen(8, 39, 0)]

    stretches = [newest_move(history[:count], history[count - 1].version) for count in (2, 3, 4)]

    assert [(m.version, m.previous, m.stretch) for m in stretches if m] == [(8, 7, 1), (7, 8, 2), (8, 7, 2)]
    assert change_id("prompts", "chat", 8, 1) == "prompts:chat:8"
    assert change_id("prompts", "chat", 8, 2) == "prompts:chat:8#2"


@pytest.mark.parametrize("history", [[], [seen(8, 90, 0)], [seen(8, 90, 50), seen(8, 40, 0)], [seen(7, 90, 0)]])
def test_without_another_version_before_there_is_no_move(history: list[LabelSeen]) -> None:
    """That it was there when we first looked says nothing."""
    assert newest_move(history, 8) is None


def test_messages_in_parts_read_as_text() -> None:
    """As Phoenix keeps them; a picture is named by its type."""
    content = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "x"}, "plain"]

    assert prompt_text([{"role": "user", "content": content}]) == "user: Look:\n[image]\nplain"


def change(change_id: str, source: str, minutes: float = 10, **more: Any) -> Change:
    told: dict[str, Any] = {"kind": "config", "service": "chat", "summary": "s", "scope": {"deployment": ("vllm",)}}
    return Change(**{"id": change_id, "source": source, "at": NOON - minutes * MINUTE, **told, **more})


def ids(*answers: Sequence[Change]) -> list[str]:
    return [each.id for each in distinct(answers)]


def test_one_deploy_that_three_tell_of_is_one_suspect() -> None:
    """The one with an undo and a difference stays, and learns the author and the link from the others."""
    sync = change("sync", "argo", 12, author="alice", url="https://argo")
    rollout = change("rollout", "prod", 10, kind="engine", before="a", after="b", undo={"revision": "2"})
    note = change("note", "ci", 9, kind="engine", scope={"deployment": ("vllm",), "pod": ("x",)})

    [found] = distinct([[sync], [rollout], [note]])

    assert (found.id, found.author, found.url) == ("rollout", "alice", "https://argo")
    assert found.scope == {"deployment": ("vllm",), "pod": ("x",)}


def test_different_changes_stay_apart() -> None:
    """Another object, another time, another service, another kind, another text, or one that merely suffers."""
    one = change("one", "prod", 10)

    assert ids([one], [change("other", "ci", 10, scope={"deployment": ("gateway",)})]) == ["one", "other"]
    assert ids([one], [change("other", "ci", 20)]) == ["other", "one"]
    assert ids([one], [change("other", "ci", 10, service="search")]) == ["one", "other"]
    assert ids([one], [change("other", "ci", 10, kind="flag")]) == ["one", "other"]
    assert ids([one], [change("other", "prod events", 10, kind="infra", is_symptom=True)]) == ["one", "other"]
    prompts = [change(text, text, kind="prompt", scope={"prompt": ("system",)}, after=text) for text in "ab"]
    assert ids(*([each] for each in prompts)) == ["a", "b"]


def test_one_source_is_never_doubted_in_itself() -> None:
    """It knows that two of its changes are two; a recorded case is one source, whatever stands in it."""
    assert ids([change("a", "argo", 10), change("b", "prod", 10), change("c", "prod", 10)]) == ["a", "b", "c"]


def test_the_first_answer_is_preferred_and_the_order_is_times() -> None:
    """Live sources come before the journal, whose texts may be masked."""
    live, kept = change("x", "prod", after="words"), change("x", "prod", after="boxes")

    assert [each.after for each in distinct([[live], [kept]])] == ["words"]
    assert ids([change("late", "a", 1, kind="flag")], [change("early", "b", 99)]) == ["early", "late"]


def test_what_an_engine_reports_is_told_unless_somebody_declared_it() -> None:
    """New pods load their weights for a while before they report; a gateway's rollout explains no engine."""
    report = change("report", NAME, 10, scope={"pod": ("x",)})

    assert ids([report], [change("rollout", "prod", 40)]) == ["rollout"]
    assert ids([report], [change("rollout", "prod", 60)]) == ["rollout", "report"]
    assert ids([report], [change("rollout", "prod", 5)]) == ["report", "rollout"]
    assert ids([report], [change("rollout", "prod", 20, kind="gateway")]) == ["rollout", "report"]
    assert ids([change("driver", NAME, 10, kind="infra")], [change("rollout", "prod", 20)]) == ["rollout", "driver"]


def test_a_symptom_is_never_a_suspect() -> None:
    """A crash loop right at the onset would lead every ranking."""
    scene = Scene(service="chat", onset=None, causes=(), knowledge={}, measures=())
    told = [change("deed", "prod"), change("loop", "prod events", kind="infra", is_symptom=True)]

    assert [suspect.change.id for suspect in rank_changes(told, scene)] == ["deed"]
