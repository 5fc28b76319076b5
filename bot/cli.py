"""
`watchkeeper`: one command per deed.

Commands import what they need in their bodies, so that `--help` does not wait for torch and half of PyPI. What went
wrong is told in a sentence on standard error, with exit status 2; a traceback is a defect of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bot.cli_audit import add_audit_commands
from bot.cli_changes import add_change_commands
from bot.cli_index import add_index_commands
from bot.cli_operator import add_operator_commands
from bot.cli_policy import add_policy_commands
from bot.cli_probe import add_probe_command
from bot.cli_retrieval import add_retrieval_commands
from bot.cli_runbook import add_runbook_commands
from bot.incidents import DeclaredDeadError, WatchkeeperError

if TYPE_CHECKING:
    from bot.config import Config
    from bot.settings import Settings

FOUND_FAULTS = 1
WRONG_INPUT = 2
DECLARED_DEAD = 75
"""EX_TEMPFAIL: starting it again is all that is needed."""


class _WithInstalledCommands(TyperGroup):
    """Our commands, and those that installed packages add through an entry-point group."""

    plugins = "watchkeeper.commands"

    def list_commands(self, ctx: Any) -> list[str]:
        ours = super().list_commands(ctx)
        return [*ours, *sorted(set(_installed(self.plugins)) - set(ours))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        installed = _installed(self.plugins) if found is None else {}
        return _load(installed[cmd_name]) if cmd_name in installed else found


class _WithInstalledEvaluations(_WithInstalledCommands):
    plugins = "watchkeeper.evaluations"


app = typer.Typer(
    cls=_WithInstalledCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, and those hold secrets
    rich_markup_mode=None,
    help="Incident response and on-call assistant for LLM services.",
)
evaluation = typer.Typer(cls=_WithInstalledEvaluations, no_args_is_help=True, help="Measure quality on labelled data.")
app.add_typer(evaluation, name="eval")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _begin() -> None:
    from bot.logs import set_up_logging

    set_up_logging()  # to standard error: what a command prints may be piped


@app.command()
def serve(
    *,
    no_work: Annotated[
        bool, typer.Option("--no-work", help="The doors and Slack only; `watchkeeper worker` does the work.")
    ] = False,
) -> None:
    """Receive pages, keep cards, run approved fixes."""
    settings, config = _configured()
    missing = settings.missing_for_the_doors() if no_work else settings.missing_for_serving()
    forbidden = settings.too_powerful(config.action_credentials()) if no_work else ()
    if missing or forbidden:
        raise WatchkeeperError("\n".join((*missing, *forbidden)))
    from bot.app import serve as serve_forever

    asyncio.run(serve_forever(settings, config, work=not no_work))


@app.command()
def worker() -> None:
    """Work only, beside any number of others: diagnose, keep cards, run fixes. Probes if WATCHKEEPER_PORT is set."""
    settings, config = _configured()
    if missing := settings.missing_for_working():
        raise WatchkeeperError("\n".join(missing))
    from bot.app import work

    asyncio.run(work(settings, config))


@app.command()
def migrate() -> None:
    """Create the database's tables, or bring them up to date."""
    settings = _settings()
    from bot.operate import migrate as migrate_database

    with _database_told():
        migrate_database(settings)


