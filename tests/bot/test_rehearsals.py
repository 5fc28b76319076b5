"""`watchkeeper runbook plan`: it says exactly what would run, and proves that it only looked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.incidents import WatchkeeperError
from bot.library import FOLDER
from bot.rehearsal_shown import as_json
from bot.rehearsals import ReadCase, chosen, for_case, for_incident, read_case
from bot.respond import DIAGNOSIS
from bot.settings import Settings
from runbooks.engine.library import load_folder
from runbooks.engine.otherwise import by_hand_otherwise
from runbooks.engine.parse import parse
from runbooks.engine.rehearsal import reading, rehearse
from runbooks.engine.values import Action, ActionError
from tests.bot.test_cli import Run, run
from tests.case_folders import change_json, truth_json, write_case
from tests.diagnostics_prompts import DECOY, GUILTY
from tests.kit import CONFIG, INCIDENT, config_in, open_store
from tests.runbooks.conftest import actions, cluster, gateway, langfuse
from tests.runbooks.kubernetes_server import TOKEN, KubernetesServer
from tests.runbooks.langfuse_server import LangfuseServer
from tests.runbooks.litellm_server import LiteLLMServer
from tests.runbooks.test_shipped import INCIDENT as CONTEXT

__all__ = ["actions", "cluster", "gateway", "langfuse", "run"]

SHIPPED, _ = load_folder(FOLDER)
GUILTY_UNDO = {"prompt": "chat-system", "label": "production", "version": "8", "previous_version": "7"}
LABEL = "langfuse/prompt-label/chat-system:production: {version: 8}\n"
_watching: list[list[tuple[str, Any]]] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    """Whatever the process connects to or starts, by whichever library: the interpreter itself tells."""
    if _watching and event in ("socket.connect", "socket.sendto", "subprocess.Popen", "os.posix_spawn", "os.exec"):
        _watching[-1].append((event, arguments[1] if event.startswith("socket") else arguments[0]))


sys.addaudithook(_record)  # cannot be taken away again, so it listens only while somebody watches


@contextmanager
def outside_world() -> Iterator[list[tuple[str, Any]]]:
    """Every connection that is made and every program that is started meanwhile."""
    seen: list[tuple[str, Any]] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A prefix cache that collapsed after a prompt changed; the case tells how the change is taken back."""
    folder = write_case(tmp_path / "case", truth_json("S04"))
    changes = [change_json(DECOY), {**change_json(GUILTY), "undo": GUILTY_UNDO}]
    (folder / "changes.json").write_text(json.dumps(changes), encoding="utf-8")
    (folder / "states.yaml").write_text(LABEL, encoding="utf-8")
    return folder


async def test_a_plan_sends_nothing_but_reads(
    actions: dict[str, Action], cluster: KubernetesServer, langfuse: LangfuseServer, gateway: LiteLLMServer
) -> None:
    """All of ours: every connection leads to a far end that remembers what it was asked, and that was GET."""
    cluster.twins = ("chat-gateway",)
    [container] = cluster.deployment["spec"]["template"]["spec"]["containers"]
    container["resources"] = {"limits": {"cpu": "12"}}
    with outside_world() as seen:
        possible = [await by_hand_otherwise(each, CONTEXT, reading(actions)) for each in SHIPPED]
        rehearsals = [await rehearse(each, CONTEXT, reading(actions)) for each in possible]

    assert len(rehearsals) >= 50
    assert [each.refusal for each in rehearsals if each.plan is None] == []
    asked = [*cluster.seen, *langfuse.seen, *gateway.seen]
    assert len(asked) > len(SHIPPED)
    assert {one.method for one in asked} == {"GET"}
    servers = {int(far_end.url.rpartition(":")[2]) for far_end in (cluster, langfuse, gateway)}
    assert {event for event, _ in seen} == {"socket.connect"}
    assert {address[1] for _, address in seen} == servers


async def test_a_case_is_planned_without_the_world(case: Path, tmp_path: Path) -> None:
    """All of ours for a recorded case: no connection, no program, and the folder is as it was."""
    before = _written(case)
    settings = Settings(watchkeeper_config=tmp_path / "none.toml")
    with outside_world() as seen:
        read = await read_case(case)
        offers = [await for_case(FOLDER / f"{each.runbook_id}.md", read, (), settings) for each in SHIPPED]

    assert seen == []
    assert _written(case) == before
    planned = [offer.runbook.runbook_id for offer in offers if offer.rehearsal.plan is not None]
    assert "prefix-cache-collapse" in planned
    unread = next(offer for offer in offers if offer.runbook.runbook_id == "queue-backlog")
    assert "no recorded state of kubernetes/deployment/case/chat/chat-vllm" in unread.rehearsal.refusal


