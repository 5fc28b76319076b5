"""The doctor: what it finds in a healthy installation, and what it says about each thing that is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot.config import Config, load_config
from bot.doctor import EXAMINERS, clusters, database, examine, gateways, installation, pagerduty, report, slack
from bot.doctor.advice import Advice, State
from bot.settings import Settings
from bot.store import schema
from tests.rows_server import Rows, rows_served
from tests.slack_server import TEAM, SlackServer, account

CONFIG = f"""
format = 1
[[datasource]]
name = "metrics"
kind = "prometheus"
url = "http://127.0.0.1:9"
[[cluster]]
name = "lab"
url = "CLUSTER"
credential = "KUBE_READ"
action_credential = "KUBE_ACT"
[[service]]
name = "chat"
pagerduty_service = "PCHAT"
namespace = "chat"
cluster = "lab"
[service.selectors]
serving = {{namespace = "chat"}}
[[person]]
id = "alice"
name = "Alice Ahn"
slack = ["{TEAM}/U0ALICE"]
pagerduty = "PALICE"
email = "alice@example.com"
"""
ALL_SCOPES = "app_mentions:read,chat:write,commands,files:write,users:read,channels:history"
SERVICES = [{"id": "PCHAT", "name": "chat", "status": "active"}]
USERS = [
    {"id": "PALICE", "name": "Alice Ahn", "email": "alice@example.com"},
    {"id": "PBOT", "name": "Watchkeeper", "email": "bot@example.com"},
]
HOOK: dict[str, Any] = {
    "delivery_method": {"url": "https://wk.example.com/webhooks/pagerduty"},
    "active": True,
    "events": list(pagerduty.NEEDED_EVENTS),
    "filter": {"type": "account_reference"},
}
HEALTHY: Rows = {"services": SERVICES, "users": USERS, "webhook_subscriptions": [HOOK]}


def config(tmp_path: Path, cluster: str = "http://127.0.0.1:9") -> Config:
    path = tmp_path / "watchkeeper.toml"
    path.write_text(CONFIG.replace("CLUSTER", cluster), encoding="utf-8")
    return load_config(path)


def settings(tmp_path: Path, **more: str) -> Settings:
    return Settings.load({"DATABASE_URL": f"sqlite:///{tmp_path / 'wk.sqlite'}", **more})


def bad(found: list[Advice], *, state: State = State.BAD) -> dict[str, Advice]:
    return {advice.about: advice for advice in found if advice.state is state}


@pytest.fixture
async def slack_server() -> AsyncIterator[SlackServer]:
    server = SlackServer(accounts={"U0ALICE": account("U0ALICE")})
    runner = await server.start()
    yield server
    await runner.cleanup()


def signed_in(server: SlackServer, tmp_path: Path, scopes: str = ALL_SCOPES, **more: str) -> Settings:
    body = json.dumps({"ok": True, "team_id": TEAM, "team": "lab", "user": "watchkeeper"})
    server.faults["auth.test"] = [(200, {"x-oauth-scopes": scopes}, body)]
    token = {"SLACK_BOT_TOKEN": "xoxb-test", "SLACK_API_BASE_URL": f"{server.url}/api/", "INCIDENT_CHANNEL": "C0INC"}
    return settings(tmp_path, **token, **more)


async def test_a_healthy_slack_has_nothing_to_mend(slack_server: SlackServer, tmp_path: Path) -> None:
    """Token, scopes, channel and people are fine, and nothing was posted to find that out."""
    found = await slack.examine(signed_in(slack_server, tmp_path), config(tmp_path))

    assert {advice.state for advice in found} == {State.OK}
    assert {"Slack scopes", "Slack channel", "person alice"} <= {advice.about for advice in found}
    assert not slack_server.asked("chat.postMessage")


async def test_a_missing_scope_is_named(slack_server: SlackServer, tmp_path: Path) -> None:
    """Whoever forgot `files:write` learns it now and not when the first picture fails."""
    found = await slack.examine(
        signed_in(slack_server, tmp_path, "app_mentions:read,chat:write,commands,users:read"), config(tmp_path)
    )

    [says] = [advice.says for advice in found if advice.about == "Slack scopes"]
    assert says == "missing: files:write, channels:history or groups:history"


async def test_a_channel_without_the_app_says_how_to_invite_it(slack_server: SlackServer, tmp_path: Path) -> None:
    """Slack's `not_in_channel` becomes the command that mends it."""
    prepared = signed_in(slack_server, tmp_path)
    slack_server.faults["conversations.history"] = [(200, {}, '{"ok": false, "error": "not_in_channel"}')]

    found = bad(await slack.examine(prepared, config(tmp_path)))

    assert "/invite" in found["Slack channel"].remedy


