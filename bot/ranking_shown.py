"""A learned ranking for a terminal: what it would have gained, and every prior with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retrieval.feedback import Prior

_MEASURES = (("recall_1", "Recall@1"), ("mrr_10", "MRR@10"))


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Team by team; a push is in log-odds, + lifts."""
    for team, known in content["teams"].items():
        gain = content["gain"][team]
        measured = f"{gain['incidents']} incidents of {gain['alerts']} alerts"
        yield f"{team}: {measured}, each answered by what the others teach"
        for key, name in _MEASURES:
            figures = gain[key]
            difference = figures["after"] - figures["before"]
            interval = f"95 % interval {figures['low']:+.3f} to {figures['high']:+.3f}"
            yield f"  {name:<9} {figures['before']:.3f} -> {figures['after']:.3f}  ({difference:+.3f}, {interval})"
        if gain["mrr_10"]["low"] <= 0:
            yield "  The interval holds zero: this may be chance."
        for remembered, priors in known.items():
            for row in priors.values():
                prior = Prior(**row)
                rests = f"{prior.helpful} helpful, {prior.wrong} wrong, {prior.resolved} resolved"
                yield f"  {prior.log_odds:+.2f}  {remembered}: {prior.runbook} ({rests}; {prior.sha256[:12]})"
