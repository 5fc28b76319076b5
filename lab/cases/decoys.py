"""Innocent changes near the onset: most incidents have some, and blaming the newest one is mostly wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np

from lab.scenarios.prompt_past import shorten_summary
from lab.stage import Deed, LoggedChange, Stage

_NEAR = timedelta(minutes=20)
_PEOPLE = ("erin", "frank", "grace", "heidi", "ivan", "judy")
_ELSEWHERE = ("billing", "search", "mobile-api", "reports", "identity")

_PLAIN: Sequence[tuple[str, str, str]] = (
    ("flag", "flags", "show the new feedback form to half of the users"),
    ("flag", "flags", "hide the beta banner"),
    ("config", "git", "raise the log level of the billing exporter"),
    ("infra", "terraform", "add two CPU nodes to the batch pool"),
    ("infra", "kubernetes", "patch the kernel of a node that runs no pod of ours"),
    ("secret", "vault", "rotate the credential of the data warehouse export"),
    ("monitoring", "git", "add a panel to the latency dashboard"),
    ("tool", "git", "reword the description of the calendar tool"),
    ("policy", "git", "correct a typo in the moderation notice"),
    ("gateway", "argocd", "gateway: one more replica of the access-log shipper"),
    ("index", "airflow", "nightly ingestion: 214 documents added, 3 removed"),
    ("network", "terraform", "tighten the egress rule of the staging namespace"),
)


def innocent_deeds(rng: np.random.Generator, onset: datetime, end: datetime) -> list[Deed]:
    """None to three changes within twenty minutes of the onset, one of them at least on the alerting service."""
    deeds = []
    for place in range(int(rng.integers(0, 4))):
        away = float(rng.uniform(-1, 1)) * _NEAR
        at = min(onset + away, end - timedelta(minutes=1))
        deeds.append(Deed(at=at, do=_innocent(rng, at, is_ours=place == 0 or rng.random() < 0.4)))
    return deeds


def _innocent(rng: np.random.Generator, at: datetime, *, is_ours: bool) -> Callable[[Stage], None]:
    if is_ours and rng.random() < 0.3:
        return lambda stage: _shorten_summary(stage, at)
    kind, source, summary = _PLAIN[int(rng.integers(len(_PLAIN)))]
    service = "chat" if is_ours else str(rng.choice(_ELSEWHERE))
    author = str(rng.choice(_PEOPLE))
    change = LoggedChange(at=at, kind=kind, source=source, summary=summary, author=author, service=service)
    return lambda stage: stage.log.append(change)


def _shorten_summary(stage: Stage, at: datetime) -> None:
    """A real prompt change that nobody notices; a small part of the traffic uses that prompt."""
    before = stage.prompts.labelled("chat-summary", "production")
    if before.version >= 4:
        return
    shorten_summary(stage, at)
    after = stage.prompts.labelled("chat-summary", "production")
    change = LoggedChange(
        at=at,
        kind="prompt",
        source="langfuse",
        summary=f"chat-summary: production moved from version {before.version} to {after.version}",
        author=after.created_by,
        scope={"prompt": ("chat-summary",), "prompt_version": (str(after.version),)},
        before=before.prompt,
        after=after.prompt,
    )
    stage.log.append(change)
