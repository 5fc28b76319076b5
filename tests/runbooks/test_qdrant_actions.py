"""Moving an alias and keeping a data source out, against a server that answers like Qdrant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import QdrantAccess, build_actions
from runbooks.engine.plan import fresh, plan, undo_plan
from runbooks.engine.values import Action, ActionError, CannotPlanError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.qdrant_server import KEY, QdrantServer
from tests.runbooks.test_plan import CONTEXT, NOW, runbook

pytestmark = pytest.mark.integration  # real HTTP

STORE = {"store": "vectors", "service": "chat"}
STEPS: dict[str, dict[str, Any]] = {
    "qdrant.set_alias": {**STORE, "alias": "docs", "collection": "docs-v1"},
    "qdrant.quarantine": {**STORE, "collection": "docs-v2", "source": "wiki"},
}


@pytest.fixture
async def qdrant() -> AsyncIterator[QdrantServer]:
    """`docs` names the newer of two collections, whose points come from a wiki (1, 2, 3) and from tickets (4)."""
    of = ("wiki", "wiki", "wiki", "tickets")
    points = [{"id": number, "metadata": {"source": source}} for number, source in enumerate(of, start=1)]
    server = QdrantServer(
        aliases={"docs": "docs-v2", "search": "search-v1"},
        points={"docs-v1": [{"id": 1}], "docs-v2": points, "docs-empty": [], "search-v1": [{"id": 1}]},
    )
    async with server.running():
        yield server


def built(server: QdrantServer, **more: Any) -> dict[str, Action]:
    known: dict[str, Any] = {
        "services": ("chat",),
        "collections": ("docs-.*",),
        "source_field": "metadata.source",
        "quarantine_key": "quarantined",
        "key": KEY,
    }
    return build_actions(stores={"vectors": QdrantAccess(url=server.url, **{**known, **more})})


@pytest.fixture
def actions(qdrant: QdrantServer) -> dict[str, Action]:
    return built(qdrant)


def params_of(action: Action, **more: Any) -> Any:
    return action.params.model_validate({**STEPS[action.name], **more})


def book(name: str) -> str:
    values = ", ".join(f"{key}: {value}" for key, value in STEPS[name].items() if key != "service")
    return f"action: {name}\nwith: {{{values}}}\nundo: previous"


async def test_an_alias_moves_and_moves_back(actions: dict[str, Action], qdrant: QdrantServer) -> None:
    """In one request; the sentence says that the vectors are others, since then the embedder has to be, too."""
    action = actions["qdrant.set_alias"]
    made = await plan(runbook(book(action.name)), CONTEXT, actions)
    [step] = made.steps
    await action.act(params_of(action), step.before, "t-1")

    assert step.effect == (
        "In the vector store vectors, the alias docs moves from docs-v2 to docs-v1, whose vectors are 768 Cosine "
        "(before: 1024 Cosine)."
    )
    assert (step.tier, step.target) == (Tier.R1, "qdrant/alias/vectors/docs")
    assert qdrant.aliases == {"docs": "docs-v1", "search": "search-v1"}
    assert qdrant.writes() == ["/collections/aliases"]
    back = (await undo_plan(made, [0], actions, now=NOW, policy_version="p")).steps[0]
    await action.act(action.params.model_validate(back.params), back.before, "t-2")
    assert qdrant.aliases["docs"] == "docs-v2"


@pytest.mark.parametrize(
    ("alias", "points", "fuller"),
    [
        ("docs-empty", {}, "docs-v1"),
        ("docs-empty", {"docs-v1": []}, None),  # none: it has as few
        ("docs-v1", {"docs-v1": [{"id": 1}] * 3, "docs-empty": [{"id": 1}] * 2}, None),  # none: it has fewer
        ("docs-empty", {"docs-v3": [{"id": 1}]}, None),  # two: a person chooses
        ("docs-v2", {}, None),  # the others are of other vectors
    ],
)
async def test_the_one_fuller_collection_is_found(
    actions: dict[str, Action], qdrant: QdrantServer, alias: str, points: dict[str, Any], fuller: str | None
) -> None:
    """Only among those that may be worked on (`search-v1` may not); the plan holds its name, and never a guess."""
    qdrant.aliases["docs"] = alias
    qdrant.points |= points
    block = 'action: qdrant.set_alias\nwith: {store: vectors, alias: docs, collection: "{before.fuller}"}'
    if fuller is None:
        with pytest.raises(CannotPlanError, match="no `fuller`"):
            await plan(runbook(block), CONTEXT, actions)
        return

    made = await plan(runbook(block), CONTEXT, actions)

    assert made.steps[0].params["collection"] == fuller
    assert await fresh(made, actions) == []
    assert qdrant.writes() == []


async def test_what_is_quarantined_behind_an_alias_is_its_collection(
    actions: dict[str, Action], qdrant: QdrantServer
) -> None:
    """When the alias moves later, the marks are taken off where they are."""
    block = "action: qdrant.quarantine\nwith: {store: vectors, collection: docs, source: wiki}\nundo: previous"
    made = await plan(runbook(block), CONTEXT, actions)
    [step] = made.steps
    action = actions[step.action]
    params = action.params.model_validate(step.params)
    assert "3 points of the source wiki in docs-v2 are marked" in step.effect
    await action.act(params, step.before, "t-1")
    assert await action.happened(params, step.before, "t-1") is Happened.YES

    qdrant.aliases["docs"] = "docs-v1"

    assert await action.happened(params, step.before, "t-1") is Happened.CANNOT_TELL
    assert step.undo is not None
    back = action.params.model_validate(step.undo)
    await action.act(back, await action.read(back), "t-2")
    assert (back.collection, qdrant.marked("docs-v2")) == ("docs-v2", [])  # type: ignore[attr-defined]


async def test_a_source_is_kept_out_and_let_in_again(actions: dict[str, Action], qdrant: QdrantServer) -> None:
    """Its points alone; what came in since the quarantine does not hinder its end."""
    action = actions["qdrant.quarantine"]
    made = await plan(runbook(book(action.name)), CONTEXT, actions)
    await action.act(params_of(action), made.steps[0].before, "t-1")

    assert made.steps[0].effect == (
        "In the vector store vectors, 3 points of the source wiki in docs-v2 are marked with quarantined and no longer "
        "retrieved."
    )
    assert qdrant.marked("docs-v2") == [1, 2, 3]
    qdrant.points["docs-v2"].append({"id": 5, "metadata": {"source": "wiki"}})
    back = (await undo_plan(made, [0], actions, now=NOW, policy_version="p")).steps[0]
    assert "3 points of the source wiki in docs-v2 lose the mark" in back.effect
    await action.act(action.params.model_validate(back.params), back.before, "t-2")
    assert qdrant.marked("docs-v2") == []


async def test_a_mark_that_some_points_had_cannot_be_restored(actions: dict[str, Action], qdrant: QdrantServer) -> None:
    """It may be completed, and then no undo is offered: it would let in what was out before."""
    qdrant.points["docs-v2"][0]["quarantined"] = True
    action = actions["qdrant.quarantine"]
    before = await action.read(params_of(action))

    assert (before["points"], before["marked"]) == (3, 1)
    assert "(1 of them are already)" in action.effect(params_of(action), before)
    assert action.refusal(params_of(action), before) is None  # type: ignore[attr-defined]
    assert action.undo(params_of(action), before) is None


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("qdrant.set_alias", {"collection": "docs-v2"}, "names docs-v2 already"),
        ("qdrant.set_alias", {"collection": "docs-empty"}, "is empty: nothing would be found"),
        ("qdrant.quarantine", {"source": "mails"}, "has no points of the source mails"),
        ("qdrant.quarantine", {"quarantined": False}, "is not quarantined already"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    actions: dict[str, Action], name: str, more: dict[str, Any], words: str
) -> None:
    """Before anybody is asked to approve it."""
    params = params_of(actions[name], **more)
    assert words in str(actions[name].refusal(params, await actions[name].read(params)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("qdrant.set_alias", {"collection": "search-v1"}, "does not allow search-v1"),
        ("qdrant.set_alias", {"alias": "search"}, "does not allow search-v1"),
        ("qdrant.set_alias", {"alias": "nobody"}, "no alias nobody"),
        ("qdrant.set_alias", {"collection": "docs-v9"}, "has no /collections/docs-v9"),
        ("qdrant.quarantine", {"collection": "search-v1"}, "does not allow search-v1"),
        ("qdrant.quarantine", {"store": "other"}, r"no vector_store other \(it has: vectors\)"),
        ("qdrant.quarantine", {"service": "search"}, "is read by chat and not by search"),
    ],
)
async def test_what_is_not_allowed_is_not_planned(
    actions: dict[str, Action], qdrant: QdrantServer, name: str, more: dict[str, str], words: str
) -> None:
    """Other collections, also those that an alias would be taken from; other stores and services."""
    with pytest.raises(ActionError, match=words):
        await actions[name].read(params_of(actions[name], **more))
    assert qdrant.writes() == []


async def test_without_a_mark_in_the_configuration_nothing_is_quarantined(qdrant: QdrantServer) -> None:
    """Which field names the source, and what retrieval leaves out, only the operator knows."""
    action = built(qdrant, source_field=None, quarantine_key=None)["qdrant.quarantine"]
    with pytest.raises(ActionError, match="`source_field` and `quarantine_key`"):
        await action.read(params_of(action))


@pytest.mark.parametrize("name", STEPS)
async def test_a_world_that_moved_stops_it(actions: dict[str, Action], qdrant: QdrantServer, name: str) -> None:
    """Somebody moved the alias, or put points in, between the plan and its start."""
    made = await plan(runbook(book(name)), CONTEXT, actions)
    qdrant.aliases["docs"] = "docs-empty"
    qdrant.points["docs-v2"].append({"id": 5, "metadata": {"source": "wiki"}})

    assert await fresh(made, actions)
    with pytest.raises(ActionError, match="nothing was changed"):
        await actions[name].act(params_of(actions[name]), made.steps[0].before, "t-1")
    assert qdrant.writes() == []


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [500, 408, "reset", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    actions: dict[str, Action], qdrant: QdrantServer, name: str, fault: int | str, when: str
) -> None:
    """One change, and then the store itself is asked."""
    action = actions[name]
    params = params_of(action)
    before = await action.read(params)
    qdrant.only = "aliases" if name == "qdrant.set_alias" else "payload"
    getattr(qdrant.faults, when)["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, "t-1")

    assert len(qdrant.writes()) == 1
    assert await action.happened(params, before, "t-1") is (Happened.YES if when == "after" else Happened.NO)


async def test_a_quarantine_that_is_not_done_yet_is_in_doubt(actions: dict[str, Action], qdrant: QdrantServer) -> None:
    """Qdrant only acknowledged it, or some points are marked and some are not: neither yes nor no."""
    action = actions["qdrant.quarantine"]
    params = params_of(action)
    before = await action.read(params)
    qdrant.finished = False
    with pytest.raises(OutcomeUnknownError, match="did not say that it is done"):
        await action.act(params, before, "t-1")
    del qdrant.points["docs-v2"][0]["quarantined"]

    assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [400, 403, 429, "redirect"])
async def test_a_refusal_changed_nothing(
    actions: dict[str, Action], qdrant: QdrantServer, name: str, fault: int | str
) -> None:
    """4xx and redirects; one try."""
    action = actions[name]
    params = params_of(action)
    before = await action.read(params)
    qdrant.only = "aliases" if name == "qdrant.set_alias" else "payload"
    qdrant.faults.before["POST"] = fault
    qdrant.faults.elsewhere = f"{qdrant.url}/collections/aliases"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params, before, "t-1")
    assert len(qdrant.writes()) == 1


@pytest.mark.parametrize("name", STEPS)
async def test_what_cannot_be_read_is_a_refusal(actions: dict[str, Action], qdrant: QdrantServer, name: str) -> None:
    """A wrong key, errors, garbage: nothing is changed, and the probe cannot tell."""
    action = actions[name]
    params = params_of(action)
    before = await action.read(params)
    for fault in (401, 500, "garbage", "deep"):
        qdrant.faults.before.update({"GET": fault, "POST": fault})
        with pytest.raises(ActionError):
            await action.read(params)
        with pytest.raises(ActionError):
            await action.act(params, before, "t-1")
        assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL
    assert qdrant.writes() == []


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("qdrant.set_alias", {"alias": "a/b"}),
        ("qdrant.set_alias", {"collection": "docs\n"}),
        ("qdrant.set_alias", {"collection": ".."}),
        ("qdrant.quarantine", {"source": " wiki"}),
        ("qdrant.quarantine", {"source": "wi\nki"}),
        ("qdrant.quarantine", {"source": ""}),
        ("qdrant.quarantine", {"quarantined": "perhaps"}),
        ("qdrant.quarantine", {"filter": {}}),
    ],
)
def test_parameters_match_whole_or_not_at_all(name: str, bad: dict[str, object]) -> None:
    """Names cannot leave their place in a path, and a source is matched as it is."""
    with pytest.raises(ValidationError):
        build_actions()[name].params.model_validate({**STEPS[name], **bad})
