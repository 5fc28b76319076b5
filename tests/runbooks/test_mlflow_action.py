"""Moving a prompt's alias, against a server that behaves like MLflow's registry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import MlflowAccess, build_actions
from runbooks.engine.actions.mlflow import AliasOfPrompt, SetAlias, SetAliasParams
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.mlflow_server import LOGIN, MlflowServer

pytestmark = pytest.mark.integration  # real HTTP

BACK = SetAliasParams(prompt="chat-system", alias="production", version=7)
BEFORE = {"version": 8}


@pytest.fixture
async def mlflow() -> AsyncIterator[MlflowServer]:
    """`production` of `chat-system` is on the newest of 8 versions; `ranker` is a model and no prompt."""
    server = MlflowServer(
        aliases={"chat-system": {"production": 8, "staging": 6}, "ranker": {"production": 3}},
        versions={"chat-system": 8, "ranker": 3},
        models={"ranker"},
    )
    async with server.running():
        yield server


@pytest.fixture
def alias(mlflow: MlflowServer) -> SetAlias:
    return SetAlias({"prompts": MlflowAccess(url=mlflow.url, authorization=LOGIN, timeout_s=1.5)})


async def test_the_alias_moves_alone(alias: SetAlias, mlflow: MlflowServer) -> None:
    """One request with the version as a text; the other alias stays, and the token is on the request."""
    before = await alias.read(BACK)
    assert alias.refusal(BACK, before) is None
    assert await alias.act(BACK, before, token="t-1") == {"version": 7}

    assert before == BEFORE
    assert mlflow.aliases["chat-system"] == {"production": 7, "staging": 6}
    [post] = mlflow.of("POST")
    assert post.json == {"name": "chat-system", "alias": "production", "version": "7"}
    assert post.headers["x-request-id"] == "t-1"
    assert alias.effect(BACK, before) == (
        "In MLflow, the alias production of the prompt chat-system moves from version 8 to version 7."
    )
    assert alias.tier is Tier.R1


async def test_undo_restores_what_was(alias: SetAlias, mlflow: MlflowServer) -> None:
    """The undo's parameters are the same action's, back to the version that was read."""
    before = await alias.read(BACK)
    await alias.act(BACK, before, token="t-1")
    back = alias.params.model_validate(alias.undo(BACK, before))
    assert isinstance(back, SetAliasParams)
    await alias.act(back, await alias.read(back), token="t-2")

    assert mlflow.aliases["chat-system"]["production"] == 8


async def test_an_alias_that_is_there_already_is_refused(alias: SetAlias) -> None:
    """Nothing would change, so there is nothing to approve."""
    there = BACK.model_copy(update={"version": 8})
    assert "on version 8 already" in (alias.refusal(there, await alias.read(there)) or "")


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409, 429, "redirect"])
async def test_a_refusal_changed_nothing(alias: SetAlias, mlflow: MlflowServer, fault: int | str) -> None:
    """4xx and redirects are ActionError, the alias stays, and nobody tries again or goes elsewhere."""
    mlflow.faults.before["POST"] = fault
    mlflow.faults.elsewhere = f"{mlflow.url}/elsewhere"
    with pytest.raises(ActionError, match="nothing was changed"):
        await alias.act(BACK, BEFORE, token="t")

    assert mlflow.aliases["chat-system"]["production"] == 8
    assert [each.path for each in mlflow.of("POST")] == ["/api/2.0/mlflow/registered-models/alias"]


@pytest.mark.parametrize("fault", [500, 502, 503, 408, "reset", "hang", "garbage", "gzip", "deep"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    alias: SetAlias, mlflow: MlflowServer, fault: int | str, when: str
) -> None:
    """After a time-out, a reset, a 5xx or an unreadable answer nothing is called again; the probe finds out."""
    getattr(mlflow.faults, when)["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await alias.act(BACK, BEFORE, token="t")

    assert len(mlflow.of("POST")) == 1
    assert await alias.happened(BACK, BEFORE, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_an_answer_without_the_change_is_in_doubt(alias: SetAlias, mlflow: MlflowServer) -> None:
    """A server that says yes and does nothing is caught by reading back."""
    mlflow.forgetful = True
    with pytest.raises(OutcomeUnknownError, match="the alias is on version 8"):
        await alias.act(BACK, BEFORE, token="t")


async def test_the_probe_can_be_unable_to_tell(alias: SetAlias, mlflow: MlflowServer) -> None:
    """A third version, and an MLflow that does not answer, are neither yes nor no."""
    mlflow.aliases["chat-system"]["production"] = 6
    assert await alias.happened(BACK, BEFORE, "t") is Happened.CANNOT_TELL

    mlflow.faults.before["GET"] = 500
    assert await alias.happened(BACK, BEFORE, "t") is Happened.CANNOT_TELL


async def test_somebody_was_faster(alias: SetAlias, mlflow: MlflowServer) -> None:
    """The alias moved after the plan was made: nothing is sent."""
    mlflow.aliases["chat-system"]["production"] = 6
    with pytest.raises(ActionError, match="on version 6 by now"):
        await alias.act(BACK, BEFORE, token="t")

    assert mlflow.of("POST") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 9}, "no version 9 of prompt `chat-system`"),
        ({"alias": "nobody-has-it"}, "no alias `nobody-has-it`"),
        ({"prompt": "unknown"}, "no prompt `unknown`"),
        ({"prompt": "ranker", "version": 2}, "no prompt: its aliases stay"),
    ],
)
async def test_reading_says_what_is_missing(alias: SetAlias, change: dict[str, object], words: str) -> None:
    """A version, an alias or a prompt that is not there is named first; the alias of a model is not ours to move."""
    with pytest.raises(ActionError, match=words):
        await alias.read(BACK.model_copy(update=change))


async def test_the_source_is_never_guessed(mlflow: MlflowServer) -> None:
    """Without access the setting is named; of two servers, one has to be said."""
    with pytest.raises(ActionError, match="no MLflow has an `action_credential`"):
        await build_actions()["mlflow.set_alias"].read(BACK)
    access = MlflowAccess(url=mlflow.url, authorization=LOGIN)
    two = SetAlias({"eu": access, "us": access})
    with pytest.raises(ActionError, match="eu, us"):
        await two.read(BACK)

    assert await two.read(AliasOfPrompt(prompt="chat-system", alias="production", source="eu")) == BEFORE


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "../admin"},
        {"prompt": ".."},
        {"prompt": "a/b"},
        {"prompt": "-rf"},
        {"prompt": "chat\nsystem"},
        {"prompt": ""},
        {"alias": "latest"},
        {"alias": "Latest"},
        {"alias": "v7"},
        {"alias": "production\n"},
        {"alias": "a.b"},
        {"version": True},
        {"version": " 7"},
        {"version": 0},
        {"source": "x\n"},
        {"extra": "x"},
    ],
)
def test_parameters_match_whole_or_not_at_all(bad: dict[str, object]) -> None:
    """Names are matched from end to end, numbers are whole, MLflow's own aliases and unknown parameters are refused."""
    with pytest.raises(ValidationError):
        SetAliasParams.model_validate(BACK.model_dump() | bad)


def test_the_login_is_not_in_the_repr() -> None:
    """A log line that prints the access must not print it."""
    assert "Basic" not in repr(MlflowAccess(url="http://x", authorization="Basic c2VjcmV0"))
