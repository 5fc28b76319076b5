"""A case's five files, in the format that everybody's cases have: alert, telemetry, changes, service, truth."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lab.cases import names
from lab.cases.life import Life
from lab.cases.names import Names
from lab.cluster import MODEL
from lab.fleet import gpu_racks
from lab.stage import LoggedChange

_ESSENTIAL = frozenset(
    {
        "up", "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:num_requests_running",
        "vllm:num_requests_waiting", "llm_app_requests_total", "kube_deployment_status_replicas_available",
        "kube_deployment_spec_replicas", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS",
    }
)  # fmt: skip
"""Families that every cluster has; any other is missing from one case in twenty."""

_MISSING = 0.05

MOST_SERIES = 1_500
"""More than this and the cluster's scrape leaves out buckets, as many do to save space, then whole families."""

_WITH_BUCKETS = frozenset(
    {
        "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:request_queue_time_seconds",
        "vllm:e2e_request_latency_seconds",
    }
)  # fmt: skip
"""Histograms whose quantiles somebody promised or alerts on."""


def write(life: Life, folder: Path) -> dict[str, Any]:
    """Write the case and return what the manifest says of it: folder, cause, strength, series, samples."""
    folder.mkdir(parents=True)
    rng = life.rng
    racks = gpu_racks(life.stage.cluster)
    renamed = names.draw(rng, sorted(racks), sorted(set(racks.values())), MODEL)
    changes, culprit = _changes(life, renamed)
    _json(folder / "alert.json", _alert(life, renamed))
    _json(folder / "changes.json", changes)
    (folder / "service.toml").write_text(renamed.text(_SERVICE), encoding="utf-8")
    truth = _truth(life, renamed, culprit)
    _json(folder / "truth.json", truth)
    scrape = _draw_scrape(life, rng)
    samples = _telemetry(life, renamed, scrape, folder)
    return {
        "case": folder.name,
        "cause": truth["cause"],
        "shape": [shape.value for shape in life.shapes],
        "strength": round(life.faults[0].strength, 3) if life.faults else None,
        "series": scrape.series,
        "samples": samples,
        "missing": sorted(scrape.missing),
    }


def _alert(life: Life, renamed: Names) -> dict[str, Any]:
    service = renamed.text("chat")
    number = int(life.rng.integers(1000, 99_000))
    at = _time(life.alerted_at)
    labels = {"alertname": life.alert, "namespace": service, "severity": "critical"}
    listed = "".join(f" - {name} = {value}\n" for name, value in sorted(labels.items()))
    return {
        "incident": {
            "id": f"Q{number:05d}CASE",
            "incident_number": number,
            "title": f"[FIRING:1] {life.alert} ({service} critical)",
            "status": "triggered",
            "urgency": "high",
            "created_at": at,
            "service": {"id": "PCASE01", "type": "service_reference", "summary": service},
        },
        "alerts": [
            {
                "id": f"A{number:05d}",
                "created_at": at,
                "summary": f"[FIRING:1] {life.alert} ({service} critical)",
                "severity": "critical",
                "body": {"type": "alert_body", "details": {"firing": f"Labels:\n{listed}", "num_firing": "1"}},
            }
        ],
    }


def _changes(life: Life, renamed: Names) -> tuple[list[dict[str, Any]], str | None]:
    """The log as a case tells it, newest last, and the guilty one's id."""
    culprit = None
    written = []
    for change in sorted(life.stage.log, key=lambda change: change.at):
        if change.at > life.alerted_at:
            continue
        identity = f"{change.source}:{life.rng.bytes(4).hex()}"
        if change.is_guilty:
            culprit = identity
        written.append({"id": identity, **_change(change, renamed)})
    return written, culprit


def _change(change: LoggedChange, renamed: Names) -> dict[str, Any]:
    told = replace(change, at=change.at)
    return {
        "at": _time(told.at),
        "kind": told.kind,
        "service": renamed.text(told.service),
        "source": told.source,
        "summary": renamed.text(told.summary),
        "author": told.author,
        "scope": {name: [renamed.text(value) for value in values] for name, values in told.scope.items()},
        "before": None if told.before is None else renamed.text(told.before),
        "after": None if told.after is None else renamed.text(told.after),
    }


