"""The demo: what it writes for the product, the processes it starts, the people who act, and how it judges."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI, Request, Response
from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from typer.testing import CliRunner

from bot.config import load_config
from bot.library import faults
from bot.settings import Settings
from lab.actors import play_story
from lab.commands import demo
from lab.configuration import (
    Addresses,
    environment,
    new_credentials,
    read_environment,
    watchkeeper_toml,
    write_environment,
)
from lab.demo import names_culprit
from lab.demo_processes import Child, DemoError, keep_running, must_not_end, run_once, without_product_settings
from lab.gauges import MEAN_TTFT, PREFIX_HITS, FleetGauges, samples, total
from lab.listening import listening, local_client, new_socket, url_of
from lab.people import CHANNEL, KNOWN_TO_WATCHKEEPER, MALLORY, TEAM
from lab.serve import Lab, LabOptions
from lab.slack_text import as_text
from lab.switches import Switches
from runbooks.engine.library import load_folder
from tests.lab.played_worlds import SmallWorld
from tests.lab_workspace import CARD, LocalSlack, local_slack, until

ADDRESSES = Addresses(
    page="http://127.0.0.1:1",
    slack_api="http://127.0.0.1:1/api",
    pagerduty="https://127.0.0.1:2",
    events="http://127.0.0.1:3",
    kubernetes="http://127.0.0.1:4",
    langfuse="http://127.0.0.1:5",
    litellm="http://127.0.0.1:8",
    launchdarkly="http://127.0.0.1:9",
    qdrant="http://127.0.0.1:10",
    metrics="http://127.0.0.1:6",
    product="http://127.0.0.1:7",
)


# -- what it writes --------------------------------------------------------------------------------------------------


def test_the_product_reads_the_configuration_that_the_lab_writes(tmp_path: Path) -> None:
    """Checked by the product's own reader: who is known, who may approve, and that a stranger is nobody."""
    (tmp_path / "history.om").write_text("# EOF\n", encoding="utf-8")
    path = tmp_path / "watchkeeper.toml"
    path.write_text(watchkeeper_toml(ADDRESSES, pace=20, history="history.om"), encoding="utf-8")

    config = load_config(path)

    service = config.service_for_pagerduty("PCHAT01")
    assert service is not None
    assert (service.name, service.mode, service.environment) == ("chat", "approve", "prod")
    assert list(service.approvers["prompt-owner"]) == ["bob"]
    known = [config.person_for_slack(TEAM, person.slack) for person in KNOWN_TO_WATCHKEEPER]
    assert [person.id for person in known if person] == ["alice", "bob", "dana"]
    assert config.person_for_slack(TEAM, MALLORY.slack) is None


def test_the_teams_own_runbooks_can_be_carried_out_in_this_lab(tmp_path: Path) -> None:
    """Nothing is wrong with them, and each flag and store that they name is there."""
    (tmp_path / "watchkeeper.toml").write_text(watchkeeper_toml(ADDRESSES, pace=20, history="history.om"))
    config = load_config(tmp_path / "watchkeeper.toml")
    count, problems = faults([folder.path for folder in config.runbooks])
    assert (count, problems) == (3, [])
    books = [book for folder in config.runbooks for book in load_folder(folder.path)[0]]
    [chat] = config.services
    flags = {str(step.params["flag"]) for book in books for step in book.steps if "flag" in step.params}
    switches = {pattern.format(agent="support", tool="calendar") for pattern in chat.kill_switches.values()}
    assert flags | switches <= Switches(stage=SmallWorld().stage).flags.keys()
    assert chat.retrieval is not None, "its store has an entry of its own, or the configuration would not be read"


