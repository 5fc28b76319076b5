"""The lab's commands of `watchkeeper`; light to import, since `watchkeeper --help` imports it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

Scenario = Annotated[str, typer.Option(help="Which scenario to play: S04, S03, G04, I01, Q01 or X04.")]
ScenarioOrAll = Annotated[
    str, typer.Option(help="Which scenario to play: S04, S03, G04, I01, Q01 or X04; `all` plays each in turn.")
]
EVERY = "all"
VECTORS = Path("var") / "vectors.sqlite"
Pace = Annotated[
    float | None,
    typer.Option(min=1.0, max=60.0, help="How many times faster than the wall lab time passes; else the scenario's."),
]
Seed = Annotated[int, typer.Option(help="Two runs with the same seed see the same traffic.")]
SocketMode = Annotated[
    bool, typer.Option("--socket-mode", envvar="DEMO_SOCKET_MODE", help="Slack speaks over Watchkeeper's WebSocket.")
]

lab = typer.Typer(no_args_is_help=True, help="The practice range: a simulated fleet, Slack and PagerDuty.")


@lab.callback()
def _lab() -> None:
    """The practice range: a simulated fleet, Slack and PagerDuty."""


@lab.command("serve")
def lab_serve(
    *,
    folder: Annotated[Path, typer.Option(help="Where the configuration, the environment and lab.json are written.")],
    product: Annotated[str, typer.Option(help="Where the product will listen.")] = "http://127.0.0.1:8080",
    scenario: Scenario = "S04",
    pace: Pace = None,
    seed: Seed = 1,
    socket_mode: SocketMode = False,
    rate_limited: Annotated[
        bool, typer.Option("--rate-limited", help="Slack refuses what is beyond its rates.")
    ] = False,
    hide_answer: Annotated[bool, typer.Option("--hide-answer", help="The page does not say what is played.")] = False,
) -> None:
    """Serve the world, Slack and PagerDuty in one process on free ports, until Ctrl-C."""
    from lab.serve import LabOptions, serve  # noqa: PLC0415 - keeps `watchkeeper --help` fast

    options = LabOptions(
        folder=folder,
        scenario=scenario,
        pace=pace,
        seed=seed,
        product=product,
        socket_mode=socket_mode,
        rate_limited=rate_limited,
        hides_answer=hide_answer,
    )
    asyncio.run(serve(options))


@lab.command("make-cases")
def lab_make_cases(
    *,
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    seed: Annotated[int, typer.Option(help="The same seed and count write the same cases.")],
    count: Annotated[int, typer.Option(min=1, help="How many cases, healthy runs included.")],
    scenario: Annotated[str | None, typer.Option(help="One of the catalogue's scenarios only, as G04.")] = None,
    healthy: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of runs without a fault.")] = 0.2,
    strength: Annotated[
        float | None, typer.Option(min=0.05, max=3.0, help="How strong every fault is; else 0.6 to 1.6 times.")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Two faults of two families at once in every case.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one for each core.")] = 0,
) -> None:
    """Write diagnosis cases: telemetry, changes and alert of simulated incidents, with the truth beside them."""
    from lab.cases.make import CasesError, CasesOptions, make_cases  # noqa: PLC0415 - keeps `watchkeeper --help` fast

    options = CasesOptions(
        folder=out,
        seed=seed,
        count=count,
        scenario=scenario,
        healthy=healthy,
        strength=strength,
        pairs=pairs,
        jobs=jobs,
    )
    try:
        for done, one in enumerate(make_cases(options, shlex.join(["watchkeeper", *sys.argv[1:]])), 1):
            print(f"{done}/{count} {one['case']}: {one['cause']}, {one['series']} series", file=sys.stderr)
    except CasesError as error:
        raise typer.BadParameter(str(error)) from error


def demo(
    *,
    headless: Annotated[
        bool, typer.Option("--headless", envvar="HEADLESS", help="No browser: actors play the people.")
    ] = False,
    scenario: ScenarioOrAll = "S04",
    pace: Pace = None,
    seed: Seed = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Where the drill keeps its files; a new folder under var/ otherwise.")
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep everything running after a headless story.")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds that a headless story may take, its start included.")] = 90.0,
    socket_mode: SocketMode = False,
) -> None:
    """Play an incident from page to verified fix on this machine, without any account."""
    from lab.demo import DemoOptions, play  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.drill import DrillOptions  # noqa: PLC0415
    from lab.scenarios import SCENARIOS  # noqa: PLC0415

    names = tuple(SCENARIOS) if scenario == EVERY else (scenario,)
    if not SCENARIOS.keys() >= set(names):
        raise typer.BadParameter(f"there is no {scenario}; there is {', '.join(SCENARIOS)}", param_hint="--scenario")
    if len(names) > 1 and not headless:
        raise typer.BadParameter("people play one at a time; `all` needs --headless", param_hint="--scenario")
    drills = tuple(
        DrillOptions(
            folder=folder / name if folder and len(names) > 1 else folder,
            scenario=name,
            pace=pace,
            seed=seed,
            socket_mode=socket_mode,
            vectors=VECTORS,
        )
        for name in names
    )
    sys.exit(asyncio.run(play(DemoOptions(drills=drills, is_headless=headless, holds=hold, deadline_s=deadline))))


def drill(
    *,
    scenario: Annotated[str, typer.Argument(help="A fault of the catalogue, as G04.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every fault of the catalogue; needs --headless.")] = False,
    headless: Annotated[bool, typer.Option("--headless", help="No browser: actors play the people.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the judgements are written.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Drills side by side; each waits most of its time.")] = 1,
    second_best: Annotated[
        bool,
        typer.Option("--second-best", help="Ask for the next possible fix; it must not pass for a success."),
    ] = False,
    pace: Pace = None,
    seed: Seed = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Where the drills keep their files; new folders under var/ otherwise.")
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that a drill may take, its start included.")] = 240.0,
) -> None:
    """Play a fault from page to resolution: headless and judged, or as a training in the local Slack."""
    from lab.drill import DrillOptions  # noqa: PLC0415 - keeps `watchkeeper --help` fast
    from lab.drills import DrillsOptions, drill_all  # noqa: PLC0415
    from lab.scenarios.faults import FAULTS  # noqa: PLC0415
    from lab.training import train  # noqa: PLC0415

    names = tuple(sorted(FAULTS)) if every else tuple(name for name in scenario.split(",") if name)
    if not names or not FAULTS.keys() >= set(names):
        raise typer.BadParameter(f"name one of {', '.join(sorted(FAULTS))}, or say --all", param_hint="SCENARIO")
    if not headless and (len(names) > 1 or second_best or json_file):
        raise typer.BadParameter("people play one fault, and the right fix; the rest needs --headless")
    drills = tuple(
        DrillOptions(
            folder=folder / name if folder and len(names) > 1 else folder,
            scenario=name,
            pace=pace,
            seed=seed,
            vectors=VECTORS,
        )
        for name in names
    )
    if not headless:
        sys.exit(asyncio.run(train(drills[0])))
    options = DrillsOptions(drills=drills, jobs=jobs, deadline_s=deadline, second_best=second_best)
    sys.exit(asyncio.run(drill_all(options, json_file)))