@app.command()
def replay(
    event_id: Annotated[
        str | None, typer.Argument(help="One dead letter; `watchkeeper replay --all` takes all.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
) -> None:
    """Process dead letters again: authentic events that could not be read when they came."""
    if (event_id is None) != every:
        raise WatchkeeperError("name one event, or say --all")
    settings, config = _configured()
    _require_schema(settings)
    from bot.operate import replay as replay_letters

    count = asyncio.run(replay_letters(settings, config, event_id))
    print(f"{count} dead letter{'s' if count != 1 else ''} put back into the inbox")


@app.command()
def diagnose(
    service: Annotated[
        str | None, typer.Argument(help="A service of watchkeeper.toml, from its telemetry now.")
    ] = None,
    *,
    case: Annotated[Path | None, typer.Option(help="A recorded case's folder instead.")] = None,
    at: Annotated[str | None, typer.Option(help="As of then: 14:03 (today, UTC) or 2026-11-22T14:03:00Z.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a service, how sure that is, and what speaks for and against it."""
    if (service is None) == (case is None) or (case is not None and at is not None):
        raise WatchkeeperError(
            "name a service (and --at a time), or give a recorded case, which has its own: --case DIR"
        )
    from bot.diagnose import diagnose_case, diagnose_service, time_of
    from bot.diagnosis_shown import show

    if case is not None:
        answer = asyncio.run(diagnose_case(case))
    else:
        instant = None if at is None else time_of(at, datetime.now(UTC))
        answer = asyncio.run(diagnose_service(*_configured(), str(service), instant))
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        show(answer, sys.stdout)


@app.command("check-config")
def check_config(
    path: Annotated[Path | None, typer.Argument(help="Check this file only, not the environment.")] = None,
) -> None:
    """Read the environment and watchkeeper.toml, and say what is wrong or missing."""
    from bot.config import load_config

    if path is not None:
        print(load_config(path).summary)
        return
    settings, config = _configured()
    print(config.summary)
    if missing := (*settings.missing_for_serving(), *settings.missing_credentials(config.credentials())):
        raise WatchkeeperError("\n".join(("to serve, this is still missing:", *missing)))


@app.command()
def init(
    *,
    output: Annotated[Path, typer.Option(help="The file to write; one that exists is never overwritten.")] = Path(
        "watchkeeper.toml"
    ),
    prometheus: Annotated[str | None, typer.Option(help="Prometheus' address; PROMETHEUS_URL otherwise.")] = None,
) -> None:
    """Draft watchkeeper.toml from PagerDuty's services and what Prometheus holds."""
    from bot.operate import draft_configuration

    print(draft_configuration(_settings(), output, prometheus))


@app.command()
def doctor(
    only: Annotated[list[str] | None, typer.Argument(help="Look at these only: slack, pagerduty, ...")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Look at everything that Watchkeeper depends on, and say how to mend what is wrong."""
    from dataclasses import asdict

    from bot.doctor import EXAMINERS, examine, report
    from bot.doctor.advice import State

    if unknown := set(only or ()) - set(EXAMINERS):
        raise WatchkeeperError(f"the doctor does not know {', '.join(unknown)}; there are {', '.join(EXAMINERS)}")
    found = asyncio.run(examine(*_configured(), only or ()))
    print(json.dumps([asdict(advice) for advice in found], indent=2) if as_json else report(found))
    if any(advice.state is State.BAD for advice in found):
        raise typer.Exit(FOUND_FAULTS)


@app.command()
def backtest(
    *,
    since: Annotated[str, typer.Option(help="How far back: 12h, 30d, 4w.")] = "30d",
    service: Annotated[str | None, typer.Option(help="Only this service's incidents.")] = None,
    as_json: AsJson = False,
) -> None:
    """Diagnose past incidents from history; posts and stores nothing."""
    from bot.backtest import backtest as look_back
    from bot.backtest import in_words, period

    verdicts = asyncio.run(look_back(*_configured(), period(since), service))
    print(json.dumps([each.as_json() for each in verdicts], indent=2) if as_json else in_words(verdicts))


@app.command("rights")
def show_rights(
    names: Annotated[list[str] | None, typer.Argument(help="Actions, and `diagnosis`; all when none.")] = None,
    *,
    namespace: Annotated[list[str] | None, typer.Option(help="Where the LLM services run; may be repeated.")] = None,
) -> None:
    """Print the Kubernetes Roles that actions need, for `kubectl apply`."""
    from bot.rights import manifests, rights

    if not namespace:
        raise WatchkeeperError("say where: --namespace NAME")
    print(manifests(names or list(rights()), namespace), end="")


@evaluation.command("retrieval")
def evaluate_retrieval(
    *,
    corpus: Annotated[Path, typer.Option(help="Runbooks as JSON lines: doc_id, title, text, source.")],
    queries: Annotated[Path, typer.Option(help="Alerts: query_id, alertname, text_full, text_blind, source, expr.")],
    qrels: Annotated[Path, typer.Option(help="Which answers which: query_id, doc_id, rel.")],
    field: Annotated[
        Literal["text_full", "text_blind"], typer.Option(help="text_blind leaves out the alert's name: the hard form.")
    ] = "text_full",
    run: Annotated[Path | None, typer.Option(help="Write the answers to this file, as TREC runs are.")] = None,
    curve: Annotated[Path | None, typer.Option(help="Draw wrong suggestions against missed ones (PNG).")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure how often the right runbook is among the first, against plain baselines."""
    from retrieval.abstention import draw
    from retrieval.benchmark import Benchmark, BenchmarkError
    from retrieval.embedder import EmbeddingError, embedder_for
    from retrieval.evaluate import evaluate, report
    from retrieval.weights import WeightsError

    settings = _settings()
    embedder = embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash)
    with _told(BenchmarkError, WeightsError, EmbeddingError, OSError):
        benchmark = Benchmark.read(corpus=corpus, queries=queries, qrels=qrels)
        found = asyncio.run(evaluate(benchmark, field, embedder))
        if as_json is not None:
            as_json.write_text(json.dumps(found.figures, indent=2) + "\n", encoding="utf-8")
        if run is not None:
            run.write_text(found.run(), encoding="utf-8")
        if curve is not None:
            draw(found.abstention, curve, f"{field}: {found.figures['n']} alerts, with and without their runbooks")
    print(report(found.figures))


def main() -> None:
    """The console command; errors that people caused are one sentence each."""
    try:
        app()
    except WatchkeeperError as error:
        print(f"watchkeeper: {error}", file=sys.stderr)
        sys.exit(DECLARED_DEAD if isinstance(error, DeclaredDeadError) else WRONG_INPUT)


@contextmanager
def _told(*errors: type[Exception]) -> Iterator[None]:
    """The errors of a room, told like ours."""
    try:
        yield
    except errors as error:
        raise WatchkeeperError(str(error)) from error


@contextmanager
def _database_told() -> Iterator[None]:
    """What a database says when it cannot be used, without the statement and the library's advice."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise WatchkeeperError(f"the database of DATABASE_URL cannot be used: {reason}") from error


def _require_schema(settings: Settings) -> None:
    """Raises WatchkeeperError unless the database is at this program's schema."""
    from bot.store import schema

    with _database_told():
        revision = schema.current(settings.database_url.get_secret_value())
    if revision != schema.head():
        found = f"is at schema {revision}" if revision else "has no tables of ours"
        raise WatchkeeperError(
            f"the database {found}, and this program needs {schema.head()}: run `watchkeeper migrate`"
        )


def _settings() -> Settings:
    from bot.settings import Settings

    return Settings.load()


def _configured() -> tuple[Settings, Config]:
    from bot.config import load_config

    settings = _settings()
    return settings, load_config(settings.watchkeeper_config, prometheus_url=settings.prometheus_url)


def _installed(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def _load(entry: EntryPoint) -> Any:
    """A Typer application, or a function that becomes a command."""
    try:
        found = entry.load()
    except ModuleNotFoundError as error:
        return _unavailable(entry.name, f"`{entry.name}` needs {error.name}: pip install 'watchkeeper[lab]'")
    if not isinstance(found, typer.Typer):
        command, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        found.command(entry.name)(command)
    loaded = get_command(found)
    loaded.name = entry.name
    return loaded


def _unavailable(name: str, why: str) -> Any:
    def tell() -> None:
        raise WatchkeeperError(why)

    missing = typer.Typer(add_completion=False)
    missing.command(name, help=f"(not available: {why})")(tell)
    return get_command(missing)


add_audit_commands(app, _require_schema)
add_operator_commands(app, _require_schema)
add_change_commands(app, _configured, _require_schema)
add_probe_command(app)
add_index_commands(app, _settings, _configured)
add_policy_commands(app, _configured, _require_schema)
add_runbook_commands(app, _require_schema)
add_retrieval_commands(app, _configured, _require_schema)

if __name__ == "__main__":
    main()
