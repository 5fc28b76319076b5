"""PagerDuty's webhooks and alerts as our values: tolerant of what is new, clear about what is missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.incidents import Delivery, UnreadableEventError
from bot.pagerduty import REFERRING_EVENTS, SERVICE_EVENTS, STATE_EVENTS, parse_event
from bot.pagerduty_alerts import alerts_of, parse_firing

INCIDENT = {
    "id": "Q2INCIDENT0001",
    "type": "incident",
    "html_url": "https://acme.pagerduty.com/incidents/Q2INCIDENT0001",
    "number": 42,
    "status": "triggered",
    "created_at": "2026-11-22T14:03:00Z",
    "title": "LLMHighTTFT chat",
    "service": {"id": "PCHAT01", "summary": "Chat", "type": "service_reference"},
    "assignees": [{"id": "PALICE1", "summary": "Alice Ahn", "type": "user_reference"}],
    "priority": None,
    "urgency": "high",
    "a_field_of_next_year": {"x": 1},
}
REFERENCE = {
    "id": "Q2INCIDENT0001",
    "summary": "LLMHighTTFT chat",
    "html_url": INCIDENT["html_url"],
    "type": "incident_reference",
}


def body(kind: str = "incident.triggered", data: Any = None, **event: Any) -> bytes:
    values = {
        "id": "01EVENT",
        "event_type": kind,
        "resource_type": kind.partition(".")[0],
        "occurred_at": "2026-11-22T14:03:01.123Z",
        "agent": None,
        "client": None,
        "data": INCIDENT if data is None else data,
    }
    return json.dumps({"event": values | event}).encode()


def test_a_page_is_read_whole() -> None:
    """Everything that the inbox and the card need from a triggered incident."""
    delivery = parse_event(body())

    assert delivery == Delivery(
        event_id="01EVENT",
        source="pagerduty",
        kind="incident.triggered",
        occurred_at=datetime(2026, 11, 22, 14, 3, 1, 123000, tzinfo=UTC),
        incident_id="Q2INCIDENT0001",
        incident={
            "id": "Q2INCIDENT0001",
            "title": "LLMHighTTFT chat",
            "url": "https://acme.pagerduty.com/incidents/Q2INCIDENT0001",
            "urgency": "high",
            "service_id": "PCHAT01",
            "service_name": "Chat",
            "number": 42,
            "status": "triggered",
            "created_at": "2026-11-22T14:03:00+00:00",
            "assignees": {"PALICE1": "Alice Ahn"},
        },
    )


@pytest.mark.parametrize("kind", sorted(STATE_EVENTS))
def test_state_events(kind: str) -> None:
    """Their data is the incident with its state."""
    assert parse_event(body(kind)).incident["status"] == "triggered"


@pytest.mark.parametrize("kind", sorted(REFERRING_EVENTS))
def test_events_that_refer_to_an_incident(kind: str) -> None:
    """Notes, responders, tasks and workflows say which incident, and nothing of its state."""
    data: dict[str, Any] = {"id": "PX", "incident": REFERENCE, "type": "incident_note"}
    if kind == "incident.role.assigned":
        data = {"incident_role_assignments": [{"incident": REFERENCE}]}
    delivery = parse_event(body(kind, data))

    assert delivery.incident_id == "Q2INCIDENT0001"
    assert "status" not in delivery.incident


@pytest.mark.parametrize("kind", sorted(SERVICE_EVENTS))
def test_events_about_a_service(kind: str) -> None:
    """They are about no incident, and no mistake either."""
    assert parse_event(body(kind, {"id": "PF9", "type": "service"})).incident_id is None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"event": NaN}', "not JSON"),
        (b'{"event": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"event":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"{}", "'event'"),
        (b'{"event": []}', "'event'"),
        (
            body("pagey.ping", {"message": "Hello from your friend Pagey!", "type": "ping"}),
            "unknown event type 'pagey.ping'",
        ),
        (body("incident.cloned_by_aliens"), "unknown event type"),
        (body(id=""), "event.id"),
        (body(id=7), "event.id"),
        (body(id="x" * 300), "255"),
        (body(event_type=None), "event.event_type"),
        (body(occurred_at="yesterday"), "event.occurred_at"),
        (body(occurred_at="2026-11-22T14:03:01"), "time zone"),
        (body(occurred_at="9999-12-31T23:59:59.999999Z"), "year 9999"),
        (body(occurred_at="0001-01-01T00:00:00+14:00"), "event.occurred_at"),
        (body(occurred_at=None), "event.occurred_at"),
        (body(data=[]), "'data'"),
        (body(data={**INCIDENT, "id": None}), "data.id"),
        (body(data={**INCIDENT, "id": "\x00"}), "data.id"),
        (body(data={**INCIDENT, "status": "exploded"}), "data.status"),
        (body(data={**INCIDENT, "status": []}), "data.status"),
        (body(data={**INCIDENT, "created_at": "soon"}), "data.created_at"),
        (body("incident.annotated", {"id": "PX"}), "data.incident"),
        (body(data={**INCIDENT, "id": "Q" * 201}), "data.id is longer than 200"),
        (body("incident.annotated", {"incident": {**REFERENCE, "id": "Q" * 201}}), "data.id is longer"),
        (body(data={**INCIDENT, "service": {"id": "P" * 256}}), "data.service.id is longer than 255"),
        (body("incident." + "x" * 300), "unknown event type"),
    ],
    ids=range(31),
)
def test_what_cannot_be_read_says_why(raw: bytes, why: str) -> None:
    """Each ends as a dead letter whose reason names the place."""
    with pytest.raises(UnreadableEventError, match=why.replace("'", ".")):
        parse_event(raw)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("number", 2**31 - 1, 2**31 - 1),
        ("number", 2**31, None),
        ("number", 3_000_000_000, None),
        ("number", -1, None),
        ("number", True, None),
        ("urgency", "u" * 16, "u" * 16),
        ("urgency", "u" * 17, None),
        ("title", "t" * 2000, "t" * 2000),
        ("title", "t" * 2001, "t" * 1999 + "…"),
        ("title", "word " * 60_000, ("word " * 400)[:1999] + "…"),
        ("html_url", "https://a.example/" + "u" * 1982, "https://a.example/" + "u" * 1982),
        ("html_url", "https://a.example/" + "u" * 1983, None),
        ("service", {"id": "P" * 255, "summary": "x"}, "P" * 255),
    ],
)
def test_what_the_database_cannot_hold_is_cut_or_left_out(field: str, value: Any, kept: Any) -> None:
    """Half a title is read all the same; half an address, or a number that wraps around, would be wrong."""
    delivery = parse_event(body(data={**INCIDENT, field: value}))

    assert delivery.incident.get({"html_url": "url", "service": "service_id"}.get(field, field)) == kept
    assert delivery.incident_id == INCIDENT["id"]


def test_fifty_assignees_are_enough() -> None:
    """Thousands of them would be thousands of characters on each card; names and ids are bounded, too."""
    people = [{"id": f"P{number}", "summary": "n" * 9000} for number in range(3000)]
    odd = [{"id": "P" * 256, "summary": "x"}, {"id": 7}, {}, None]
    found = parse_event(body(data={**INCIDENT, "assignees": [*odd, *people]})).incident["assignees"]

    assert list(found) == [f"P{number}" for number in range(50)]
    assert set(found.values()) == {"n" * 255}


def test_brackets_in_a_title_are_no_depth() -> None:
    """Only JSON's own nesting counts."""
    assert parse_event(body(data={**INCIDENT, "title": "[" * 500 + '\\"{{'})).incident["title"].startswith("[[[")


