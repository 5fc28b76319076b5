"""Keeping a data source out of a search index, against a server that answers like OpenSearch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import OpenSearchAccess, build_actions
from runbooks.engine.actions.opensearch import authorization
from runbooks.engine.plan import fresh, plan, undo_plan
from runbooks.engine.values import Action, ActionError, Happened, OutcomeUnknownError, PartlyDoneError, Tier
from tests.runbooks.opensearch_server import KEY, OpenSearchServer
from tests.runbooks.test_plan import CONTEXT, NOW, runbook

pytestmark = pytest.mark.integration  # real HTTP

STEP: dict[str, Any] = {"store": "search", "service": "chat", "collection": "docs-v2", "source": "wiki"}
BOOK = (
    "action: opensearch.quarantine\nwith: {store: search, collection: docs-v2, source: wiki}\nundo: previous\n"
    "verify: [injection]"
)


@pytest.fixture
async def store() -> AsyncIterator[OpenSearchServer]:
    """Three documents come from a wiki (1, 2, 3) and one from tickets (4)."""
    of = ("wiki", "wiki", "wiki", "tickets")
    documents = [{"id": number, "metadata": {"source": source}} for number, source in enumerate(of, start=1)]
    server = OpenSearchServer(indices={"docs-v2": documents, "mail": []})
    async with server.running():
        yield server


def built(server: OpenSearchServer, **more: Any) -> Action:
    known: dict[str, Any] = {
        "services": ("chat",),
        "collections": ("docs-.*",),
        "source_field": "metadata.source",
        "quarantine_key": "quarantined",
        "key": KEY,
        "timeout_s": 1.5,
        "task_s": 5.0,
    }
    access = OpenSearchAccess(url=server.url, **{**known, **more})
    return build_actions(indices={"search": access})["opensearch.quarantine"]


def params_of(action: Action, **more: Any) -> Any:
    return action.params.model_validate({**STEP, **more})


async def test_a_source_is_kept_out_and_let_in_again(store: OpenSearchServer) -> None:
    """Its documents alone; as a task that is waited for."""
    actions, store.looks = {"opensearch.quarantine": built(store)}, 2
    action = actions["opensearch.quarantine"]
    made = await plan(runbook(BOOK), CONTEXT, actions)
    [step] = made.steps
    await action.act(params_of(action), step.before, "t-1")

    assert step.effect == (
        "In the vector store search, 3 points of the source wiki in docs-v2 are marked with quarantined and no longer "
        "retrieved."
    )
    assert (step.tier, step.target) == (Tier.R1, "opensearch/source/search/docs-v2/wiki")
    assert store.marked("docs-v2") == [1, 2, 3]
    assert await action.happened(params_of(action), step.before, "t-1") is Happened.YES
    back = (await undo_plan(made, [0], actions, now=NOW, policy_version="p")).steps[0]
    await action.act(action.params.model_validate(back.params), back.before, "t-2")
    assert store.marked("docs-v2") == []


@pytest.mark.parametrize(
    ("more", "access", "words"),
    [
        ({"collection": "mail"}, {}, "does not allow mail"),
        ({"collection": "docs-v9"}, {}, "nothing was changed"),  # counting is a POST that the store refuses
        ({"service": "search"}, {}, "is read by chat and not by search"),
        ({"store": "other"}, {}, r"no vector_store other \(it has: search\)"),
        ({}, {"key": "watchkeeper:wrong"}, "401"),
        ({}, {"source_field": None, "quarantine_key": None}, "`source_field` and `quarantine_key`"),
    ],
)
async def test_what_is_not_allowed_is_not_planned(
    store: OpenSearchServer, more: dict[str, str], access: dict[str, Any], words: str
) -> None:
    """Other indices, other services, a wrong credential, an entry that does not say how."""
    action = built(store, **access)
    with pytest.raises(ActionError, match=words):
        await action.read(params_of(action, **more))
    assert store.writes() == []


async def test_a_count_that_is_not_whole_is_none(store: OpenSearchServer) -> None:
    """A shard that does not answer would make the effect a wrong number."""
    store.failed_shards = 1
    action = built(store)
    with pytest.raises(ActionError, match="could not count all"):
        await action.read(params_of(action))


async def test_a_world_that_moved_stops_it(store: OpenSearchServer) -> None:
    """Somebody put documents in between the plan and its start."""
    action = built(store)
    made = await plan(runbook(BOOK), CONTEXT, {action.name: action})
    store.indices["docs-v2"].append({"id": 5, "metadata": {"source": "wiki"}})

    assert await fresh(made, {action.name: action})
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params_of(action), made.steps[0].before, "t-1")
    assert store.writes() == []


@pytest.mark.parametrize(
    "report", [{"failures": [{"cause": "x"}], "updated": 1}, {"version_conflicts": 2}, {"timed_out": True}]
)
async def test_an_update_that_ended_early_is_told_as_such(store: OpenSearchServer, report: dict[str, Any]) -> None:
    """What was marked before stays marked, and nobody says that it worked."""
    store.report, action = report, built(store)
    with pytest.raises(PartlyDoneError, match="ended early"):
        await action.act(params_of(action), await action.read(params_of(action)), "t-1")


async def test_what_comes_in_meanwhile_is_left_to_the_next_one(store: OpenSearchServer) -> None:
    """A source whose ingestion still runs: all that the plan counted are marked, and the step is done."""
    action = built(store)
    before = await action.read(params_of(action))
    late = {"id": 5, "metadata": {"source": "wiki"}}
    store.ended = lambda: store.indices["docs-v2"].append(late)
    await action.act(params_of(action), before, "t-1")

    assert store.marked("docs-v2") == [1, 2, 3]
    assert await action.happened(params_of(action), before, "t-1") is Happened.YES


async def test_an_index_that_does_not_map_the_mark_is_found_out(store: OpenSearchServer) -> None:
    """The update says that it worked, and retrieval's filter would not see it."""
    store.maps, action = False, built(store)
    with pytest.raises(PartlyDoneError, match="does the index map this field"):
        await action.act(params_of(action), await action.read(params_of(action)), "t-1")


