"""
Are the links between the GPUs sound?

Reads NVLink replay, recovery and CRC errors per minute. Bad from one more per minute than in the baseline: GPUs that
share a model then wait for each other, so prefill and tokens get slower while clocks and temperatures stay flat. Only
deployments that spread a model over several GPUs are hurt.
"""

from __future__ import annotations

import asyncio

from diagnostics import gpus
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import number


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    names = [await look.exported("gpu", *spellings) for spellings in gpus.NVLINK_ERRORS]
    counted = [name for name in names if name is not None]
    if not counted:
        first = gpus.NVLINK_ERRORS[0][0]
        raise CannotTellError(f"{first} is not exported; {remedy_for(first)}")
    cells = await asyncio.gather(*(look.rates(name, "gpu", by=gpus.GPU) for name in counted))
    per_gpu: dict[gpus.Key, Compared] = {}
    for kind in cells:
        for key, cell in kind.items():
            have = per_gpu.get(key, Compared(now=0.0, baseline=0.0))
            per_gpu[key] = Compared(
                now=(have.now or 0.0) + 60 * (cell.now or 0.0),
                baseline=(have.baseline or 0.0) + 60 * (cell.baseline or 0.0),
            )
    bad = {key: cell for key, cell in per_gpu.items() if (cell.gain or 0.0) >= 1.0}
    top = max(per_gpu.values(), key=lambda cell: cell.now or 0.0, default=Compared(now=0.0, baseline=0.0))
    measures = [Measure(signal="nvlink_errors_per_min", value=top.now, baseline=top.baseline, unit="1/min")]
    measures += [
        Measure(
            signal="nvlink_errors_per_min", value=cell.now, baseline=cell.baseline, unit="1/min", scope=gpus.where(key)
        )
        for key, cell in sorted(bad.items())
    ]
    if bad:
        said = [f"{gpus.name(key)}: {number(cell.now)} NVLink errors per minute." for key, cell in sorted(bad.items())]
        return Finding.bad("gpu_nvlink", " ".join(said), *measures)
    return Finding.ok("gpu_nvlink", "The NVLinks report no more errors than usual.", *measures)
