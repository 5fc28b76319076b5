"""X01 and X02: somebody gives the model orders, as a user or through content that it reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lab.gateway import CHAT, Stream
from lab.rails import PRINCIPALS
from lab.scenarios.fault import Fault
from lab.stage import Stage
from lab.threats import FETCHED_BY, SOURCES

_HARDLY_RPS = 0.2


class DirectInjection(Fault):
    """A few keys send injections; it ends when the gateway no longer lets them in."""

    id = "X01"
    title = "A few callers try to take the model over"
    alert = "LLMInjection"
    by_hand = "limit every key of the campaign"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.attackers = {PRINCIPALS[-1]: 0.9, PRINCIPALS[-2]: 0.6}

    def draw(self, stage: Stage) -> None:
        rng = stage.rng
        few = rng.choice(PRINCIPALS[5:], int(rng.integers(2, 5)), replace=False)
        rps = 0.061 * stage.normal.fleet_rps * self.strength * float(rng.uniform(0.8, 1.2))
        shares = rng.dirichlet([4.0] * len(few))
        self.attackers = {str(alias): rps * float(share) for alias, share in zip(few, shares, strict=True)}

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - the level says it all
        jobs, normal = stage.gateway.jobs, stage.gateway.normal
        jobs[:] = [job for job in jobs if job.key not in self.attackers]
        for alias, rps in self.attackers.items():
            stage.threats.attackers[alias] = level * rps
            if level > 0:
                asked = Stream(key=alias, group=CHAT, rps=level * rps)
                jobs.append(replace(asked, prompt_tokens=normal.prompt_tokens, output_tokens=normal.output_tokens))

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "api_key", list(self.attackers)

    def is_healthy(self, stage: Stage) -> bool:
        """The gateway lets hardly any of it in."""
        gateway, tokens = stage.gateway, stage.normal.request_tokens
        admitted = [
            rps * gateway.key(alias).admitted(rps, rps * tokens) for alias, rps in stage.threats.attackers.items()
        ]
        return sum(admitted) <= _HARDLY_RPS

    def repair(self, stage: Stage, at: datetime) -> None:
        """Limit every key of the campaign."""
        del at
        for alias in self.attackers:
            key = stage.gateway.key(alias)
            key.rpm_limit, key.tpm_limit = 2, 8_000


class PoisonedSource(Fault):
    """What was ingested last holds orders for the model; taking that source out of retrieval heals."""

    id = "X02"
    title = "A document gives the model orders"
    alert = "LLMInjection"
    by_hand = "out of retrieval"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.source = "forum"
        self.share = 0.034

    def draw(self, stage: Stage) -> None:
        self.source = str(stage.rng.choice(list(SOURCES)))
        self.share *= self.strength * float(stage.rng.uniform(0.8, 1.2))

    def begin(self, stage: Stage, at: datetime) -> None:
        documents = int(stage.rng.integers(20, 900))
        summary = f"ingestion into {self.source}: {documents} documents added"
        told = {"scope": {"data_source": (self.source,)}, "author": None}
        stage.log.append(self.guilty(at, "index", summary, "airflow", **told))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - the level says it all
        stage.threats.poisoned[self.source] = level * self.share

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "data_source", [self.source]

    def is_healthy(self, stage: Stage) -> bool:
        """Nobody is shown what is hidden in the source."""
        is_read = not stage.knowledge_store.hides(self.source)
        is_read = is_read and FETCHED_BY.get(self.source) not in stage.tools.switched_off
        return not (is_read and stage.threats.poisoned.get(self.source, 0.0))