def test_the_environment_is_private_and_complete(tmp_path: Path) -> None:
    """The product needs nothing else to serve; nobody else on the machine may read its secrets."""
    (tmp_path / "ca.pem").write_text("", encoding="utf-8")
    variables = environment(
        tmp_path,
        ADDRESSES,
        new_credentials(),
        slack_bot_token="xoxb-1",
        slack_signing_secret="s1",
        pagerduty_api_key="k1",
        pagerduty_webhook_secrets=("w1", "w2"),
    )
    write_environment(tmp_path, variables)

    read = read_environment(tmp_path)
    settings = Settings.load(read)

    assert read == variables
    assert settings.missing_for_serving() == ()
    assert settings.watchkeeper_port == 7
    assert settings.secret("LANGFUSE_WRITE") is not None
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600


def test_real_tokens_do_not_reach_a_drill() -> None:
    """Somebody who runs the demo in the shell of a real deployment must not page real people."""
    mine = {"PATH": "/bin", "SLACK_BOT_TOKEN": "xoxb-real", "PAGERDUTY_API_KEY_FILE": "/run/key", "DATABASE_URL": "x"}

    assert without_product_settings(mine) == {"PATH": "/bin"}


# -- its processes ---------------------------------------------------------------------------------------------------


def child(tmp_path: Path, script: str) -> Child:
    return Child("the child", "-c", script, log=tmp_path / "child.log")