def _truth(life: Life, renamed: Names, culprit: str | None) -> dict[str, Any]:
    if not life.faults or life.onset is None:
        nothing = {"cause": "none", "class": "none", "scope": None, "culprit_change": None, "control": False}
        return {**nothing, "onset": None, "notes": {"seed": list(life.recipe.seed)}}
    truth = life.faults[0].truth(life.stage, life.onset, culprit)
    truth["onset"] = _time(life.onset)
    truth["scope"]["values"] = sorted(renamed.text(value) for value in truth["scope"]["values"])
    truth["notes"] = {
        "seed": list(life.recipe.seed),
        "strength": round(life.faults[0].strength, 3),
        "shape": life.shapes[0].value,
        "also": [fault.id for fault in life.faults[1:]],
    }
    return truth


@dataclass(frozen=True, kw_only=True)
class _Scrape:
    """What this cluster's Prometheus keeps: which families, and which of them without their buckets."""

    kept: frozenset[str]
    missing: frozenset[str]
    without_buckets: frozenset[str]
    series: int


def _draw_scrape(life: Life, rng: np.random.Generator) -> _Scrape:
    members = {family.name: series for family, series in life.fleet.registry.families().items()}
    gone = rng.random(len(members)) < _MISSING
    missing = {name for name, is_gone in zip(members, gone, strict=True) if is_gone and name not in _ESSENTIAL}
    whole = {name: len(series) for name, series in members.items() if name not in missing}
    buckets = {name: sum(each.is_bucket for each in members[name]) for name in whole}
    without_buckets = set()
    for name in rng.permutation(sorted(name for name in whole if buckets[name] and name not in _WITH_BUCKETS)):
        if sum(whole.values()) > MOST_SERIES:
            without_buckets.add(str(name))
            whole[str(name)] -= buckets[str(name)]
    for name in rng.permutation(sorted(whole.keys() - _ESSENTIAL)):
        if sum(whole.values()) > MOST_SERIES:
            missing.add(str(name))
            del whole[str(name)]
    return _Scrape(
        kept=frozenset(whole),
        missing=frozenset(missing),
        without_buckets=frozenset(without_buckets),
        series=sum(whole.values()),
    )


def _telemetry(life: Life, renamed: Names, scrape: _Scrape, folder: Path) -> int:
    """The history up to the alert, scraped every 15, 30 or 60 s, its buckets every one to four minutes."""
    every = int(life.rng.choice([1, 2, 4], p=[0.4, 0.4, 0.2]))
    buckets = max(every, int(life.rng.choice([4, 8, 16], p=[0.5, 0.3, 0.2])))
    draft = folder / "metrics.om"
    samples = life.history.write(
        life.fleet.registry,
        draft,
        only=scrape.kept,
        every=every,
        bucket_steps=buckets,
        without_buckets=scrape.without_buckets,
        rename=renamed.labels,
    )
    with draft.open("rb") as plain, gzip.open(folder / "metrics.om.gz", "wb", compresslevel=1) as packed:
        while block := plain.read(1 << 20):
            packed.write(block)
    draft.unlink()
    return samples


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_SERVICE = """\
name = "chat"
namespace = "chat"
team = "llm"
environment = "prod"

[selectors]
serving = {namespace = "chat"}
gpu = {}
application = {service = "chat"}
gateway = {}
kubernetes = {namespace = "chat"}

[budgets]
ttft_p95_s = 1.5
error_ratio = 0.01

[[deployments]]
name = "chat-vllm"
kind = "engine"
replicas = 4

[[deployments]]
name = "chat-gateway"
kind = "gateway"

[[deployments]]
name = "chat-retrieval"
kind = "retrieval"

[[prompts]]
name = "chat-system"
source = "langfuse"

[[prompts]]
name = "chat-summary"
source = "langfuse"

[[providers]]
name = "openai"
models = ["gpt-4.1-nano"]

[[providers]]
name = "anthropic"
models = ["claude-3-haiku"]
"""
