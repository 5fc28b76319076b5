"""Faults that cost money: a job without a limit, a leaked key, and traffic that went to an expensive model."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lab.gateway import CHAT, LARGE, USUALLY_LARGE, Client, Stream
from lab.inputs import SEGMENTS
from lab.routes import ROUTES
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage

_HEALTHY_SHARE = 0.2  # of all tokens; the third tenant usually has a tenth


class _OneKeySpends(Fault):
    """Traffic of one key beyond its usual one."""

    alert = "LLMSpend"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.key = "key-tenant-04"
        self.jobs: tuple[Stream, ...] = ()
        self._added: tuple[Stream, ...] = ()

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        running = [job for job in stage.gateway.jobs if job not in self._added]
        self._added = tuple(replace(job, rps=level * job.rps) for job in self.jobs) if level > 0 else ()
        stage.gateway.jobs[:] = [*running, *self._added]

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "api_key", [self.key]

    def is_healthy(self, stage: Stage) -> bool:
        """The key may go on with what its tenant usually asks for, and a part of the rest."""
        streams = stage.gateway.traffic().streams
        mine = sum(stream.tokens_per_s for stream in streams if stream.key == self.key)
        return mine <= _HEALTHY_SHARE * sum(stream.tokens_per_s for stream in streams)


class JobWithoutLimit(_OneKeySpends):
    """A batch job of one tenant sends the longest prompts as fast as it can, from where that tenant always calls."""

    id = "X04"
    title = "One API key runs away with the budget"
    shapes = (Shape.STEP,)

    def draw(self, stage: Stage) -> None:
        rng, normal = stage.rng, stage.normal
        self.key = f"key-tenant-{int(rng.integers(2, 6)):02d}"
        job = Stream(
            key=self.key,
            group=CHAT,
            rps=normal.fleet_rps * 0.25 * self.strength * float(rng.uniform(0.8, 1.2)),
            prompt_tokens=normal.prompt_tokens * float(rng.uniform(6.0, 8.0)),
            output_tokens=normal.output_tokens * float(rng.uniform(1.6, 2.4)),
        )
        self.jobs = (job,)


class LeakedKey(_OneKeySpends):
    """Somebody else uses a tenant's key, from elsewhere, for other questions and with the most expensive model."""

    id = "X05"
    title = "A leaked API key is used"
    shapes = (Shape.STEP, Shape.RAMP)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.segment = SEGMENTS[0]
        self.strangeness = 0.25 * strength

    def draw(self, stage: Stage) -> None:
        rng = stage.rng
        self.key = f"key-tenant-{int(rng.integers(3, 6)):02d}"
        self.segment = str(rng.choice(SEGMENTS))
        self.strangeness = min(0.45, self.strangeness * float(rng.uniform(0.8, 1.2)))
        usual = {"prompt_tokens": stage.normal.prompt_tokens, "output_tokens": stage.normal.output_tokens}
        address = f"{int(rng.integers(45, 220))}.{int(rng.integers(1, 255))}.{int(rng.integers(1, 255))}.9"
        agent = str(rng.choice(["python-requests/2.32.3", "Go-http-client/2.0", "axios/1.7.9"]))
        client = Client(ip=address, user_agent=agent)
        rps = stage.normal.fleet_rps * self.strength * float(rng.uniform(0.32, 0.48))
        for_large = rps * float(rng.uniform(0.045, 0.075))  # a few of them cost as much as all the others
        self.jobs = (
            Stream(key=self.key, group=CHAT, rps=rps - for_large, client=client, **usual),
            Stream(key=self.key, group=LARGE, rps=for_large, client=client, **usual),
        )

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        super().apply(stage, level, at)
        if level > 0:
            stage.inputs.strangeness[self.segment] = level * self.strangeness
        else:
            stage.inputs.strangeness.pop(self.segment, None)


class ExpensiveModel(Fault):
    """A part of the overflow goes to the expensive model: the same tokens cost more, and nobody attacks anybody."""

    id = "X07"
    title = "Traffic went to an expensive model"
    alert = "LLMSpend"
    is_only_recorded = True
    is_harmless = True
    is_control = True

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.share = min(0.9, 0.31 * strength)
        self.is_by_flag = True

    def draw(self, stage: Stage) -> None:
        self.share = min(0.9, self.share * float(stage.rng.uniform(0.8, 1.3)))
        self.is_by_flag = bool(stage.rng.random() < 0.6)

    def begin(self, stage: Stage, at: datetime) -> None:
        scope = {"route": (ROUTES[0].name,), "model": ("gpt-4.1",)}
        if self.is_by_flag:
            more = {"author": "growth-team", "before": "gpt-4.1-nano", "after": "gpt-4.1"}
            summary = "answer long questions of the free plan with gpt-4.1"
            stage.log.append(self.guilty(at, "flag", summary, "flags", scope=scope, **more))
        else:
            summary = "openai: gpt-4.1-nano no longer takes long prompts, gpt-4.1 answers them"
            stage.log.append(self.guilty(at, "external", summary, "status-page", scope=scope))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        stage.gateway.large_share = USUALLY_LARGE + level * (self.share - USUALLY_LARGE)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "route", [ROUTES[0].name]

    def is_healthy(self, stage: Stage) -> bool:
        """It costs more, and hurts nobody."""
        del stage
        return True
