"""Moving a prompt's label, against a server that behaves like Langfuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import ClusterAccess, LangfuseAccess, build_actions
from runbooks.engine.actions.kubernetes import DeploymentRef
from runbooks.engine.actions.langfuse import LabelOfPrompt, MoveLabel, MoveLabelParams
from runbooks.engine.values import Action, ActionError, Happened, OutcomeUnknownError
from tests.runbooks.langfuse_server import PUBLIC, LangfuseServer

pytestmark = pytest.mark.integration  # real HTTP

BACK = MoveLabelParams(prompt="chat-system", label="production", version=7)
BEFORE = {"version": 8}


@pytest.fixture
def move(actions: dict[str, Action]) -> Action:
    return actions["langfuse.move_label"]


async def test_the_label_moves_and_takes_nothing_else_along(move: Action, langfuse: LangfuseServer) -> None:
    """The label leaves 8 and arrives at 7, which keeps its other label; the token is on the request."""
    before = await move.read(BACK)
    await move.act(BACK, before, token="t-1")

    assert before == BEFORE
    assert langfuse.prompts["chat-system"] == {6: set(), 7: {"stable", "production"}, 8: set()}
    [patch] = langfuse.of("PATCH")
    assert patch.path == "/api/public/v2/prompts/chat-system/versions/7"
    assert patch.json == {"newLabels": ["production", "stable"]}
    assert patch.headers["x-request-id"] == "t-1"


async def test_undo_restores_what_was(move: Action, langfuse: LangfuseServer) -> None:
    """The undo's parameters are the same action's, back to the version that was read."""
    before = await move.read(BACK)
    await move.act(BACK, before, token="t-1")
    undo = move.undo(BACK, before)
    assert undo is not None
    back = move.params.model_validate(undo)
    await move.act(back, await move.read(back), token="t-2")

    assert langfuse.version_of("chat-system", "production") == 8


async def test_latest_is_never_sent(move: Action, langfuse: LangfuseServer) -> None:
    """Langfuse refuses `latest` although it lists it among the newest version's labels."""
    langfuse.prompts["chat-system"] = {7: {"production"}, 8: {"beta"}}
    newest = MoveLabelParams(prompt="chat-system", label="production", version=8)
    await move.act(newest, {"version": 7}, token="t")

    assert langfuse.of("PATCH")[0].json == {"newLabels": ["beta", "production"]}


async def test_a_prompt_in_a_folder_is_one_path_segment(move: Action, langfuse: LangfuseServer) -> None:
    """The slash of a folder is part of the name and travels escaped."""
    langfuse.prompts["team a/chat"] = {1: set(), 2: {"production"}}
    params = MoveLabelParams(prompt="team a/chat", label="production", version=1)
    await move.act(params, await move.read(params), token="t")

    assert langfuse.version_of("team a/chat", "production") == 1


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409, 429, "redirect"])
async def test_a_refusal_changed_nothing(move: Action, langfuse: LangfuseServer, fault: int | str) -> None:
    """4xx and redirects are ActionError, the label stays, and nobody tries again or goes elsewhere."""
    langfuse.faults.before["PATCH"] = fault
    langfuse.faults.elsewhere = f"{langfuse.url}/api/public/v2/prompts/chat-system/versions/6"
    with pytest.raises(ActionError, match="nothing was changed"):
        await move.act(BACK, BEFORE, token="t")

    assert langfuse.version_of("chat-system", "production") == 8
    assert len(langfuse.of("PATCH")) == 1