@pytest.mark.parametrize("was_ready", [True, False])
async def test_a_killed_product_is_started_again(tmp_path: Path, was_ready: bool) -> None:  # noqa: FBT001 - a case
    """As a supervisor would, also in the middle of its start; its process id is in a file."""
    product = child(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    is_up = asyncio.Event()
    if was_ready:
        is_up.set()
    await product.start()
    first = int((tmp_path / "child.pid").read_text())
    watch = asyncio.create_task(keep_running(product, is_up))
    await until(lambda: product.tail() == "up")
    os.kill(first, signal.SIGKILL)
    await until(lambda: product.tail() == "up\nup")
    second = int((tmp_path / "child.pid").read_text())
    watch.cancel()
    await product.stop()

    assert second != first
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


async def test_a_product_that_ends_before_it_was_ready_is_told_of(tmp_path: Path) -> None:
    """Starting it again would not help; the end of its log says why."""
    product = child(tmp_path, "import sys; print('watchkeeper.toml:3: no such service'); sys.exit(2)")
    await product.start()

    with pytest.raises(DemoError, match=r"status 2:\nwatchkeeper\.toml:3: no such service"):
        await keep_running(product, asyncio.Event())


async def test_a_lab_that_ends_is_the_end(tmp_path: Path) -> None:
    """Its state is gone, so there is nothing to go on with."""
    lab = child(tmp_path, "")
    await lab.start()

    with pytest.raises(DemoError, match="status 0"):
        await must_not_end(lab)


async def test_a_failed_migration_stops_the_start(tmp_path: Path) -> None:
    """And its log is shown."""
    with pytest.raises(DemoError, match="no disk"):
        await run_once(child(tmp_path, "raise SystemExit('no disk')"))


async def test_a_child_that_will_not_stop_is_ended(tmp_path: Path) -> None:
    """Nothing of a demo may stay behind."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    deaf = child(tmp_path, script)
    await deaf.start()
    await until(lambda: deaf.tail() == "deaf")

    await deaf.stop(patience_s=0.1)

    assert await deaf.wait() == -signal.SIGKILL


# -- the people ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def small_product(outage: list[int]) -> AsyncIterator[tuple[LocalSlack, list[str]]]:
    """
    A card with its buttons, and an app that lets Bob approve; gives the clicks that it took.

    While `outage` has numbers it answers with them instead, as a product does that is being started again.
    """
    socket = new_socket()
    clicks: list[str] = []
    async with local_slack(app_url=url_of(socket) + "/slack/events") as slack:
        bolt = AsyncApp(client=slack.client, signing_secret=slack.workspace.signing_secret)
        acknowledge = {"type": "button", "action_id": "acknowledge", "text": {"type": "plain_text", "text": "Ack"}}
        incident = {"type": "actions", "block_id": "incident", "elements": [acknowledge]}
        blocks: list[dict[str, Any]] = [*CARD, incident]
        ts = str((await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=blocks))["ts"])

        async def take_away(block_id: str) -> None:
            blocks[:] = [block for block in blocks if block.get("block_id") != block_id]
            await slack.client.chat_update(channel=CHANNEL, ts=ts, text="card", blocks=blocks)

        @bolt.action("approve")
        async def approve(ack: AsyncAck, respond: AsyncRespond, body: dict[str, Any]) -> None:
            await ack()
            clicks.append(f"approve by {body['user']['id']}")
            if body["user"]["id"] == "U0BOB":
                await take_away("fix")
            else:
                await respond(text="You may not approve this.", replace_original=False)

        @bolt.action("acknowledge")
        async def take_incident(ack: AsyncAck, body: dict[str, Any]) -> None:
            await ack()
            clicks.append(f"acknowledge by {body['user']['id']}")
            await take_away("incident")

        handler = AsyncSlackRequestHandler(bolt)
        web = FastAPI()

        @web.post("/slack/events")
        async def door(request: Request) -> Response:
            return Response(status_code=outage.pop(0)) if outage else await handler.handle(request)

        async with listening(web, socket):
            yield slack, clicks


@pytest.mark.integration
async def test_the_actors_play_through_slacks_public_face() -> None:
    """Mallory is refused, Alice acknowledges, Bob approves, in that order and once each."""
    said: list[str] = []
    async with small_product([]) as (slack, clicks), asyncio.timeout(10):
        await play_story(slack.browser, said.append)

    assert clicks == ["approve by U0MALLORY", "acknowledge by U0ALICE", "approve by U0BOB"]
    assert "You may not approve this." in said[2]


@pytest.mark.integration
async def test_the_actors_press_again_when_the_app_did_not_answer() -> None:
    """Like people who see Slack's warning sign while the product is being started again."""
    async with small_product([503, 502, 503]) as (slack, clicks), asyncio.timeout(10):
        await play_story(slack.browser, lambda _line: None)

    assert clicks == ["approve by U0MALLORY", "acknowledge by U0ALICE", "approve by U0BOB"]


@pytest.mark.parametrize(
    ("card", "culprit", "is_named"),
    [
        ("Suspect  production of prompt a is on version 8, before that 7", {"prompt": "a", "version": 8}, True),
        ("Suspect  production of prompt b is on version 8, before that 7", {"prompt": "a", "version": 8}, False),
        ("Suspect  a revision 3: --x 1 -> 2", {"deployment": "a", "revision": 3}, True),
        ("Suspect  a revision 31: --x 1 -> 2", {"deployment": "a", "revision": 3}, False),
        ("nobody changed anything", None, True),
    ],
)
def test_a_good_end_needs_the_guilty_change_on_the_card(
    card: str,
    culprit: dict[str, Any] | None,
    is_named: bool,  # noqa: FBT001 - a case
) -> None:
    """A story is not told well when the card blames the harmless change, however the fix went."""
    assert names_culprit(card, culprit) == is_named


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--scenario", "S99"), "there is no S99; there is"), (("--scenario", "all"), "needs --headless")],
)
def test_a_demo_that_cannot_be_played_is_refused(
    arguments: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started, in words."""
    monkeypatch.delenv("HEADLESS", raising=False)
    app = typer.Typer()
    app.command()(demo)
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert complaint in told.output


def test_a_thread_reads_as_text() -> None:
    """Who, when, what; buttons in brackets, entities as characters, replies indented."""
    message = {
        "ts": "1795341800.000001",
        "user": "U0WATCH",
        "author": "Watchkeeper",
        "text": "card",
        "blocks": [
            *CARD[:1],
            {"type": "section", "text": {"type": "mrkdwn", "text": "p95 &lt; 1 s, see <https://example.com|this>"}},
            CARD[2],
        ],
        "replies": [{"ts": "1795341801.000001", "user": "U0BOB", "author": "Bob Brandt", "text": "on it"}],
    }

    assert as_text(message) == (
        "10:03:20  Watchkeeper\n"
        "    == chat: first token is slow ==\n"
        "    p95 < 1 s, see this (https://example.com)\n"
        "    [Approve fix] [Request another fix]\n"
        "    10:03:21  Bob Brandt\n"
        "        on it"
    )


# -- the lab as a whole ----------------------------------------------------------------------------------------------


def test_totals_add_up_over_series_and_leave_buckets_out() -> None:
    """The status bar needs sums and counts, of all series or of those with a label."""
    text = '# HELP a b\na_sum{pod="1"} 1.5 1700000000000\na_sum{pod="2"} 2\na_bucket{le="+Inf"} 9\nb_total 3\n'
    read = samples(text)

    assert {name for name, _ in read} == {"a_sum", "b_total"}
    assert (total(read, "a_sum"), total(read, "a_sum", 'pod="2"'), total(read, "b_total")) == (3.5, 2.0, 3.0)


@pytest.mark.integration
async def test_everything_in_the_lab_listens_and_stops(tmp_path: Path) -> None:
    """lab.json appears when all of it answers; after `stop` nothing listens and no task is left."""
    lab = Lab(LabOptions(folder=tmp_path, scenario="S04", pace=20, seed=1, product="http://127.0.0.1:9"))
    running = asyncio.create_task(lab.run())
    async with asyncio.timeout(60):
        while not (tmp_path / "lab.json").exists():
            assert not running.done()
            await asyncio.sleep(0.05)
    async with local_client() as client:
        state = (await client.get(lab.addresses.page + "/lab/state")).json()
        truth = (await client.get(lab.addresses.page + "/lab/truth")).json()
        exposition = await client.get(lab.addresses.metrics + "/metrics")
        refused = await client.get(lab.addresses.kubernetes + "/apis/apps/v1/namespaces/chat/deployments")
        event = await client.post(lab.addresses.events + "/v2/enqueue", json={})
    lab.stop()
    await running

    assert (state["scenario"], state["pace"], state["incident"]) == ("S04", 20, "none")
    assert truth["healed"] is False
    assert "vllm:time_to_first_token_seconds_bucket" in exposition.text
    assert refused.status_code == 401
    assert event.status_code == 400
    assert load_config(tmp_path / "watchkeeper.toml").service("chat") is not None


@pytest.mark.integration
async def test_the_status_bar_shows_the_fault(tmp_path: Path) -> None:
    """The gauges are those of the last minute: slow first tokens and hardly a prefix hit while the prompt is wrong."""
    lab = Lab(LabOptions(folder=tmp_path, scenario="S04", pace=20, seed=1, product="http://127.0.0.1:9"))
    await lab.world.prepare()
    gauges = FleetGauges(lab.world.fleet, (MEAN_TTFT, PREFIX_HITS))
    gauges.read()
    for _ in range(4):
        lab.world.fleet.step()
    ttft, hits = gauges.read()

    assert 0.6 < ttft["value"] < 0.9
    assert 0.0 < hits["value"] < 0.15


@pytest.mark.integration
async def test_the_demo_fails_in_words_when_the_product_cannot_start(tmp_path: Path) -> None:
    """The whole command, with a product that only complains: exit status 1, and its complaint is printed."""
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from lab.demo import DemoOptions, play\n"
        "from lab.drill import DrillOptions\n"
        f"drill = DrillOptions(folder=Path({str(tmp_path)!r}),"
        " product=('-c', 'raise SystemExit(\"no such table\")'))\n"
        "sys.exit(asyncio.run(play(DemoOptions(drills=(drill,), is_headless=True))))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()

    assert process.returncode == 1
    assert "the demo cannot go on: watchkeeper migrate ended with status 1:\nno such table" in output.decode()
