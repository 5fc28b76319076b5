"""What the stories are told with: a diagnosis of a broken prefix cache, its runbook, and neighbours that remember."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.incidents import Alert
from bot.pagerduty_client import PagerDutyError
from bot.redact import safe_text
from bot.respond import DIAGNOSIS, HITS
from bot.slack.client import SlackError
from bot.slack.line import Line
from bot.slack.pace import Rank
from bot.slack.view import Message
from diagnostics.changes.change import Change
from diagnostics.diagnosis import BlindSpot, Diagnosis, Frame, RankedCause, Stage, Suspect
from diagnostics.findings import Finding, Measure
from diagnostics.telemetry.model import TelemetryError
from retrieval.documents import Hit, Question
from runbooks.engine.values import Plan, Runbook, StepTemplate
from tests.kit import INCIDENT, NOW, Store, plan

GUILTY = Suspect(
    change=Change(
        id="prompt/chat-system/8",
        at=NOW - timedelta(minutes=13),
        kind="prompt",
        service="chat",
        summary="prompt chat-system: label production moved from version 7 to 8",
        author="dana",
        undo={"previous_version": "7"},
    ),
    score=0.9,
    reasons=("one minute before the trouble began",),
    diff="+Now: {{timestamp}}",
)
HARMLESS = Suspect(
    change=Change(
        id="prompt/chat-summary/4",
        at=NOW - timedelta(minutes=19),
        kind="prompt",
        service="chat",
        summary="prompt chat-summary: label production moved from version 3 to 4",
        undo={"previous_version": "3"},
    ),
    score=0.2,
)
FOUND = Diagnosis(
    service="chat",
    frame=Frame(at=NOW, baseline_start=NOW - timedelta(hours=1), baseline_end=NOW - timedelta(minutes=15)),
    since=NOW - timedelta(minutes=12),
    user_impact=True,
    causes=(
        RankedCause(cause="S04", title="A prompt change broke the prefix cache", probability=0.91),
        RankedCause(cause="S01", title="More load than capacity", probability=0.05),
    ),
    findings=(
        Finding.ok("gpu_xid", "The GPUs are healthy."),
        Finding.bad("prefix_cache", "Prefix hits fell.", Measure(signal="prefix_hit_ratio", value=0.03, baseline=0.4)),
    ),
    stages=(Stage(stage="prefill", now_s=0.67, baseline_s=0.43),),
    suspects=(GUILTY, HARMLESS),
    culprit_change=GUILTY.change.id,
    blind_spots=(BlindSpot(check="token_cost", why="it is not exported"),),
    next_check="the logs of the engine",
    seconds=1.5,
)
RUNBOOK = Runbook(
    runbook_id="prefix-cache-collapse",
    title="Prefix cache collapsed",
    revision="0" * 64,
    causes=("S04",),
    steps=(
        StepTemplate(
            title="Move the label back",
            action="fake.set",
            params={"to": "{suspect.previous_version}"},
            verify=("prefix_cache",),
            undo="previous",
            settle_s=60.0,
        ),
    ),
)
HIT = Hit(
    doc_id=RUNBOOK.runbook_id,
    title=RUNBOOK.title,
    heading="Roll the prompt back",
    score=0.9,
    reasons=("declares cause S04",),
)
ALERT = Alert(
    alert_id="PALERT1",
    name="LLMHighTTFT",
    summary="The first token takes 740 ms",
    labels={"alertname": "LLMHighTTFT"},
    annotations={"runbook_url": "https://git.example.com/runbooks/prefix-cache-collapse.md"},
    details={"expr": "ttft > 1.4 * baseline"},
)


class FakePagerDuty:
    """Remembers what it was told, and refuses as long as `refuses` says so."""

    def __init__(self) -> None:
        self.refuses: PagerDutyError | None = None
        self.told: list[tuple[str, ...]] = []
        self.kept_notes: list[str] = []

    def _answer(self) -> None:
        if self.refuses is not None:
            raise self.refuses

    async def alerts(self, incident_id: str) -> list[Alert]:
        self._answer()
        return [ALERT]

    async def acknowledge(self, incident_id: str, from_email: str) -> str:
        self._answer()
        self.told.append(("acknowledge", incident_id, from_email))
        return "acknowledged"

    async def resolve(self, incident_id: str, from_email: str) -> None:
        self._answer()
        self.told.append(("resolve", incident_id, from_email))

    async def notes(self, incident_id: str) -> list[str]:
        self._answer()
        return self.kept_notes

    async def add_note(self, incident_id: str, text: str, from_email: str) -> None:
        self._answer()
        self.told.append(("note", incident_id, from_email))
        self.kept_notes.append(safe_text(text))  # as the client does


class FakeSearch:
    """Finds what it was given; remembers what it was asked."""

    def __init__(self, *hits: Hit) -> None:
        self.hits = list(hits)
        self.asked: list[Question] = []

    async def search(self, question: Question, limit: int) -> list[Hit]:
        self.asked.append(question)
        return self.hits[:limit]


class FakeLook:
    """A diagnoser with one diagnosis, or with telemetry that cannot be asked."""

    def __init__(self, found: Diagnosis | None = FOUND) -> None:
        self.found = found
        self.alerts: list[str] = []
        self.telemetry: Any = self

    async def now(self) -> datetime:
        raise TelemetryError("connection refused")

    async def matrix(self, *_: Any, **__: Any) -> Any:
        raise TelemetryError("connection refused")

    async def exported(self, *_: Any, **__: Any) -> bool:
        raise TelemetryError("connection refused")

    async def diagnose(self, target: Any, *, alert: str = "") -> Diagnosis:
        self.alerts.append(alert)
        if self.found is None:
            raise TelemetryError("connection refused")
        return self.found


class FakeSlack:
    """A channel in memory. Each call first takes the next of `troubles`: None lets it through."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str, str | None, Message]] = []  # channel, key, thread, message
        self.updates: list[tuple[str, str, Message]] = []  # channel, ts, message
        self.pictures: list[tuple[str, str | None, str]] = []  # channel, thread, alt text
        self.looked_up: list[str] = []
        self.troubles: list[SlackError | None] = []
        self.loses_answers = False
        self.asked_room: list[tuple[str, Rank]] = []
        self.rooms: dict[str, int] = {}  # by method, and without end where none is named
        self.line = Line("Slack: not reachable")

    def room(self, method: str, channel: str, rank: Rank) -> int:
        self.asked_room.append((method, rank))
        return self.rooms.get(method, 99)

    def permalink(self, channel: str, ts: str) -> str:
        return f"https://acme.slack.com/archives/{channel}/p{ts}"

    def _meet_trouble(self) -> None:
        if self.troubles and (trouble := self.troubles.pop(0)) is not None:
            raise trouble

    async def post(
        self, channel: str, message: Message, *, key: str, thread_ts: str | None = None, rank: Rank = Rank.CARD
    ) -> str:
        self._meet_trouble()
        self.posts.append((channel, key, thread_ts, message))
        if self.loses_answers:
            raise SlackError("Slack cannot be reached: TimeoutError", permanent=False)
        return str(len(self.posts))

    async def update(self, channel: str, ts: str, message: Message, *, key: str, rank: Rank = Rank.CARD) -> None:
        self._meet_trouble()
        self.updates.append((channel, ts, message))

    async def upload_picture(self, channel: str, png: bytes, **more: Any) -> None:
        self._meet_trouble()
        self.pictures.append((channel, more["thread_ts"], more["alt_text"]))

    async def find_posted(self, channel: str, key: str, *, thread_ts: str | None = None) -> str | None:
        self.looked_up.append(key)
        self._meet_trouble()
        known = [(each[0], each[1], each[2]) for each in self.posts]
        return str(known.index((channel, key, thread_ts)) + 1) if (channel, key, thread_ts) in known else None


