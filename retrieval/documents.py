"""What retrieval searches: runbooks as titled sections, each with where it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Section:
    """
    One heading of a document and the prose beneath it.

    `anchor` is its place on the page (`#before-you-start`) where a heading that stands there twice has a number;
    `path` the headings above it, the outermost first.
    """

    heading: str
    text: str
    anchor: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """
    Where a document came from: the folder and file, its owner, and exactly which text of it.

    `folder` is the configured one that `file` lies in. `sha256` (hex) is of the file's content; `commit` (hex) is the
    reviewed one that holds it, empty when nobody was asked.
    """

    file: str = ""
    folder: str = ""
    owner: str = ""
    commit: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        said = (self.file, self.commit and f"commit {self.commit[:12]}", self.sha256 and f"SHA-256 {self.sha256[:12]}")
        owner = f"owner {self.owner}" if self.owner else ""
        return ", ".join(part for part in (*said, owner) if part)


@dataclass(frozen=True, kw_only=True)
class Document:
    """
    A runbook as retrieval sees it.

    `alerts` are the alert names, `causes` the catalogue ids and `signals` the metrics that its author declared, and
    `labels` how it was sorted. `services` limits it to these services; empty means any. `origin` says where it came
    from.
    """

    doc_id: str
    title: str
    sections: tuple[Section, ...]
    alerts: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    url: str = ""
    origin: Origin = Origin()


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
    """
    One candidate: the document, its best section, a score from 0 to 1, and why, in words.

    `anchor` is the section's place on the page (`#before-you-start`), as GitHub and GitLab name it. `standing` is 2
    when the alert links it, 1 when it declares the alert or is named like it: no vote brings another one past it.
    """

    doc_id: str
    title: str
    heading: str
    score: float
    reasons: tuple[str, ...] = ()
    url: str = ""
    anchor: str = ""
    origin: Origin = Origin()
    standing: int = 0

    @property
    def link(self) -> str:
        """The section's address; empty when nobody said where the page is read."""
        return f"{self.url}{self.anchor}" if self.url else ""