async def test_a_wrong_token_ends_the_questions(slack_server: SlackServer, tmp_path: Path) -> None:
    """With `invalid_auth` nothing else can be asked, and the remedy is the token."""
    prepared = signed_in(slack_server, tmp_path)
    slack_server.faults["auth.test"] = [(200, {}, '{"ok": false, "error": "invalid_auth"}')]

    [advice] = await slack.examine(prepared, config(tmp_path))

    assert advice.state is State.BAD
    assert "OAuth" in advice.remedy


@pytest.mark.parametrize("flag", ["deleted", "is_bot", "is_restricted"])
async def test_people_who_may_not_click_are_found(slack_server: SlackServer, tmp_path: Path, flag: str) -> None:
    """A guest, a bot or somebody who left is in the configuration, and would be refused at night."""
    slack_server.accounts["U0ALICE"][flag] = True

    found = bad(await slack.examine(signed_in(slack_server, tmp_path), config(tmp_path)))

    assert flag in found["person alice"].says


async def test_socket_mode_needs_its_own_token(slack_server: SlackServer, tmp_path: Path) -> None:
    """Slack's refusal of an app-level token is told with the scope that it needs."""
    prepared = signed_in(slack_server, tmp_path, SOCKET_MODE="true", SLACK_APP_TOKEN="xapp-test")
    slack_server.faults["apps.connections.open"] = [(200, {}, '{"ok": false, "error": "not_allowed_token_type"}')]

    found = bad(await slack.examine(prepared, config(tmp_path)))

    assert "connections:write" in found["Slack events"].remedy


async def pagerduty_says(
    rows: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender: str = "bot@example.com"
) -> list[Advice]:
    async with rows_served(rows, tmp_path) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        keys = {"PAGERDUTY_API_KEY": "key", "PAGERDUTY_API_BASE_URL": url, "PAGERDUTY_FROM": sender}
        return await pagerduty.examine(settings(tmp_path, **keys), config(tmp_path))


async def test_a_healthy_account_has_nothing_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, sender, service, person and subscription are fine."""
    found = await pagerduty_says(HEALTHY, tmp_path, monkeypatch)

    assert {advice.state for advice in found} == {State.OK}
    assert "PagerDuty webhook" in {advice.about for advice in found}


@pytest.mark.parametrize(
    ("rows", "about", "word"),
    [
        ({"services": 403}, "PagerDuty", "403"),
        ({"services": []}, "service chat", "PCHAT"),
        ({"services": [{**SERVICES[0], "status": "disabled"}]}, "service chat", "disabled"),
        ({"users": USERS[1:]}, "person alice", "PALICE"),
        ({"users": [{**USERS[0], "email": "eve@example.com"}, USERS[1]]}, "person alice", "eve@example.com"),
        ({"users": USERS[:1]}, "PagerDuty From", "bot@example.com"),
        ({"webhook_subscriptions": []}, "PagerDuty webhook", "none of 0"),
        ({"webhook_subscriptions": [{**HOOK, "events": ["incident.triggered"]}]}, "PagerDuty webhook", "resolved"),
        ({"webhook_subscriptions": [{**HOOK, "active": False}]}, "PagerDuty webhook", "not active"),
        (
            {
                "webhook_subscriptions": [
                    {**HOOK, "delivery_method": {**HOOK["delivery_method"], "temporarily_disabled": True}}
                ]
            },
            "PagerDuty webhook",
            "switched off",
        ),
    ],
)
async def test_what_is_wrong_in_pagerduty_is_named(
    rows: Rows, about: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing that would keep a page from coming, or a click from counting, with a remedy."""
    found = bad(await pagerduty_says({**HEALTHY, **rows}, tmp_path, monkeypatch))

    assert word in found[about].says
    assert found[about].remedy


