"""`watchkeeper eval similar`; light to import, since `watchkeeper eval --help` imports it."""

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
    "latest_of_service": "latest of the service",
    "latest_of_alert": "latest of the same alert",
    "latest_of_diagnosed_cause": "latest of the diagnosed cause",
}


def similar(
    *,
    histories: Annotated[int, typer.Option(min=1, help="How many, each with one question.")] = 400,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 20_261_124,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure how often the first similar past incident has the same cause, on made-up histories."""
    from lab.alert_texts.texts import AlertTexts, AlertTextsError  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.similar.evaluate import evaluate  # noqa: PLC0415
    from retrieval.embedder import EmbeddingError, MiniLmEmbedder  # noqa: PLC0415
    from retrieval.weights import WeightsError  # noqa: PLC0415

    try:
        result = asyncio.run(evaluate(AlertTexts.read(), MiniLmEmbedder(), count=histories, seed=seed))
        if as_json is not None:
            as_json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except (AlertTextsError, EmbeddingError, WeightsError, OSError) as error:
        print(f"watchkeeper: no score: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from error
    print(report(result))


def report(result: Mapping[str, Any]) -> str:
    """The figures as a table for a terminal."""
    head = (
        f"{result['histories']} histories (seed {result['seed']}), {result['model']}: in {result['n']} the cause had "
        f"been there before, in {result['new']} it was new"
    )
    lines = [
        head,
        f"{'':38}   n  same cause first [95 % interval]  shown  of them right   new: none shown [95 % interval]",
        *(_row(_NAMES[name], part) for name, part in result["systems"].items()),
    ]
    for family, ways in result["per_family"].items():
        lines += [_row(f"{family}, {_NAMES[way]}", part) for way, part in ways.items()]
    return "\n".join(lines)


def _row(name: str, part: Mapping[str, Any]) -> str:
    first = f"{part['same_cause']:.3f} {_interval(part['same_cause_ci95'])}"
    row = f"{name:38} {part['n']:3}  {first:32}  {part['shown']:.3f}  {part['right_when_shown']:.3f}        "
    return f"{row}   {part['none_shown']:.3f} {_interval(part['none_shown_ci95'])}" if part["new"] else row


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"