def test_texts_are_cleaned_and_redacted_at_the_door() -> None:
    """U+0000 and lone surrogates would not fit into a database, and secrets should not get there."""
    token = "xoxb-" + "123456789012-abcdefghijkl"
    delivery = parse_event(body(data={**INCIDENT, "title": f"a\x00b\ud800 {token} \u202egnp"}))

    assert delivery.incident["title"] == "ab [redacted] gnp"
    assert delivery.raw == ""  # what was understood is kept once


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(INCIDENT)), json_value),
    st.sampled_from(sorted(STATE_EVENTS | REFERRING_EVENTS)),
)
def test_any_shape_is_read_or_refused(changes: dict[str, Any], kind: str) -> None:
    """No value in any field raises anything but our own error."""
    try:
        delivery = parse_event(body(kind, {**INCIDENT, **changes, "incident": {**INCIDENT, **changes}}))
    except UnreadableEventError:
        return
    assert delivery.incident_id
    assert json.loads(json.dumps(delivery.incident)) == delivery.incident


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_refused_in_our_words(raw: bytes) -> None:
    """Bytes that are no event raise UnreadableEventError and nothing else."""
    with pytest.raises(UnreadableEventError):
        parse_event(raw)


FIRING = """Labels:
 - alertname = LLMHighTTFT
 - namespace = chat
 - severity = critical
Annotations:
 - runbook_url = https://git.example.com/prefix-cache-collapse.md
 - summary = Mean TTFT is 1.6 times its baseline
second line
Source: http://127.0.0.1:9790/graph?g0.expr=x
Labels:
 - alertname = LLMHighITL
 - namespace = chat
Annotations:
 - summary = ITL = 18 ms
Labels:
 - alertname = Forged
Source: http://127.0.0.1:9790/graph
"""