async def diagnosed(store: Store, found: Diagnosis = FOUND, hits: Sequence[Hit] = (HIT,), number: int = 1) -> None:
    """The run of a paged incident stands, with this result."""
    await store.incidents.record(
        INCIDENT,
        number,
        diagnosis=DIAGNOSIS.dump_python(found, mode="json"),
        hits=HITS.dump_python(list(hits), mode="json"),
    )
    first = found.causes[0] if found.causes else None
    await store.incidents.finish(
        INCIDENT,
        number,
        now=NOW,
        cause=first.cause if first else "unknown",
        probability=first.probability if first else 0.0,
    )


def fresh_plan(store: Store, **more: Any) -> Plan:
    """The plan of the kit, made just now, so that no clock of the real world has run out."""
    now = datetime.now(UTC)
    return plan(store.policy.version, **{"made_at": now, "expires_at": now + timedelta(minutes=15), **more})


def without(found: Diagnosis, **more: Any) -> Diagnosis:
    """The diagnosis with some fields changed."""
    return replace(found, **more)


def texts(message: Mapping[str, Any] | Sequence[Any] | str) -> str:
    """Every word of a message's blocks."""
    if isinstance(message, str):
        return message
    parts = message.values() if isinstance(message, Mapping) else message
    return " ".join(texts(part) for part in parts if isinstance(part, Mapping | list | str))
