"""`watchkeeper eval alerts`; light to import, since `watchkeeper eval --help` imports it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

REFUSED = 1

_NAMES = {
    "text": "by text alone",
    "text_and_diagnosis": "with the diagnosis",
    "text_and_wrong_diagnosis": "with a wrong diagnosis",
    "bm25_body_title": "BM25, body and title",
    "dense_sections": "MiniLM sections",
    "reciprocal_rank_fusion": "reciprocal ranks of both",
}


def alerts(
    *,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures and every answer here.")] = None,
) -> None:
    """Measure how often the right runbook comes first for alerts of LLM services."""
    from lab.alert_texts.evaluate import evaluate  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.alert_texts.texts import AlertTexts, AlertTextsError  # noqa: PLC0415
    from retrieval.embedder import EmbeddingError, MiniLmEmbedder  # noqa: PLC0415
    from retrieval.weights import WeightsError  # noqa: PLC0415

    try:
        result = asyncio.run(evaluate(AlertTexts.read(), MiniLmEmbedder()))
        if as_json is not None:
            as_json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except (AlertTextsError, EmbeddingError, WeightsError, OSError) as error:
        print(f"watchkeeper: no score: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from error
    print(report(result))


def report(result: Mapping[str, Any]) -> str:
    """The figures as tables for a terminal."""
    lines = [
        f"{result['n']} alerts of LLM services, {result['runbooks']} runbooks, {result['model']}",
        f"the diagnosis has the true cause first for {result['diagnosis_right_first']:.1%}",
        f"{'':38}   n  R@1 [95 % interval]   R@3 [95 % interval]   MRR [95 % interval]",
        *(_row(_NAMES[name], part) for name, part in result["systems"].items()),
    ]
    for parts in (result["per_voice"], result["per_family"]):
        lines += [_row(f"{name}, {_NAMES[way]}", part) for name, ways in parts.items() for way, part in ways.items()]
    lines += [_abstention(_NAMES[way], part, result["uncovered"]) for way, part in result["none_fits"].items()]
    return "\n".join(lines)


def _row(name: str, part: Mapping[str, Any]) -> str:
    shares = (f"{part[key]:.3f} {_interval(part[f'{key}_ci95'])}" for key in ("recall@1", "recall@3", "mrr@10"))
    return f"{name:38} {part['n']:3}  {'  '.join(shares)}"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _abstention(name: str, part: Mapping[str, Any], uncovered: int) -> str:
    return (
        f"{uncovered} alerts that no runbook covers, {name}: {part['uncovered_refused']:.1%} refused at the floor of "
        f"{part['floor']:g}, {part['uncovered_misled']:.1%} get a runbook at 0.5 or more; of the covered "
        f"{part['covered_refused']:.1%} are refused, of right first answers {part['right_refused']:.1%}; "
        f"AUROC {part['auroc']:.3f}, by BM25's score {part['auroc_raw_score']:.3f}"
    )