def test_alertmanager_text_becomes_labels_and_annotations() -> None:
    """Two alerts of one group, a value over two lines, and a forged block inside an annotation that does not count."""
    first, second = parse_firing(FIRING)

    assert first[0] == {"alertname": "LLMHighTTFT", "namespace": "chat", "severity": "critical"}
    assert first[1]["summary"] == "Mean TTFT is 1.6 times its baseline\nsecond line"
    assert second[0] == {"alertname": "LLMHighITL", "namespace": "chat"}


def test_alerts_of_alertmanager() -> None:
    """One alert of ours for each of Alertmanager's; ids stay unique."""
    rest = {"id": "QALERT1", "summary": "[FIRING:2]", "body": {"details": {"firing": FIRING, "num_firing": "2"}}}
    one, two = alerts_of(rest)

    assert (one.alert_id, two.alert_id) == ("QALERT1", "QALERT1#1")
    assert (one.name, one.summary) == ("LLMHighTTFT", "Mean TTFT is 1.6 times its baseline\nsecond line")
    assert one.annotations["runbook_url"] == "https://git.example.com/prefix-cache-collapse.md"


# What Alertmanager 0.25's default template makes of three alerts of a group, one of them with a query over lines.
GROUP = """Labels:
 - alertname = LLMEngineDown
 - instance = 10.0.3.7:8000
 - namespace = chat
 - pod = chat-vllm-2
Annotations:
 - description = Engine chat-vllm-2 does not answer.

Dashboard: https://grafana.example.com/d/abc
Its last log lines:
  - CUDA error: an illegal memory access
  - Engine core died
 - runbook_url = https://git.example.com/engine-down.md
 - summary = Engine chat-vllm-2 is down
Source: http://prometheus:9090/graph?g0.expr=up%7Bjob%3D%22vllm%22%7D+%3D%3D+0&g0.tab=1
Labels:
 - alertname = LLMEngineDown
 - pod = chat-vllm-3
Annotations:
Source: NONE
Labels:
 - alertname = LLMHighTTFT
 - note = a = b
Annotations:
 - summary = p95 TTFT = 3.1 s
Source: http://prometheus:9090/graph?g0.expr=x
"""


