"""Case folders on paper for tests: the small synthetic fleet's incidents with alert, changes and truth."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from diagnostics.changes.change import Change
from tests import synthetic
from tests.diagnostics_prompts import DECOY, GUILTY

SERVICE = """
name = "chat"
namespace = "chat"
team = "llm"
[selectors]
serving = {namespace = "chat"}
gpu = {namespace = "chat"}
application = {service = "chat"}
gateway = {model_group = "chat"}
kubernetes = {namespace = "chat"}
[budgets]
ttft_p95_s = 1.0
[[deployments]]
name = "chat-vllm"
kind = "engine"
replicas = 4
[[prompts]]
name = "chat-system"
source = "prompts"
"""


@cache
def _telemetry(scenario: str) -> str:
    return synthetic.openmetrics(scenario, history=timedelta(minutes=40))


def change_json(change: Change) -> dict[str, Any]:
    """A change as changes.json has it."""
    return {
        "id": change.id,
        "at": change.at.isoformat(),
        "kind": change.kind,
        "service": change.service,
        "source": change.source,
        "summary": change.summary,
        "author": change.author,
        "scope": {name: list(values) for name, values in change.scope.items()},
        "before": change.before,
        "after": change.after,
    }


def truth_json(cause: str, /, **more: Any) -> dict[str, Any]:
    """A truth of this cause; `more` replaces what is usual."""
    family = cause if cause == "none" else cause[0]
    return {
        "cause": cause,
        "class": family,
        "scope": None if cause == "none" else {"dimension": "fleet", "values": []},
        "culprit_change": None,
        "control": False,
        "onset": None if cause == "none" else synthetic.ONSET.isoformat(),
        "notes": {},
        **more,
    }


def write_case(
    folder: Path,
    truth: dict[str, Any],
    *,
    scenario: str | None = None,
    alert: str = "LLMHighTTFT",
    changes: Sequence[Change] = (DECOY, GUILTY),
    is_packed: bool = False,
) -> Path:
    """One case; the telemetry plays `scenario`, or the truth's cause where the small fleet can play it."""
    folder.mkdir(parents=True)
    incident = {"created_at": synthetic.END.isoformat(), "title": f"{alert} on chat"}
    page = {"incident": incident, "alerts": [{"body": {"details": {"alertname": alert}}}]}
    (folder / "alert.json").write_text(json.dumps(page))
    (folder / "service.toml").write_text(SERVICE)
    (folder / "changes.json").write_text(json.dumps([change_json(change) for change in changes]))
    (folder / "truth.json").write_text(json.dumps(truth))
    text = _telemetry(scenario or truth["cause"])
    if is_packed:
        (folder / "metrics.om.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "metrics.om").write_text(text)
    return folder
