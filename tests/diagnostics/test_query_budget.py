"""How many questions a diagnosis asks: the number is the same for four GPUs and for hundreds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import Matrix, Query, Telemetry, Vector
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.application_signals import Series, gauge, text
from tests.diagnosed import HISTORY


class Counted:
    """Telemetry that counts what it is asked; asking the same twice counts twice."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.asked = Counter[str]()

    async def now(self) -> datetime:
        return await self._telemetry.now()

    async def vector(self, query: Query, at: datetime) -> Vector:
        self.asked[query.metric] += 1
        return await self._telemetry.vector(query, at)

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        self.asked[query.metric] += 1
        return await self._telemetry.matrix(query, start, end, step)

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        self.asked[metric] += 1
        return await self._telemetry.exported(metric, at, where)


def more_gpus(count: int) -> str:
    """So many further GPUs of the service, all hot and slow, with the families that checks group by GPU."""
    series: list[Series] = []
    for number in range(count):
        labels = {"Hostname": f"node-{number // 8}", "gpu": str(number % 8), "UUID": f"GPU-more-{number}"}
        series += [
            gauge("DCGM_FI_DEV_SM_CLOCK", 1900, 1100, **labels),
            gauge("DCGM_FI_DEV_GPU_TEMP", 62, 88, **labels),
            gauge("DCGM_FI_DEV_XID_ERRORS", 0, 13, **labels),
            gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", 0, 1, **labels),
        ]
    return text(series, selector={"namespace": "chat"})


async def questions(gpus: int) -> Counter[str]:
    """What a diagnosis asks about a service with four engines and so many GPUs more."""
    base = synthetic.openmetrics(
        "G04",
        history=HISTORY,
        without=("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ROW_REMAP_P"),
    )
    counted = Counted(load_openmetrics(base.replace("# EOF\n", "") + more_gpus(gpus)))
    await Diagnoser(counted, patience_s=60).diagnose(synthetic.target())
    return counted.asked


async def test_the_number_of_questions_does_not_grow_with_the_gpus() -> None:
    """Each question is asked for all GPUs at once, however many of them are in trouble."""
    few, many = await questions(4), await questions(160)
    assert few == many
    assert few.total() < 450, few.most_common(12)