@pytest.mark.parametrize("fault", [500, 502, 503, 408, "reset", "hang", "garbage", "gzip", "deep"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    move: Action, langfuse: LangfuseServer, fault: int | str, when: str
) -> None:
    """After a time-out, a reset, a 5xx or an unreadable answer nothing is called again; the probe finds out."""
    getattr(langfuse.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await move.act(BACK, BEFORE, token="t")

    assert len(langfuse.of("PATCH")) == 1
    assert await move.happened(BACK, BEFORE, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_the_probe_can_be_unable_to_tell(move: Action, langfuse: LangfuseServer) -> None:
    """A third version, and a Langfuse that does not answer, are neither yes nor no."""
    langfuse.prompts["chat-system"] = {6: {"production"}, 7: set(), 8: set()}
    assert await move.happened(BACK, BEFORE, "t") is Happened.CANNOT_TELL

    langfuse.faults.before["GET"] = 500
    assert await move.happened(BACK, BEFORE, "t") is Happened.CANNOT_TELL


@pytest.mark.parametrize("fault", [500, "reset", "garbage", "gzip", "deep"])
async def test_what_cannot_be_read_is_a_refusal(move: Action, langfuse: LangfuseServer, fault: int | str) -> None:
    """Reading changes nothing, so an unreadable answer is ActionError; the plan is not made, or the step not run."""
    langfuse.faults.before["GET"] = fault
    with pytest.raises(ActionError):
        await move.read(BACK)
    with pytest.raises(ActionError):
        await move.act(BACK, BEFORE, token="t")

    assert await move.happened(BACK, BEFORE, "t") is Happened.CANNOT_TELL
    assert langfuse.of("PATCH") == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:x", "http://[::1", "http://a b"])
async def test_an_address_that_is_none_is_a_refusal(url: str) -> None:
    """The configuration's own check is laxer than the client's."""
    nowhere = MoveLabel({"p": LangfuseAccess(url=url, public_key=PUBLIC, secret_key="x")})
    with pytest.raises(ActionError):
        await nowhere.act(BACK, BEFORE, token="t")


async def test_somebody_was_faster(move: Action, langfuse: LangfuseServer) -> None:
    """The label moved after the plan was made: nothing is sent."""
    langfuse.prompts["chat-system"] = {6: {"production"}, 7: set(), 8: set()}
    with pytest.raises(ActionError, match="on version 6 by now"):
        await move.act(BACK, BEFORE, token="t")

    assert langfuse.of("PATCH") == []


async def test_nobody_listens() -> None:
    """A refused connection certainly changed nothing; it is no reason for doubt."""
    nowhere = MoveLabel({"p": LangfuseAccess(url="http://127.0.0.1:9", public_key=PUBLIC, secret_key="x")})
    with pytest.raises(ActionError, match="cannot be read"):
        await nowhere.act(BACK, BEFORE, token="t")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (MoveLabelParams(prompt="chat-system", label="production", version=5), "with version 5"),
        (MoveLabelParams(prompt="chat-system", label="nobody-has-it", version=7), "with label nobody-has-it"),
        (MoveLabelParams(prompt="unknown", label="production", version=7), "no prompt `unknown`"),
    ],
)
async def test_reading_says_what_is_missing(move: Action, params: MoveLabelParams, words: str) -> None:
    """A version, a label or a prompt that is not there is named before anybody approves anything."""
    with pytest.raises(ActionError, match=words):
        await move.read(params)


async def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is a refusal with the path in it, in both systems."""
    nowhere = str(tmp_path / "ca.pem")
    actions = build_actions(
        langfuse={"p": LangfuseAccess(url="https://127.0.0.1:9", public_key=PUBLIC, secret_key="x", ca_file=nowhere)},
        clusters={"lab": ClusterAccess(url="https://127.0.0.1:9", token="t", ca_file=nowhere)},
    )
    with pytest.raises(ActionError, match=r"ca\.pem"):
        await actions["langfuse.move_label"].read(BACK)
    with pytest.raises(ActionError, match="cannot be read"):
        await actions["kubernetes.scale"].read(DeploymentRef(cluster="lab", namespace="chat", deployment="d"))


async def test_without_access_the_action_says_which_setting_is_missing() -> None:
    """The action is listed without a credential, so that runbooks can be checked, but cannot do anything."""
    with pytest.raises(ActionError, match="action_credential"):
        await build_actions()["langfuse.move_label"].read(BACK)


async def test_two_projects_need_a_source(langfuse: LangfuseServer) -> None:
    """With two Langfuse projects, guessing one would change the wrong prompt."""
    access = LangfuseAccess(url=langfuse.url, public_key=PUBLIC, secret_key="sk-lf-test")
    move = MoveLabel({"eu": access, "us": access})
    with pytest.raises(ActionError, match="eu, us"):
        await move.read(BACK)

    named = LabelOfPrompt(prompt="chat-system", label="production", source="eu")
    assert await move.read(named) == BEFORE


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "../admin"},
        {"prompt": "a//b"},
        {"prompt": "-rf"},
        {"prompt": "chat\nsystem"},
        {"prompt": ""},
        {"label": "latest"},
        {"label": "Production"},
        {"label": "production\n"},
        {"version": True},
        {"version": "7.0"},
        {"version": " 7"},
        {"version": 0},
        {"version": 7.0},
        {"source": "x\n"},
        {"extra": "x"},
    ],
)
def test_parameters_match_whole_or_not_at_all(bad: dict[str, object]) -> None:
    """Names are matched from end to end, numbers are whole, and unknown parameters are refused."""
    with pytest.raises(ValidationError):
        MoveLabelParams.model_validate({"prompt": "chat-system", "label": "production", "version": 7} | bad)


def test_the_secret_is_not_in_the_repr() -> None:
    """A log line that prints the access must not print the key."""
    assert "sk-lf-very" not in repr(LangfuseAccess(url="http://x", public_key="pk", secret_key="sk-lf-very"))