@pytest.mark.parametrize("fault", [500, 408, "reset", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    store: OpenSearchServer, fault: int | str, when: str
) -> None:
    """One update, and then the store itself is asked."""
    action = built(store)
    before = await action.read(params_of(action))
    getattr(store.faults, when)["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params_of(action), before, "t-1")

    assert len(store.writes()) == 1
    said = await action.happened(params_of(action), before, "t-1")
    assert said is (Happened.YES if when == "after" else Happened.NO)


async def test_while_our_task_runs_nobody_can_tell(store: OpenSearchServer) -> None:
    """No document is marked yet, but the store works at it: somebody else's task says nothing about ours."""
    action, store.looks, store.maps = built(store, task_s=0.2), 99, False
    before = await action.read(params_of(action))
    with pytest.raises(OutcomeUnknownError, match="did not end within"):
        await action.act(params_of(action), before, "t-1")

    assert await action.happened(params_of(action), before, "t-1") is Happened.CANNOT_TELL
    assert await action.happened(params_of(action), before, "t-2") is Happened.NO
    store.faults.before["GET"] = 403
    assert await action.happened(params_of(action), before, "t-2") is Happened.CANNOT_TELL


@pytest.mark.parametrize("fault", [400, 403, 429, "redirect"])
async def test_a_refusal_changed_nothing(store: OpenSearchServer, fault: int | str) -> None:
    """4xx and redirects; one try."""
    action = built(store)
    before = await action.read(params_of(action))
    store.faults.before["POST"], store.faults.elsewhere = fault, f"{store.url}/mail/_update_by_query"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params_of(action), before, "t-1")
    assert len(store.writes()) == 1


@pytest.mark.parametrize("bad", ["_all", "docs-*", "docs-v1,docs-v2", "-docs", "Docs", "docs/_doc", "docs\n"])
def test_an_index_is_one_by_its_whole_name(bad: str) -> None:
    """What means several, or another path, does not fit."""
    with pytest.raises(ValidationError):
        build_actions()["opensearch.quarantine"].params.model_validate({**STEP, "collection": bad})


def test_both_kinds_of_credentials_are_sent_as_they_want_it() -> None:
    """OpenSearch's login, Elasticsearch's API key."""
    assert authorization("user:pass") == "Basic dXNlcjpwYXNz"
    assert authorization("bXkta2V5") == "ApiKey bXkta2V5"