def test_a_group_of_alertmanager_is_read_alert_by_alert() -> None:
    """Lines of lists inside a description stay there, an alert may have no annotations, and a source no address."""
    details = {"firing": GROUP.replace("NONE", ""), "num_firing": "3", "num_resolved": "1", "resolved": FIRING}
    found = alerts_of({"id": "QA", "summary": "[FIRING:3] chat", "body": {"details": details}})

    assert [each.name for each in found] == ["LLMEngineDown", "LLMEngineDown", "LLMHighTTFT"]
    assert [each.labels.get("pod") for each in found] == ["chat-vllm-2", "chat-vllm-3", None]
    assert (
        found[0].annotations["description"].endswith("  - CUDA error: an illegal memory access\n  - Engine core died")
    )
    assert found[2].labels["note"] == "a = b"
    assert [each.summary for each in found] == ["Engine chat-vllm-2 is down", "[FIRING:3] chat", "p95 TTFT = 3.1 s"]


def test_what_is_resolved_is_no_alert() -> None:
    """Alertmanager sends it beside what fires; it stays in the details."""
    details = {"firing": "", "num_firing": "0", "num_resolved": "2", "resolved": FIRING}
    [alert] = alerts_of({"id": "QA", "summary": "[RESOLVED] chat", "body": {"details": details}})

    assert (alert.name, dict(alert.labels)) == ("[RESOLVED] chat", {})
    assert alert.details["resolved"] == FIRING


GRAFANA = """
Value: A=3.1, C=1
Labels:
 - alertname = LLMHighTTFT
 - grafana_folder = LLM
Annotations:
 - summary = TTFT is high
Silence: https://grafana.example.com/alerting/silence/new?alertmanager=grafana
Dashboard: https://grafana.example.com/d/abc

Value: A=9
Labels:
 - alertname = LLMQueue
Annotations:
 - summary = Requests wait
Source: https://grafana.example.com/alerting/grafana/x/view
Silence: https://grafana.example.com/alerting/silence/new
"""


def test_grafana_writes_nearly_the_same() -> None:
    """Values before each alert, and addresses behind it, of which any may be missing."""
    one, two = parse_firing(GRAFANA)

    assert (one[0]["alertname"], one[1]) == ("LLMHighTTFT", {"summary": "TTFT is high"})
    assert (two[0], two[1]) == ({"alertname": "LLMQueue"}, {"summary": "Requests wait"})


@pytest.mark.parametrize("tags", ["env:prod, model:llama-3:8b ,orphan,", ["env:prod", "model:llama-3:8b", "orphan", 7]])
def test_tags_are_labels(tags: Any) -> None:
    """As Datadog's integration sends them; what follows the first colon is the value."""
    [alert] = alerts_of({"id": "QA", "summary": "TTFT", "body": {"details": {"tags": tags, "query": "avg:ttft"}}})

    assert (alert.name, alert.labels) == ("TTFT", {"env": "prod", "model": "llama-3:8b"})


def test_other_alerts() -> None:
    """An alert of another tool is one alert, named by its class, its label or its summary."""
    cef = {
        "id": "QA",
        "summary": "Disk full",
        "body": {"cef_details": {"event_class": "disk", "details": {"free": "0"}}},
    }
    bare = {"id": "QB", "summary": "Disk full", "body": None}
    labelled = {"id": "QC", "body": {"details": {"labels": {"alertname": "DiskFull", "n": 1}}}}

    assert [(a.name, a.summary, dict(a.details)) for a in alerts_of(cef)] == [("disk", "Disk full", {"free": "0"})]
    assert [a.name for a in alerts_of(bare)] == ["Disk full"]
    assert [(a.name, dict(a.labels)) for a in alerts_of(labelled)] == [("DiskFull", {"alertname": "DiskFull"})]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["id", "summary", "body"]), json_value), st.text(max_size=80))
def test_any_alert_is_read(rest: dict[str, Any], text: str) -> None:
    """Whatever the alert's author sent, there is at least one alert and no exception."""
    assert alerts_of(rest)
    assert alerts_of({"id": "Q", "body": {"details": {"firing": text}}})
