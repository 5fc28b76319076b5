"""How a diagnosis grows with its fleet: one case whose pods and GPUs are there many times, in a real Prometheus."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from diagnostics.answer import RecordedChanges, load_case
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from lab.cases.files import write
from lab.cases.life import Recipe, live
from lab.evaluation.real_prometheus import prometheus_over

SEED, FAULT = 20_261_101, "S04"  # its shape is the same on every pod, so a fleet of copies has it as well
SIZES = ((1, 1), (7, 13), (50, 168))
"""How often pods are copied, and how often nodes with their GPUs: a case has 4 replicas and 6 GPUs."""

PATIENCE_S = 60.0
_APART = re.compile(r'((?:pod|node|Hostname|UUID|rack|instance)=")([^"]*)"')
_ON_NODES = re.compile(r"(?:DCGM|nvidia|kube_node|watchkeeper_probe_(?:nvidia|kernel))")


@dataclass(frozen=True, kw_only=True)
class FleetTimes:
    """Diagnoses of one size: seconds of each, and how many questions one asks."""

    replicas: int
    gpus: int
    series: int
    seconds: tuple[float, ...]
    questions: int
    cause: str


def measure(folder: Path, rounds: int) -> Iterator[FleetTimes]:
    """Smallest fleet first. Raises PrometheusError."""
    case = folder / "case"
    write(live(Recipe(seed=(SEED, 0), faults=(FAULT,), strength=1.0)), case)
    with gzip.open(case / "metrics.om.gz", "rt") as file:
        lines = file.read().splitlines()
    for pods, nodes in SIZES:
        grown = folder / f"{pods}.om"
        series = _grow(lines, pods, nodes, grown)
        with prometheus_over(grown) as url:
            grown.unlink()
            seconds, questions, cause = asyncio.run(_diagnose(url, case, rounds))
        yield FleetTimes(
            replicas=_count(lines, "vllm:num_requests_running", "pod") * pods,
            gpus=_count(lines, "DCGM_FI_DEV_GPU_TEMP", "UUID") * nodes,
            series=series,
            seconds=tuple(seconds),
            questions=questions,
            cause=cause,
        )


async def _diagnose(url: str, folder: Path, rounds: int) -> tuple[list[float], int, str]:
    asked: list[str] = []

    async def count(request: httpx.Request) -> None:
        asked.append(request.url.path)

    seconds = []
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, event_hooks={"request": [count]}) as client:
        telemetry = PrometheusTelemetry(url, client=client, timeout_s=PATIENCE_S)
        case = load_case(folder, telemetry)
        diagnoser = Diagnoser(telemetry, [RecordedChanges(case.changes)], patience_s=PATIENCE_S)
        await diagnoser.warm_up()
        for _ in range(rounds):
            asked.clear()
            began = time.perf_counter()
            diagnosis = await diagnoser.diagnose(case.target, at=case.at, alert=case.alert)
            seconds.append(time.perf_counter() - began)
    return seconds, len(asked), diagnosis.causes[0].cause


def _grow(lines: Sequence[str], pods: int, nodes: int, path: Path) -> int:
    """Write each series with a pod or a node so many times, under other names; how many series there are then."""
    series = set()
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            found = None if line.startswith("#") else _APART.search(line)
            copies = 1 if found is None else nodes if _ON_NODES.match(line) else pods
            for number in range(copies):
                copy = line if number == 0 else _APART.sub(rf'\g<1>\g<2>-{number}"', line)
                file.write(f"{copy}\n")
            if not line.startswith("#"):
                series.add((line.rsplit(" ", 2)[0], copies))
    return sum(copies for _, copies in series)


def _count(lines: Sequence[str], metric: str, label: str) -> int:
    named = re.compile(rf'{metric}\{{.*?\b{label}="([^"]*)"')
    return len({found.group(1) for line in lines if (found := named.match(line))})
