"""Signals of quality and safety as they are read from a small world: shares, means and rates."""

from __future__ import annotations

from tests.lab.integration_readings import Growth


def signals(growth: Growth) -> dict[str, float]:
    """Those that the integrations' tests read, and those of safety, per answer or per request."""
    requests, answers = growth.of("llm_app_requests_total"), growth.of("llm_app_responses_total")
    return {
        **growth.signals(),
        "inj": growth.of("llm_app_injection_detections_total") / requests,
        "sens": growth.of("llm_app_sensitive_output_total") / answers,
        "cut": growth.share("llm_app_responses_total", {"outcome": "truncated"}),
        "flen": growth.share("vllm:request_success_total", {"finished_reason": "length"}),
        "unapproved": growth.share("llm_app_tool_calls_total", {"approved": "no"}, verb="write"),
    }


def judged(growth: Growth, **where: str) -> float:
    return growth.of("llm_app_judge_score_sum", **where) / growth.of("llm_app_judge_score_count", **where)


def refused(growth: Growth, **where: str) -> float:
    return growth.share("llm_app_responses_total", {"outcome": "refusal"}, **where)


def valid(growth: Growth, **where: str) -> float:
    return growth.share("llm_app_format_checks_total", {"result": "valid"}, **where)
