"""Argo CD's syncs and the flags of LaunchDarkly and Unleash, read over HTTP from stand-ins with documented shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.argocd import ArgoSyncs
from diagnostics.changes.change import ChangeSource, ChangeSourceError
from diagnostics.changes.flags import LaunchDarklyFlags, UnleashFlags
from diagnostics.target import Deployment, Target
from tests.change_servers import ArgoServer, Guarded, LaunchDarklyServer, UnleashServer, milliseconds, rfc3339

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(
    service="chat",
    namespace="chat",
    deployments=(Deployment(name="chat-vllm", kind="engine"), Deployment(name="chat-gateway", kind="gateway")),
)


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


def sync(number: int, minutes: float, revision: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "revision": revision,
        "deployedAt": rfc3339(ago(minutes)),
        "deployStartedAt": rfc3339(ago(minutes + 1)),
        "initiatedBy": {"username": "alice"},
        "source": {"repoURL": "https://git.example.com/deploy", "path": "chat"},
        **more,
    }


def application(name: str, *history: dict[str, Any], resources: tuple[str, ...] = ("chat-vllm",)) -> dict[str, Any]:
    made = [{"group": "apps", "kind": "Deployment", "namespace": "chat", "name": each} for each in resources]
    return {"metadata": {"name": name}, "status": {"history": list(history), "resources": made}}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers={"Authorization": "right"}) as opened:
        yield opened


@pytest.fixture
async def argo() -> AsyncIterator[ArgoServer]:
    server = ArgoServer(token="right")
    async with server.running():
        yield server


@pytest.fixture
async def launchdarkly() -> AsyncIterator[LaunchDarklyServer]:
    server = LaunchDarklyServer(token="right")
    async with server.running():
        yield server


@pytest.fixture
async def unleash() -> AsyncIterator[UnleashServer]:
    server = UnleashServer(token="right")
    async with server.running():
        yield server


async def test_a_sync_is_a_change_of_what_it_deployed(argo: ArgoServer, client: httpx.AsyncClient) -> None:
    """From which revision to which, by whom, since it started; older ones are what it is compared with."""
    argo.applications = [application("chat", sync(3, 900, "a" * 40), sync(4, 8, "b" * 40))]

    [change] = await ArgoSyncs(name="argo", url=argo.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert (change.id, change.kind, change.author, change.at) == ("argo:chat:4", "config", "alice", ago(9))
    assert change.summary == f"Argo CD synced chat: {'a' * 12} -> {'b' * 12}"
    assert change.scope == {"deployment": ("chat-vllm",)}
    assert change.before == f"revision {'a' * 40}\nfrom https://git.example.com/deploy chat"
    assert change.url == f"{argo.url}/applications/chat"


async def test_an_application_of_several_sources_is_read(argo: ArgoServer, client: httpx.AsyncClient) -> None:
    """Then there are `revisions` and `sources`, and an automatic sync has nobody's name."""
    several = {"revisions": ["1.2.3", "c" * 40], "sources": [{"repoURL": "https://charts", "chart": "vllm"}, {}]}
    automatic = {"initiatedBy": {"automated": True}, "source": {}}
    argo.applications = [application("chat", sync(1, 8, "", **several, **automatic), resources=("chat-gateway",))]

    [change] = await ArgoSyncs(name="argo", url=argo.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert (change.kind, change.author) == ("gateway", "Argo CD")
    assert change.after == f"revision 1.2.3, {'c' * 40}\nfrom https://charts vllm"


async def test_other_peoples_applications_are_not_told(argo: ArgoServer, client: httpx.AsyncClient) -> None:
    """One belongs to a service by what it deployed, in the service's namespace."""
    elsewhere = application("elsewhere", sync(1, 8, "a"))
    elsewhere["status"]["resources"][0]["namespace"] = "other"
    argo.applications = [application("search", sync(1, 8, "a"), resources=("search",)), elsewhere]

    assert await ArgoSyncs(name="argo", url=argo.url, client=client).changes(CHAT, SINCE, UNTIL) == []


async def test_named_applications_are_asked_one_by_one(argo: ArgoServer, client: httpx.AsyncClient) -> None:
    """For a token that may not list them all; one that it may not see is said."""
    argo.applications = [application("chat", sync(1, 8, "a"))]
    source = ArgoSyncs(name="argo", url=argo.url, client=client, applications=["chat"])
    other = ArgoSyncs(name="argo", url=argo.url, client=client, applications=["chat", "../secret"])

    assert len(await source.changes(CHAT, SINCE, UNTIL)) == 1
    with pytest.raises(ChangeSourceError, match="refuses the credential"):
        await other.changes(CHAT, SINCE, UNTIL)
    assert {one.path for one in argo.seen} == {"/api/v1/applications/chat", "/api/v1/applications/..%2Fsecret"}


def entry(number: int, minutes: float, flag: str = "new-prompt", **more: Any) -> dict[str, Any]:
    return {
        "_id": f"e{number}",
        "date": milliseconds(ago(minutes)),
        "kind": "flag",
        "name": flag,
        "titleVerb": "turned on the flag",
        "description": "",
        "comment": "for the launch",
        "member": {"email": "ariel@example.com", "firstName": "Ariel", "lastName": "Flores"},
        "target": {"name": flag, "resources": [f"proj/default:env/production:flag/{flag};tag"]},
        **more,
    }


def darkly(server: LaunchDarklyServer, client: httpx.AsyncClient, *flags: str) -> LaunchDarklyFlags:
    return LaunchDarklyFlags(
        name="flags", url=server.url, client=client, project="default", environment="production", flags=flags
    )


async def test_a_switched_flag_is_a_change(launchdarkly: LaunchDarklyServer, client: httpx.AsyncClient) -> None:
    """Who, what, when and why, of this project and environment."""
    launchdarkly.entries = [entry(1, 8), entry(2, 700)]

    [change] = await darkly(launchdarkly, client).changes(CHAT, SINCE, UNTIL)

    assert (change.id, change.kind, change.author, change.at) == ("flags:e1", "flag", "Ariel Flores", ago(8))
    assert change.summary == "flag new-prompt: turned on the flag (for the launch)"
    assert change.undo == {"flag": "new-prompt", "flag_source": "flags", "flag_was_on": "false"}
    [asked] = launchdarkly.seen
    assert "spec=proj%2Fdefault%3Aenv%2Fproduction%3Aflag%2F%2A" in asked.path


@pytest.mark.parametrize(
    ("verb", "flags", "was_on"),
    [
        ("turned off the flag", ["a"], "true"),
        ("updated the rules of the flag", ["a"], None),  # no switch takes that back
        ("turned on the flag", ["a", "b"], None),
        ("turned on the flag", [], None),
    ],
)
async def test_one_flag_that_was_switched_can_be_switched_back(
    launchdarkly: LaunchDarklyServer, client: httpx.AsyncClient, verb: str, flags: list[str], was_on: str | None
) -> None:
    """To what it was; where there is no one flag, there is nothing to take back."""
    resources = [f"proj/default:env/production:flag/{flag}" for flag in flags]
    launchdarkly.entries = [entry(1, 8, titleVerb=verb, target={"name": "x", "resources": resources})]

    [change] = await darkly(launchdarkly, client).changes(CHAT, SINCE, UNTIL)

    assert change.undo == ({"flag": "a", "flag_source": "flags", "flag_was_on": was_on} if was_on else {})


async def test_every_page_of_the_audit_log_is_read(launchdarkly: LaunchDarklyServer, client: httpx.AsyncClient) -> None:
    """Twenty at a time; several in one millisecond are neither lost nor told twice."""
    launchdarkly.entries = [entry(number, 5 + number // 3) for number in range(50)]

    found = await darkly(launchdarkly, client).changes(CHAT, SINCE, UNTIL)

    assert len(found) == len({change.id for change in found}) == 50
    assert len(launchdarkly.seen) == 3


async def test_too_many_entries_are_a_blind_spot(launchdarkly: LaunchDarklyServer, client: httpx.AsyncClient) -> None:
    """Not a part of them that looks like all."""
    launchdarkly.entries = [entry(number, 1 + number / 10) for number in range(600)]

    with pytest.raises(ChangeSourceError, match="more than 500 entries"):
        await darkly(launchdarkly, client).changes(CHAT, SINCE, UNTIL)


async def test_only_the_flags_that_count(launchdarkly: LaunchDarklyServer, client: httpx.AsyncClient) -> None:
    """By shell patterns over their keys, which are not their names."""
    launchdarkly.entries = [entry(1, 8, flag="chat-model", name="Chat model"), entry(2, 7, flag="shop-banner")]

    found = await darkly(launchdarkly, client, "chat-*").changes(CHAT, SINCE, UNTIL)

    assert [change.id for change in found] == ["flags:e1"]


def event(number: int, minutes: float, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "feature-environment-enabled",
        "createdBy": "admin@example.com",
        "createdAt": rfc3339(ago(minutes)),
        "data": {"enabled": True},
        "preData": {"enabled": False},
        "featureName": "new-prompt",
        "project": "default",
        "environment": "production",
        **more,
    }


def unleashed(server: UnleashServer, client: httpx.AsyncClient, *flags: str) -> UnleashFlags:
    return UnleashFlags(
        name="unleash", url=server.url, client=client, project="default", environment="production", flags=flags
    )


async def test_an_event_of_a_flag_is_a_change(unleash: UnleashServer, client: httpx.AsyncClient) -> None:
    """Its states before and after can be compared."""
    unleash.events = [event(1, 8), event(2, 700)]

    [change] = await unleashed(unleash, client).changes(CHAT, SINCE, UNTIL)

    assert (change.id, change.kind, change.author, change.at) == ("unleash:1", "flag", "admin@example.com", ago(8))
    assert change.summary == "flag new-prompt: feature environment enabled in production"
    assert change.undo == {"flag": "new-prompt", "flag_source": "unleash", "flag_was_on": "false"}
    assert (change.before, change.after) == ('{\n "enabled": false\n}', '{\n "enabled": true\n}')


async def test_other_environments_projects_and_things_are_not_told(
    unleash: UnleashServer, client: httpx.AsyncClient
) -> None:
    """An event without an environment touches all of them; one without a flag is none of a flag."""
    unleash.events = [
        event(1, 8, environment="development"),
        event(2, 7, project="shop"),
        event(3, 6, featureName=None, type="user-created"),
        event(4, 5, environment=None, type="feature-archived"),
        event(5, 4, featureName="shop-banner"),
    ]

    found = await unleashed(unleash, client, "new-*").changes(CHAT, SINCE, UNTIL)

    assert [change.id for change in found] == ["unleash:4"]


async def test_every_page_of_events_is_read(unleash: UnleashServer, client: httpx.AsyncClient) -> None:
    """A hundred at a time, and no page before the time that is asked for."""
    unleash.events = [event(1000 - number, 1 + number) for number in range(900)]

    found = await unleashed(unleash, client).changes(CHAT, SINCE, UNTIL)

    assert len(found) == 360
    assert len(unleash.seen) == 4


@pytest.mark.parametrize("fault", [500, "garbage", "deep", "reset", "hang", "redirect", "gzip"])
async def test_a_broken_far_end_is_a_blind_spot(client: httpx.AsyncClient, fault: int | str) -> None:
    """One error of ours, whatever happens there; a redirect is not followed."""
    for server in (ArgoServer(token="right"), LaunchDarklyServer(token="right"), UnleashServer(token="right")):
        async with server.running():
            server.faults.before["GET"] = fault
            server.faults.elsewhere = f"{server.url}/elsewhere"
            with pytest.raises(ChangeSourceError, match=r"cannot be reached|answered"):
                await over(server, client).changes(CHAT, SINCE, UNTIL)
            assert len(server.seen) == 1


async def test_a_wrong_token_is_said_and_not_shown() -> None:
    """By every one of them."""
    for server in (ArgoServer(token="right"), LaunchDarklyServer(token="right"), UnleashServer(token="right")):
        async with server.running(), httpx.AsyncClient(headers={"Authorization": "hunter2"}) as client:
            with pytest.raises(ChangeSourceError, match="refuses the credential") as refused:
                await over(server, client).changes(CHAT, SINCE, UNTIL)
            assert "hunter2" not in str(refused.value)


def over(server: Guarded, client: httpx.AsyncClient) -> ChangeSource:
    """The source of this server, with little patience."""
    if isinstance(server, ArgoServer):
        return ArgoSyncs(name="argo", url=server.url, client=client, patience_s=0.5)
    flags = LaunchDarklyFlags if isinstance(server, LaunchDarklyServer) else UnleashFlags
    return flags(
        name="flags", url=server.url, client=client, project="default", environment="production", patience_s=0.5
    )
