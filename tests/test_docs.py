"""What the documents say is so: commands, variables, keys, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from bot.cli import app
from bot.config import (
    ArgoSource,
    Config,
    FlagSource,
    GitSource,
    LangfuseSource,
    MlflowSource,
    PhoenixSource,
    PrometheusSource,
    RecorderSource,
    TraceSource,
)
from bot.config.bounds import Freeze, Limit
from bot.config.changed import InferenceEngine, VectorStore, Workflow
from bot.config.entries import (
    Budgets,
    Cluster,
    Command,
    Deployment,
    Gateway,
    HttpEndpoint,
    Person,
    PolicyRule,
    PromptRef,
    Provider,
    Service,
    ServiceTraces,
)
from bot.config.fields import Entry
from bot.config.trust import CheckpointPlace
from bot.settings import PROCESS, VARIABLES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    file for pattern in ("*.md", "docs/**/*.md", "runbooks/*.md", "lab/*.md") for file in ROOT.glob(pattern)
)
CONFIGURATION = ROOT / "docs" / "configuration.md"


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def prose_of(file: Path) -> str:
    """The text without fenced blocks, whose content only looks like links."""
    return re.sub(r"^\s*```.*?^\s*```", "", text_of(file), flags=re.DOTALL | re.MULTILINE)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def links(file: Path) -> Iterator[str]:
    """Links to files of ours, with their fragments."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(file)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(file: Path) -> set[str]:
    """The fragments that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(file), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_links_lead_somewhere(file: Path) -> None:
    """Every link to a file of ours finds it, and its heading when it names one."""
    broken = []
    for link in links(file):
        path, _, fragment = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)

    assert broken == []


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", text_of(ROOT / "Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_make_commands_exist(file: Path) -> None:
    """A document names only targets that `make help` lists."""
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)\b", text_of(file), flags=re.MULTILINE))

    assert named <= make_targets()


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, word))


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_watchkeeper_commands_exist(file: Path) -> None:
    """A document names only commands that `watchkeeper --help` lists, ours or the lab's."""
    known = {words[:1] for words in commands(get_command(app))} | {("demo",), ("drill",), ("lab",)}
    nested = {words for words in commands(get_command(app)) if len(words) == 2} | {
        ("eval", "alerts"),
        ("eval", "diagnosis"),
        ("eval", "similar"),
    }
    groups = {words[0] for words in nested}
    named = re.findall(r"(?:^|`)watchkeeper ([a-z-]+)(?: ([a-z-]+))?", text_of(file), flags=re.MULTILINE)

    assert {first for first, _ in named if (first,) not in known} == set()
    assert {(first, second) for first, second in named if first in groups and second} <= nested


def test_every_variable_is_documented_and_every_documented_variable_is_read() -> None:
    """The table of docs/configuration.md and bot/settings.py have the same names."""
    documented = re.findall(r"^\| `([A-Z_]+)` \|", text_of(CONFIGURATION), flags=re.MULTILINE)

    assert sorted(documented) == sorted(VARIABLES)
    assert tuple(documented[-len(PROCESS) :]) == PROCESS  # "each variable but the last nine also works with _FILE"
    assert len(PROCESS) == 9


@pytest.mark.parametrize("file", DOCUMENTS, ids=name)
def test_no_document_names_a_variable_that_nobody_reads(file: Path) -> None:
    """A variable in a document is a setting, or an example of a credential that the configuration names."""
    examples = {"PROMETHEUS_TOKEN", "KUBE_READ_TOKEN", "KUBE_ACTION_TOKEN", "LANGFUSE_READ", "LANGFUSE_WRITE"}
    ours = re.compile(r"`((?:SLACK|PAGERDUTY|WATCHKEEPER|PROMETHEUS|INCIDENT|SOCKET|DATABASE)_[A-Z_]+)\b")
    named = {found if found in PROCESS else found.removesuffix("_FILE") for found in ours.findall(text_of(file))}

    assert named - set(VARIABLES) - examples == set()


@pytest.mark.parametrize(
    "entry",
    [
        PrometheusSource, RecorderSource, LangfuseSource, GitSource, MlflowSource, PhoenixSource, ArgoSource,
        FlagSource, TraceSource, Cluster, Gateway, HttpEndpoint, Command, Workflow, InferenceEngine, VectorStore,
        Service, ServiceTraces, Budgets, Deployment, PromptRef, Provider, PolicyRule, Freeze, Limit,
        CheckpointPlace, Person,
    ],
)  # fmt: skip
def test_every_key_is_documented(entry: type[Entry]) -> None:
    """Whoever writes a configuration finds each key in docs/configuration.md."""
    words = set(re.findall(r"`\[*(?:service\.)?([a-z0-9_]+)\]*`", text_of(CONFIGURATION)))

    assert set(entry.model_fields) - words == set()


def test_decisions_are_numbered_and_listed() -> None:
    """Each ADR has a number of its own, a status, and a link from the architecture."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [record.name[:4] for record in records]

    assert len(records) >= 3
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name) for record in records)
    assert len(set(numbers)) == len(numbers)
    for record in records:
        assert re.match(rf"# {record.name[:4]}: ", text_of(record)), record.name
        assert "\nStatus: " in text_of(record), record.name
        assert f"adr/{record.name}" in text_of(ROOT / "docs" / "architecture.md"), record.name


def test_the_slack_manifest_asks_for_what_is_used_and_no_more() -> None:
    """A scope that is missing breaks a button at 3 a.m.; one that is not needed is a right to steal."""
    manifest = yaml.safe_load(text_of(ROOT / "deploy" / "slack-manifest.yaml"))
    calls = "".join(text_of(file) for file in sorted((ROOT / "bot" / "slack").glob("*.py")))

    needed = {scope for call, scopes in SCOPES.items() if f".{call}(" in calls for scope in scopes}

    assert set(manifest["oauth_config"]["scopes"]["bot"]) == needed | {"commands", "app_mentions:read"}
    assert manifest["features"]["slash_commands"][0]["command"] == "/oncall"
    assert manifest["settings"]["event_subscriptions"]["bot_events"] == ["app_mention"]


SCOPES = {
    "chat_postMessage": {"chat:write"},
    "chat_update": {"chat:write"},
    "chat_postEphemeral": {"chat:write"},
    "files_upload_v2": {"files:write"},
    "conversations_history": {"channels:history", "groups:history"},
    "conversations_replies": {"channels:history", "groups:history"},
    "users_info": {"users:read"},
    "usergroups_list": {"usergroups:read"},
    "usergroups_users_list": {"usergroups:read"},
    "users_list": {"users:read"},
    "conversations_list": {"channels:read", "groups:read"},
    "reactions_add": {"reactions:write"},
    "pins_add": {"pins:write"},
}


def test_the_example_shows_every_kind_of_entry() -> None:
    """Whoever copies the example sees where everything goes."""
    example = text_of(ROOT / "watchkeeper.example.toml")
    kinds = {
        "policy": "policy",
        "people": "person",
        "runbooks": "runbooks",
        "break_glass": "break_glass",
        "role_sources": "role_source",
    }

    for field in set(Config.model_fields) - {"path"}:
        assert f"[[{kinds.get(field, field.removesuffix('s'))}]]" in example
