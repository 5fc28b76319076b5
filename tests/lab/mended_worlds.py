"""A world with a fault in it, and the product's own actions that change it over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lab.scenarios.fault import Fault
from lab.scenarios.faults import FAULTS
from runbooks.engine.values import Action, GuardedAction, JsonObject
from tests.lab.integration_readings import Growth
from tests.lab.played_worlds import SmallWorld


class BrokenWorld:
    """A minute of peace, then the whole fault. `how` sets what its author would have drawn."""

    def __init__(self, id_: str, *, seed: int = 5, **how: Any) -> None:
        self.fault: Fault = FAULTS[id_](1.0)
        self.small = SmallWorld(seed=seed, fault=self.fault)
        self.fault.draw(self.small.stage)
        for name, value in how.items():
            assert hasattr(self.fault, name)
            setattr(self.fault, name, value)
        self.stage = self.small.stage
        self.small.pass_time(timedelta(minutes=1))

    def break_it(self) -> None:
        at = self.small.fleet.now
        self.fault.begin(self.stage, at)
        self.fault.apply(self.stage, 1.0, at)
        self.small.pass_time(timedelta(minutes=1))

    def growth(self, minutes: float = 1) -> Growth:
        return Growth(self.small, timedelta(minutes=minutes))


async def carry_out(action: Action, **arguments: Any) -> JsonObject:
    """As the engine does: the parameters checked, the present state read, the refusal asked for, then the change."""
    params = action.params(**arguments)
    before = await action.read(params)
    why = action.refusal(params, before) if isinstance(action, GuardedAction) else None
    if why is not None:
        raise AssertionError(f"refused: {why}")
    return await action.act(params, before, "lab-test")
