"""A credential planted in every input shows up nowhere: not in a table, not in Slack, PagerDuty or the log."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from bot.incidents import Alert, PlanState
from bot.logs import set_up_logging
from bot.pagerduty_alerts import alerts_of
from bot.redact import safe_text
from bot.store import tables
from bot.web.body import BodyLimits
from bot.web.pagerduty_door import PagerDutyDoor
from diagnostics.answer import RecordedChanges
from diagnostics.findings import Finding, Status
from runbooks.engine.actions import CommandAccess, build_actions
from tests.bot.test_discretion import CHANGED, SyntheticLook
from tests.bot.test_keeper import Desk
from tests.bot.test_pagerduty import INCIDENT as PAGED
from tests.bot.test_pagerduty import body
from tests.bot.test_remediate import Scene as Remediation
from tests.bot.test_respond import Scene
from tests.diagnosed import recorded
from tests.kit import INCIDENT, NOW, Store, step
from tests.made_up_secrets import KINDS
from tests.stories import HIT, FakePagerDuty, texts

INPUTS = (
    "title", "assignee", "unknown event", "alert summary", "alert label", "alert firing text", "prompt before",
    "prompt after", "commit message", "author", "check's error", "telemetry's error", "pagerduty's error",
    "command's output", "command's credential", "runbook title",
)  # fmt: skip
RNG = random.Random(11)
PLANTED = {name: KINDS[kind](RNG) for name, kind in zip(INPUTS, sorted(KINDS), strict=False)}


def text_of(name: str) -> str:
    return f"as seen in {PLANTED[name][0]} today"


def secret_of(name: str) -> str:
    return PLANTED[name][1]


class PagerDuty(FakePagerDuty):
    """Gives alerts as the REST API does."""

    async def alerts(self, incident_id: str) -> list[Alert]:
        details = {"token": secret_of("alert label"), "firing": f"Labels:\n - note = {text_of('alert firing text')}\n"}
        return alerts_of({"id": "PA1", "summary": text_of("alert summary"), "body": {"details": details}})


@pytest.fixture(autouse=True)
def whole_log() -> Iterator[None]:
    """The application's own set-up of the log; other tests get theirs back."""
    factory, handlers = logging.getLogRecordFactory(), list(logging.getLogger().handlers)
    set_up_logging()
    yield
    structlog.reset_defaults()
    logging.setLogRecordFactory(factory)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.integration
async def test_no_planted_credential_leaves(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Webhook, alerts, prompts, errors, a runbook and a command's output, through diagnosis, fix, card and note."""
    await page(store)
    scene = await respond(store)
    await remediate(store)
    desk = Desk(store)
    desk.pagerduty = scene.pagerduty
    await desk.draw()
    for mail in (desk.slack_mail, desk.pagerduty_mail):
        for _ in range(6):
            await desk.wait()
            await mail.sweep()

    everywhere = {
        "log": "".join(capsys.readouterr()),
        "slack": " ".join(f"{message.text} {texts(message.blocks)}" for *_, message in desk.slack.posts),
        "pictures": str(desk.slack.pictures),
        "pagerduty": " ".join(desk.pagerduty.kept_notes),
        **{table.name: await rows_of(store, table) for table in tables.metadata.sorted_tables},
    }
    leaks = {(name, place) for name in INPUTS for place, seen in everywhere.items() if secret_of(name) in seen}

    assert leaks == set()
    for place in ("log", "slack", "run", "audit", "step_record", "delivery", "plan"):  # it did go through all of them
        assert everywhere[place]
    assert "[redacted]" in everywhere["step_record"]
    assert "[redacted]" in everywhere["slack"]


async def page(store: Store) -> None:
    """A webhook, and one that we cannot read."""
    intake = store.intake()
    door = PagerDutyDoor(intake=intake, secrets=[b"s"], limits=BodyLimits())
    person = {"id": "PALICE1", "summary": text_of("assignee"), "type": "user_reference"}
    seen = {**PAGED, "id": INCIDENT, "title": f"[FIRING:1] LLMHighTTFT {text_of('title')}", "assignees": [person]}
    await door._store(body(data=seen))
    await door._store(body("incident.invented", id="01OTHER", data={"note": text_of("unknown event")}))
    await store.inbox.fold(now=NOW)


async def respond(store: Store) -> Scene:
    scene = Scene(store, hits=[replace(HIT, doc_id="of-the-team", title=text_of("runbook title"))])
    change = replace(
        CHANGED,
        before=f"{text_of('prompt before')}\n{CHANGED.before}",
        after=f"{text_of('prompt after')}\n{CHANGED.after}",
        summary=text_of("commit message"),
        author=text_of("author"),
    )

    async def broken(*_: Any) -> Finding:
        return Finding.unknown("queue", text_of("check's error"))

    look = SyntheticLook(recorded("S04"), [RecordedChanges([change])], prompt_diff="full", stores={})
    look._checks = {**look._checks, "queue": broken}
    scene.story._diagnosers = {"chat": look}
    scene.pagerduty = PagerDuty()
    scene.story._pagerduty = scene.pagerduty
    await scene.tell()
    for error in ("telemetry's error", "pagerduty's error"):
        await scene.story._add_note(INCIDENT, 1, f"It cannot be asked: {text_of(error)}")
    return scene


async def remediate(store: Store) -> None:
    """An approved command that prints what it was given."""
    credential = secret_of("command's credential")
    argv = ("/bin/sh", "-c", 'printf "%s\\n" "$MESSAGE" "$CREDENTIAL"')
    environment = {"MESSAGE": text_of("command's output"), "CREDENTIAL": credential}
    remediation = Remediation(store, [Status.OK])
    remediation.story._actions = build_actions(
        commands={"say": CommandAccess(argv=argv, environment=environment)}, redact=safe_text
    )
    said = step(action="command.run", params={"command": "say", "arguments": {}}, before={"argv": list(argv)})
    await remediation.approved(steps=(said,))
    await remediation.tell()
    structlog.get_logger().warning("done", error=ValueError(text_of("command's output")))

    assert (await remediation.end())[0] is PlanState.VERIFIED


async def rows_of(store: Store, table: sa.Table) -> str:
    async with store.database.read() as connection:
        return json.dumps([list(row) for row in await connection.execute(sa.select(table))], default=str)