async def test_an_empty_database_says_migrate(tmp_path: Path) -> None:
    """The remedy is the command itself; a file that root made by looking would be one that nobody else may write."""
    [advice] = await database.examine(settings(tmp_path), config(tmp_path))

    assert (advice.state, advice.remedy) == (State.BAD, "run `watchkeeper migrate`")
    assert not (tmp_path / "wk.sqlite").exists()


async def test_a_migrated_database_is_fine_but_nobody_works_on_it(tmp_path: Path) -> None:
    """Schema, clock and record are in order; that no process lives is said, and is no fault before the start."""
    prepared = settings(tmp_path)
    schema.upgrade(prepared.database_url.get_secret_value())

    found = await database.examine(prepared, config(tmp_path))

    assert not bad(found)
    assert "nobody works" in bad(found, state=State.UNKNOWN)["processes"].says


async def test_missing_settings_and_credentials_are_named_with_remedies(tmp_path: Path) -> None:
    """Everything that `serve` would refuse, at once."""
    found = bad(await installation.examine(settings(tmp_path), config(tmp_path)))

    assert {"settings", "credentials"} <= set(found)
    assert all(advice.remedy for advice in found.values())


class Reviews:
    """A cluster that answers SelfSubjectAccessReviews: token -> the verbs that it may use."""

    def __init__(self, allowed: Mapping[str, set[str]]) -> None:
        self.allowed = allowed

    async def answer(self, request: web.Request) -> web.Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        token = request.headers["Authorization"].removeprefix("Bearer ")
        return web.json_response({"status": {"allowed": asked["verb"] in self.allowed[token]}})


async def cluster_says(tmp_path: Path, allowed: Mapping[str, set[str]], **environ: str) -> list[Advice]:
    app = web.Application()
    app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Reviews(allowed).answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return await clusters.examine(settings(tmp_path, **environ), config(tmp_path, url))
    finally:
        await runner.cleanup()


READS = {"get", "list"}
WRITES = {*READS, "patch", "delete", "create"}
TOKENS = {"KUBE_READ": "reader", "KUBE_ACT": "actor"}


async def test_separate_accounts_with_their_rights_are_fine(tmp_path: Path) -> None:
    """One reads, one acts, and the actions that the runbooks use may run."""
    found = await cluster_says(tmp_path, {"reader": READS, "actor": WRITES}, **TOKENS)

    assert {advice.state for advice in found} == {State.OK}
    assert any("kubernetes.rollout_undo" in advice.says for advice in found)


async def test_a_reader_that_may_write_is_a_finding(tmp_path: Path) -> None:
    """Whoever steals the credential of diagnosis must not be able to change production."""
    found = bad(await cluster_says(tmp_path, {"reader": WRITES, "actor": WRITES}, **TOKENS))

    assert "change deployments" in found["cluster lab, reading"].says


async def test_an_action_without_its_rights_says_which_and_how(tmp_path: Path) -> None:
    """The remedy prints the very Role."""
    found = await cluster_says(tmp_path, {"reader": READS, "actor": {*READS, "patch"}}, **TOKENS)

    [drain] = [advice for advice in found if "kubernetes.drain" in advice.says]
    assert drain.state is State.UNKNOWN
    assert "create pods/eviction in chat" in drain.says
    assert "watchkeeper rights kubernetes.drain --namespace chat" in drain.remedy


