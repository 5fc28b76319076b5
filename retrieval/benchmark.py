"""
A retrieval benchmark as files: runbooks, alerts, and which runbook answers which alert.

Three files of JSON lines: documents (doc_id, title, text, source), queries (query_id, source, alertname, expr, labels,
text_full, text_blind) and judgements (query_id, doc_id, rel); other fields are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic import Field as Field_

from retrieval.documents import Document, Question
from retrieval.markdown import document_from_markdown

Field = Literal["text_full", "text_blind"]


class BenchmarkError(Exception):
    """A file of the benchmark cannot be used; the message names file and line."""


class _Runbook(BaseModel):
    doc_id: str
    text: str
    title: str = ""
    source: str = ""


class _Alert(BaseModel):
    query_id: str
    text_full: str
    text_blind: str
    source: str = ""
    alertname: str = ""
    expr: str = ""
    labels: dict[str, Any] = Field_(default_factory=dict)


class _Judgement(BaseModel):
    query_id: str
    doc_id: str
    rel: int


Line = TypeVar("Line", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One alert with the documents that answer it and how well (2 its own, 1 the same alert's elsewhere)."""

    query_id: str
    source: str
    alert: str
    expr: str
    texts: dict[Field, str]
    relevance: dict[str, int]
    services: tuple[str, ...] = ()

    def question(self, field: Field, *, with_expr: bool = False) -> Question:
        """
        What the product would be asked.

        `text_full` comes with the alert's name, as a page does; `text_blind` must do without it.
        """
        return Question(
            text=self.texts[field],
            alert=self.alert if field == "text_full" else "",
            expr=self.expr if with_expr else "",
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All documents and all cases, in the files' order."""

    documents: tuple[Document, ...]
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, *, corpus: Path, queries: Path, qrels: Path) -> Benchmark:
        """Blocks. Raises BenchmarkError."""
        documents = tuple(
            document_from_markdown(runbook.doc_id, runbook.text, title=runbook.title)
            for runbook in _lines(corpus, _Runbook)
        )
        alerts = list(_lines(queries, _Alert))
        if not documents or not alerts:
            raise BenchmarkError(f"{len(documents)} documents and {len(alerts)} queries: nothing to measure")
        relevance: dict[str, dict[str, int]] = {}
        for judgement in _lines(qrels, _Judgement):
            if judgement.rel > 0:
                relevance.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.rel
        cases = tuple(
            Case(
                query_id=alert.query_id,
                source=alert.source,
                alert=alert.alertname,
                expr=alert.expr,
                texts={"text_full": alert.text_full, "text_blind": alert.text_blind},
                relevance=relevance.get(alert.query_id, {}),
                services=tuple(str(alert.labels[label]) for label in _SERVICE_LABELS if alert.labels.get(label)),
            )
            for alert in alerts
        )
        return cls(documents=documents, cases=cases)


_SERVICE_LABELS = ("service", "job", "component")


def _lines(path: Path, shape: type[Line]) -> Iterator[Line]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield shape.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise BenchmarkError(f"{path}, line {number}: {where}: {first['msg']}") from error
