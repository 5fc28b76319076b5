"""Which signals show a trouble at a glance, and how their history is asked."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from diagnostics.causes import knowledge
from diagnostics.diagnosis import Diagnosis, RankedCause
from diagnostics.findings import Finding, Measure
from diagnostics.key_signals import MOST_QUERIES, QUESTIONS, curves, graph_url, key_signals, question_of
from diagnostics.runner import Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import Matrix, Query
from tests import synthetic
from tests.diagnosed import frame_of, recorded


def found(cause: str, *measures: Measure) -> Diagnosis:
    return Diagnosis(
        service="chat",
        frame=frame_of(),
        since=synthetic.ONSET,
        user_impact=True,
        causes=(RankedCause(cause=cause, title=cause, probability=0.9),),
        findings=(Finding.bad("a_check", "It moved.", *measures),),
    )


HITS = Measure(signal="prefix_hit_ratio", value=0.05, baseline=0.4, unit="ratio")
PREFILL = Measure(signal="prefill", value=0.9, baseline=0.3, unit="s")
TTFT = Measure(signal="ttft", value=0.72, baseline=0.47, unit="s")
COST = Measure(signal="cost_per_hour", value=90.0, baseline=9.0, unit="usd/h")
PROMPTS = Measure(signal="prompt_tokens", value=3000.0, baseline=3001.0, unit="tokens")


def test_the_decisive_signals_come_first_and_calm_ones_not_at_all() -> None:
    """Of a cause: what tells it apart, what it brings about, one of a group before its second, then the rest."""
    order = [seen.signal.name for seen in key_signals(found("S04", COST, TTFT, PROMPTS, PREFILL, HITS))]

    assert order == ["prefix_hit_ratio", "prefill", "cost_per_hour", "ttft"]


def test_without_a_cause_what_moved_most_comes_first() -> None:
    """Nobody knows what is decisive then."""
    order = [seen.signal.name for seen in key_signals(found("other", TTFT, COST))]

    assert order == ["cost_per_hour", "ttft"]


class Counting:
    """The telemetry behind it, with every matrix query counted."""

    def __init__(self, scenario: str) -> None:
        self._telemetry = recorded(scenario)
        self.asked: list[Query] = []
        self.exported = self._telemetry.exported
        self.vector = self._telemetry.vector
        self.now = self._telemetry.now

    async def matrix(self, query: Query, *times: object) -> Matrix:
        self.asked.append(query)
        return await self._telemetry.matrix(query, *times)  # type: ignore[arg-type]  # passed on as they come


async def test_the_curves_of_a_real_diagnosis_show_the_fall() -> None:
    """The hit ratio is near its baseline before the onset and near its value after it; few queries are asked."""
    telemetry = Counting("S04")
    diagnosis = await Diagnoser(recorded("S04"), patience_s=30.0).diagnose(synthetic.target(), at=synthetic.END)

    drawn = await curves(telemetry, synthetic.target(), diagnosis)

    assert len(telemetry.asked) <= MOST_QUERIES
    [hits] = [curve for curve in drawn if curve.signal == "prefix_hit_ratio"]
    assert hits.baseline is not None
    assert hits.now is not None
    before = [value for at, value in hits.points if at < synthetic.ONSET - timedelta(minutes=2)]
    after = [value for at, value in hits.points if at > synthetic.ONSET + timedelta(minutes=6)]
    assert min(before) > (hits.baseline + hits.now) / 2 > max(after)
    assert hits.points == sorted(hits.points)


async def test_a_signal_without_history_is_left_out() -> None:
    """An empty panel says nothing."""
    assert await curves(recorded("S04"), Target(service="chat"), found("S04", HITS)) == ()
    elsewhere = Target(service="chat", selectors={"serving": {"namespace": "nowhere"}})
    assert await curves(recorded("S04"), elsewhere, found("S04", HITS)) == ()


def test_a_graphs_address_is_our_own_query() -> None:
    """PromQL from our names and the configured selectors, quoted and encoded whole, ending at the diagnosis."""
    target = Target(service="chat", selectors={"serving": {"namespace": 'a"b&c'}})
    url = graph_url("https://prometheus.example.com/", target, synthetic.END, "itl")

    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    assert (parts.netloc, parts.path) == ("prometheus.example.com", "/graph")
    metric = "vllm:inter_token_latency_seconds"
    where = r'{namespace="a\"b&c"}'
    assert asked["g0.expr"] == [f"sum(rate({metric}_sum{where}[120s])) / sum(rate({metric}_count{where}[120s]))"]
    assert asked["g0.end_input"] == [f"{synthetic.END:%Y-%m-%d %H:%M:%S}"]
    assert graph_url("https://p.example.com", target, synthetic.END, "xid_nvlink") == ""


def test_every_question_is_about_a_signal_that_exists() -> None:
    """A renamed signal must not lose its curve in silence, and every family asked is one that can be configured."""
    everywhere = {family: {"a": "b"} for family in ("serving", "gpu", "gateway", "application", "kubernetes")}
    target = Target(service="chat", selectors=everywhere)

    assert set(QUESTIONS) <= knowledge.load().signals.keys()
    assert [name for name in QUESTIONS if question_of(name, target) is None] == []