async def test_a_process_without_action_credentials_is_not_scolded(tmp_path: Path) -> None:
    """`serve --no-work` must not have them; the doctor says where to run it, too."""
    found = await cluster_says(tmp_path, {"reader": READS}, KUBE_READ="reader")

    assert not bad(found)
    assert "KUBE_ACT" in bad(found, state=State.UNKNOWN)["cluster lab, acting"].says


async def gateway_says(tmp_path: Path, *groups: str) -> list[Advice]:
    """A LiteLLM with these model groups, which takes the key `sk-read` only."""

    async def models(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer sk-read":
            return web.json_response({"error": "no"}, status=401)
        return web.json_response({"data": [{"model_name": group} for group in groups]})

    app = web.Application()
    app.router.add_get("/v1/model/info", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    entry = f"""
[[gateway]]
name = "edge"
url = "http://127.0.0.1:{runner.addresses[0][1]}"
credential = "LITELLM_READ"
action_credential = "LITELLM_ADMIN"
"""
    path = tmp_path / "watchkeeper.toml"
    service = 'name = "chat"\ngateway = "edge"'
    text = CONFIG.replace("CLUSTER", "http://127.0.0.1:9").replace('name = "chat"', service, 1) + entry
    path.write_text(text.replace("serving = {", 'gateway = {model_group = "chat"}\nserving = {'), encoding="utf-8")
    try:
        keys = {"LITELLM_READ": "sk-read", "LITELLM_ADMIN": "sk-wrong"}
        return await gateways.examine(settings(tmp_path, **keys), load_config(path))
    finally:
        await runner.cleanup()


async def test_each_key_of_a_gateway_is_tried(tmp_path: Path) -> None:
    """The reading key is taken, the wrong acting one is named, and no key is shown."""
    found = await gateway_says(tmp_path, "chat", "search")

    assert [(advice.about, advice.state) for advice in found] == [
        ("gateway edge, reading", State.OK),
        ("gateway edge, acting", State.BAD),
    ]
    assert "401" in found[1].says
    assert "sk-" not in report(found)


async def test_a_model_group_that_the_gateway_does_not_know_is_named(tmp_path: Path) -> None:
    """A misspelt selector would mean that no fix is ever found there."""
    found = bad(await gateway_says(tmp_path, "chat-pro"))

    assert "chat (chat)" in found["gateway edge, reading"].says


async def test_what_does_not_answer_in_time_is_unknown(tmp_path: Path) -> None:
    """A dead network must not make the doctor hang, and is not "fine"."""
    prepared = settings(tmp_path, SLACK_BOT_TOKEN="xoxb-test", SLACK_API_BASE_URL="http://127.0.0.1:9/api/")

    found = await examine(prepared, config(tmp_path), ["slack", "clusters"], patience_s=0.0)

    assert [advice.state for advice in found] == [State.UNKNOWN, State.UNKNOWN]


def test_the_report_counts_and_hides_credentials() -> None:
    """One line each, remedies below, and nothing of a secret that an error message repeated."""
    found = [
        Advice.ok("database", "fine"),
        Advice.bad("Slack", "xoxb-123456789012-123456789012-abcdefghijklmnopqrstuvwx is wrong", "copy it again"),
    ]

    text = report(found)

    assert "-> copy it again" in text
    assert text.endswith("1 fine, 1 to mend, 0 cannot be told")
    assert "abcdefghijklmnop" not in text


def test_every_examiner_is_documented() -> None:
    """docs/operations.md says what the doctor looks at."""
    text = Path("docs/operations.md").read_text(encoding="utf-8")

    assert not [name for name in EXAMINERS if f"`{name}`" not in text]
