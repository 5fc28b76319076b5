"""Signals of a small world as an on-call engineer reads them: shares, means and rates over the minutes to come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import isnan

from lab.scenarios.fault import Fault
from tests.lab.played_worlds import SmallWorld

WINDOW = timedelta(minutes=4)

Where = Mapping[str, str]


class Growth:
    """How every series of a world grew over a window, with the gauges at its end."""

    def __init__(self, small: SmallWorld, window: timedelta = WINDOW) -> None:
        before = small.fleet.registry.values.copy()
        small.pass_time(window)
        after = small.fleet.registry.values
        self._rows = []
        for series in small.fleet.registry.series:
            name = series.text.partition("{")[0]
            old = before[series.index] if series.index < len(before) else 0.0
            now = after[series.index]  # NaN when its pod is gone
            grown = 0.0 if isnan(now) else now - (0.0 if isnan(old) else old)
            self._rows.append((name, series.labels, float(grown), float(after[series.index])))
        self.seconds = window.total_seconds()

    def of(self, name: str, **where: str) -> float:
        """The growth of a counter."""
        return sum(row[2] for row in self._rows if row[0] == name and where.items() <= row[1].items())

    def level(self, name: str, **where: str) -> float:
        """The mean of a gauge over its living series."""
        rows = [row[3] for row in self._rows if row[0] == name and where.items() <= row[1].items()]
        found = [value for value in rows if not isnan(value)]
        return sum(found) / len(found)

    def share(self, name: str, part: Where, **where: str) -> float:
        whole = self.of(name, **where)
        return self.of(name, **{**where, **part}) / whole if whole else 0.0

    def mean(self, name: str, **where: str) -> float:
        n = self.of(f"{name}_count", **where)
        return self.of(f"{name}_sum", **where) / n if n else 0.0

    def signals(self, **about: str) -> dict[str, float]:
        """What the catalogue lists, for the whole service; `about` narrows what the application counts."""
        requests, sessions = self.of("llm_app_requests_total", **about), self.of("llm_app_sessions_total")
        tokens = self.of("llm_app_tokens_total", **about)
        spend = self.of("llm_app_cost_usd_total", **about)
        statuses = {s: self.share("llm_app_requests_total", {"status": s}, **about) for s in _STATUSES}
        return {
            **statuses,
            "rps": self.of("vllm:time_to_first_token_seconds_count") / self.seconds,
            "retry": requests / sessions if not about and sessions else 0.0,
            "ptok": self.mean("vllm:request_prompt_tokens"),
            "otok": self.mean("vllm:request_generation_tokens"),
            "queue": self.mean("vllm:request_queue_time_seconds"),
            "prefill": self.mean("vllm:request_prefill_time_seconds"),
            "ttft": self.mean("vllm:time_to_first_token_seconds"),
            "itl": self.mean("vllm:inter_token_latency_seconds"),
            "e2e": self.mean("vllm:e2e_request_latency_seconds"),
            "running": self.level("vllm:num_requests_running"),
            "waiting": self.level("vllm:num_requests_waiting"),
            "kv": self.level("vllm:kv_cache_usage_perc"),
            "guard": self.mean("llm_app_stage_seconds", stage="guardrail_in"),
            "retr": self.mean("llm_app_stage_seconds", stage="retrieval"),
            "gateway": self.mean("litellm_request_total_latency_metric", model_group="chat"),
            "client": self.mean("llm_app_request_duration_seconds"),
            "rempty": self.share("llm_app_retrieval_total", {"outcome": "empty"}),
            "rscore": _ratio(self, "llm_app_retrieval_score_sum", "llm_app_retrieval_score_count"),
            "toolerr": self.share("llm_app_tool_calls_total", {"outcome": "error"}),
            "toolrate": self.of("llm_app_tool_calls_total", verb="write") / self.seconds,
            "tdown": self.share("llm_app_feedback_total", {"rating": "down"}),
            "judge": _ratio(self, "llm_app_judge_score_sum", "llm_app_judge_score_count"),
            "fmt": self.share("llm_app_format_checks_total", {"result": "valid"}),
            "refusal": self.share("llm_app_responses_total", {"outcome": "refusal"}),
            "gblock": self.share("llm_app_guardrail_total", {"decision": "block"}),
            "auc": self.level("llm_app_input_drift_auc"),
            "spend": spend / self.seconds,
            "unit": spend / tokens if tokens else 0.0,
        }


_STATUSES = ("5xx", "4xx", "429", "aborted")


def _ratio(growth: Growth, part: str, whole: str) -> float:
    n = growth.of(whole)
    return growth.of(part) / n if n else 0.0


class FaultyWorld(SmallWorld):
    """A small world and a fault in it, with its usual magnitudes drawn."""

    def __init__(self, fault: Fault, *, seed: int = 5) -> None:
        super().__init__("I01", seed=seed)
        self.fault = fault
        fault.draw(self.stage)

    def begin(self, settle: timedelta = timedelta(minutes=2)) -> None:
        """The whole fault, at once, and a while for what was running to end."""
        self.fault.begin(self.stage, self.fleet.now)
        self.fault.apply(self.stage, 1.0, self.fleet.now)
        self.pass_time(settle)

    def heal(self, settle: timedelta = timedelta(minutes=2)) -> None:
        self.fault.apply(self.stage, 0.0, self.fleet.now)
        self.pass_time(settle)