def _written(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_the_recorder_sees_what_it_is_for() -> None:
    """A connection and a program are noticed; without that the tests above would prove nothing."""
    import socket
    import subprocess

    with outside_world() as seen:
        with socket.socket() as probe:
            probe.connect_ex(("127.0.0.1", 9))
        subprocess.run([sys.executable, "-c", ""], check=True)

    assert [event for event, _ in seen] == ["socket.connect", "subprocess.Popen"]


async def test_a_rehearsed_action_cannot_act(actions: dict[str, Action], cluster: KubernetesServer) -> None:
    """Even a planner that tried to would be refused."""
    [step] = (await rehearse(next(b for b in SHIPPED if b.runbook_id == "queue-backlog"), CONTEXT, actions)).plan.steps  # type: ignore[union-attr]
    hands = reading(actions)[step.action]
    params = hands.params.model_validate(dict(step.params))
    for deed in (hands.act(params, step.before, "t"), hands.happened(params, step.before, "t")):
        with pytest.raises(ActionError, match="a rehearsal changes nothing"):
            await deed
    assert cluster.of("PATCH") == []


async def test_an_incident_is_planned_from_its_diagnosis(
    tmp_path: Path, cluster: KubernetesServer, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state as it is read now, who may approve by the policy, and what the digest covers."""
    monkeypatch.setenv("LAB_TOKEN", TOKEN)
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/w.db")
    config = config_in(tmp_path, _with_cluster(cluster.url))
    settings = Settings.load()
    found = (await read_case(case)).found
    async with open_store(settings.database_url.get_secret_value(), config) as store:
        await store.page()
        await store.incidents.record(INCIDENT, 1, diagnosis=DIAGNOSIS.dump_python(found, mode="json"))
        with outside_world() as seen:
            offer = await for_incident(FOLDER / "queue-backlog.md", INCIDENT, (), settings, config)

    told = as_json(offer)
    [step] = told["steps"]
    assert (step["with"]["replicas"], step["before"], step["undo"]["with"]["replicas"]) == (
        6, {"replicas": 4, "autoscaler": ""}, 4,
    )  # fmt: skip
    assert told["blast_radius"] == ["kubernetes/deployment/lab/chat/chat-vllm"]
    assert "Dana Diaz" in told["approval"]["who"]
    assert (told["tier"], told["withheld"], told["digest"]) == ("R1", None, offer.rehearsal.plan.digest)  # type: ignore[union-attr]
    assert "It is for S01, and the diagnosis says S04: offered on request only." in told["notes"]
    assert {one.method for one in cluster.seen} == {"GET"}
    assert all(str(address[1]) in cluster.url for event, address in seen if isinstance(address, tuple))


def _with_cluster(url: str) -> str:
    """The usual configuration with a cluster for the service."""
    named = CONFIG.replace(
        'environment = "prod"\nmode', 'cluster = "lab"\nnamespace = "chat"\nenvironment = "prod"\nmode', 1
    )
    return (
        named.replace(
            "[[policy]]", '[[service.deployments]]\nname = "chat-vllm"\nkind = "engine"\nreplicas = 4\n\n[[policy]]', 1
        )
        + f'\n[[cluster]]\nname = "lab"\nurl = "{url}"\naction_credential = "LAB_TOKEN"\n'
    )


def test_the_command_reads_well(run: Run, case: Path) -> None:
    """A person finds what runs, on what, from which state, how it is undone; status 1 when nothing can be planned."""
    status, shown, _ = run("runbook", "plan", str(FOLDER / "prefix-cache-collapse.md"), "--case", str(case))
    none, refused, _ = run("runbook", "plan", str(FOLDER / "gpu-lost.md"), "--case", str(case))

    assert status == 0
    for line in (
        "   does     In Langfuse, the label production of the prompt chat-system moves from version 8 to version 7.",
        "   target   langfuse/prompt-label/chat-system:production",
        "   now      version: 8",
        "   undo     langfuse.move_label prompt: chat-system, label: production, version: 8",
        "   risk     R1: reversible within five minutes",
        "It would not be offered: no configuration here knows the service, so nobody could approve it.",
    ):
        assert line in shown.splitlines()
    assert none == 1
    assert "1. Cordon the node (kubernetes.cordon): cannot be planned" in refused
    assert "No plan can be made: Cordon the node: node: the diagnosis does not confine the trouble" in refused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "either --case DIR or --incident ID"),
        (("--case", "here", "--incident", "Q1"), "either --case DIR or --incident ID"),
        (("--case", "nowhere"), "alert.json cannot be read"),
    ],
)
def test_what_cannot_be_planned_for_is_told(run: Run, words: tuple[str, ...], told: str) -> None:
    """One sentence, status 2."""
    status, _, said = run("runbook", "plan", str(FOLDER / "queue-backlog.md"), *words)
    assert (status, told in said, "Traceback" in said) == (2, True, False)


def test_parameters_have_the_types_that_are_declared() -> None:
    """A word from the command line becomes a number only where the runbook wants one, and stays within its limits."""
    front = "params: {n: {type: integer, maximum: 4}, who: {type: text}, on: {type: boolean}}"
    book = parse(f"---\nformat: 1\ntitle: T\n{front}\n---\n", "t")
    assert chosen(book, ["n=3", "who=3", "on=true"]) == {"n": 3, "who": "3", "on": True}
    for pair, told in (
        ("n=5", "at most 4"),
        ("n=x", "whole number"),
        ("m=1", "not a parameter of this runbook; t has n, who, on"),
        ("n", "name=value"),
    ):
        with pytest.raises(WatchkeeperError, match=told):
            chosen(book, [pair])


async def test_a_state_that_fits_no_action_is_named(case: Path, tmp_path: Path) -> None:
    """The file of states is somebody's own work, and can be wrong."""
    read: ReadCase = replace(await read_case(case), states={"langfuse/prompt-label/chat-system:production": {}})
    with pytest.raises(WatchkeeperError, match=r"states.yaml: a state does not fit its action: KeyError"):
        await for_case(FOLDER / "prefix-cache-collapse.md", read, (), Settings(watchkeeper_config=tmp_path / "n.toml"))
