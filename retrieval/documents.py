"""What retrieval searches: runbooks as titled sections, each with where it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading of a document and the prose beneath it."""

    heading: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """
    A runbook as retrieval sees it.

    `alerts` are the alert names and `causes` the catalogue ids that its author declared; `revision` is the SHA-256 of
    its content. `services` limits it to these services; empty means any.
    """

    doc_id: str
    title: str
    sections: tuple[Section, ...]
    alerts: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    url: str = ""
    revision: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """
    What is asked of the runbooks.

    `alert` is the alert's name, `text` what people would read (summary, findings), `expr` its PromQL, `causes`
    catalogue ids with the diagnosis' probabilities, `runbook_url` what the alert's author linked.
    """

    text: str
    alert: str = ""
    expr: str = ""
    service: str = ""
    runbook_url: str = ""
    causes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One candidate: the document, its best section, a score from 0 to 1, and why, in words."""

    doc_id: str
    title: str
    heading: str
    score: float
    reasons: tuple[str, ...] = ()
    url: str = ""
