"""`watchkeeper eval diagnosis`; light to import, since `watchkeeper eval --help` imports it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from lab.evaluation.evaluate import Options

REFUSED = 1


def diagnosis(
    *,
    cases: Annotated[Path, typer.Option(help="A folder of case folders, at any depth.")],
    telemetry: Annotated[
        Literal["recorder", "prometheus"],
        typer.Option(help="Ask our recorder, or a real Prometheus that promtool fills per case."),
    ] = "recorder",
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures and every case here.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Write the calibration figure (PNG) here.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only this many cases, chosen at random.")] = None,
    seed: Annotated[int, typer.Option(help="Two samples with the same seed are the same.")] = 0,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Read this cause's cases with a knowledge base that lacks it; may be repeated."),
    ] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="As --leave-out, for each cause of the catalogue in turn.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Ask both telemetries and list the answers that differ.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes side by side; one per core otherwise.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds that one case may take before it is skipped.")] = 180.0,
) -> None:
    """Measure how often the diagnosis is right, against plain baselines."""
    from diagnostics.causes import knowledge  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.evaluation.evaluate import Options  # noqa: PLC0415

    catalogue = knowledge.load().causes
    unknown = sorted(set(leave_out or ()) - set(catalogue))
    if unknown:
        raise typer.BadParameter(f"the knowledge base has no {', '.join(unknown)}", param_hint="--leave-out")
    left_out = tuple(catalogue) if leave_one_out else tuple(leave_out) if leave_out else None
    options = Options(
        cases=cases,
        source=telemetry,
        sample=sample,
        seed=seed,
        workers=jobs or len(os.sched_getaffinity(0)),
        patience_s=patience,
        left_out=left_out,
        command=_again(),
    )
    result = _evaluated(options, compare=compare)
    if as_json is not None:
        as_json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if figure is not None and not compare:
        from lab.evaluation.calibration_figure import draw_calibration  # noqa: PLC0415 - matplotlib takes a second

        draw_calibration(result["calibration"], figure, title=f"{result['n']} cases through the {telemetry}")
    if compare and result["different"]:
        raise typer.Exit(REFUSED)


def _evaluated(options: Options, *, compare: bool) -> dict[str, Any]:
    """Evaluate with the progress on standard error and the report on standard output; exit 1 without a score."""
    from lab.evaluation import evaluate  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.evaluation.cases import EvaluationError  # noqa: PLC0415
    from lab.evaluation.progress import counting  # noqa: PLC0415
    from lab.evaluation.report import Report  # noqa: PLC0415

    try:
        with counting() as told:
            result = asyncio.run((evaluate.compare if compare else evaluate.evaluate)(options, told))
    except EvaluationError as error:
        print(f"watchkeeper: no score: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from error
    report = Report()
    (report.comparison if compare else report.evaluation)(result)
    return result


def _again() -> str:
    """The command that repeats this run, as it was typed."""
    return shlex.join(["watchkeeper", *sys.argv[1:]])
