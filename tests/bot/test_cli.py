"""The command: quick to help, plain about mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bot import cli
from bot.incidents import DeclaredDeadError, WatchkeeperError

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "faiss",
    "sentence_transformers",
    "scipy",
    "sqlalchemy",
    "fastapi",
    "dbos",
    "pydantic",
    "numpy",
    "httpx",
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`watchkeeper WORDS` in an empty folder and without settings: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)
    for variable in ("WATCHKEEPER_CONFIG", "PROMETHEUS_URL", "SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)

    def watchkeeper(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["watchkeeper", *words])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return watchkeeper


@pytest.mark.parametrize(
    "code", ["import bot.cli", "import sys; sys.argv = ['watchkeeper', '--help']; bot.cli.app(standalone_mode=False)"]
)
def test_help_waits_for_nothing_heavy(code: str) -> None:
    """Neither importing the command nor printing its help, with the lab's commands, imports a large package."""
    script = f"import bot.cli\n{code}\nimport sys\nprint('HEAVY', [m for m in {HEAVY} if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert shown.splitlines()[-1] == "HEAVY []"


def test_help_lists_every_command(run: Run) -> None:
    """What the documents name is there, also what the lab adds by entry point when it is installed."""
    status, shown, _ = run("--help")

    assert status == 0
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.strip()}
    assert {"serve", "migrate", "replay", "diagnose", "search", "runbook", "eval", "audit", "check-config"} <= listed


def test_a_mistake_is_one_sentence(run: Run) -> None:
    """What a person got wrong is told on standard error with status 2, and without a traceback."""
    status, shown, told = run("check-config", "none.toml")

    assert (status, shown) == (2, "")
    assert told.startswith("watchkeeper: none.toml:1: there is no such file")
    assert "Traceback" not in told


def test_unexpected_words_are_refused(run: Run) -> None:
    """A misspelt command or option is a usage error."""
    assert run("serf")[0] == 2
    assert run("diagnose", "chat", "--jsn")[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("replay",),
        ("replay", "E1", "--all"),
        ("diagnose",),
        ("diagnose", "chat", "--case", "."),
        ("diagnose", "--case", ".", "--at", "10:00"),
    ],
)
def test_what_is_meant_must_be_clear(run: Run, words: tuple[str, ...]) -> None:
    """Commands that need one of two things refuse none and both."""
    status, _, told = run(*words)

    assert status == 2
    assert told.startswith("watchkeeper: name ")


def test_serving_says_all_that_is_missing(run: Run, tmp_path: Path) -> None:
    """One run names every variable that has to be set before Watchkeeper can serve."""
    (tmp_path / "watchkeeper.toml").write_text("format = 1\n", encoding="utf-8")

    status, _, told = run("serve")

    assert status == 2
    assert {"SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "PAGERDUTY_WEBHOOK_SECRETS"} <= set(
        told.replace(":", " ").split()
    )


def test_an_empty_secret_stops_everything(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a migration starts in an environment that would switch authentication off."""
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "")

    status, _, told = run("migrate")

    assert status == 2
    assert told.startswith("watchkeeper: SLACK_SIGNING_SECRET is empty")


def test_check_config_reads_one_file(run: Run) -> None:
    """With a path nothing of the environment is asked for; `make check` uses it on the example."""
    status, shown, told = run("check-config", str(ROOT / "watchkeeper.example.toml"))

    assert (status, told) == (0, "")
    assert "policy version" in shown


def test_check_config_names_missing_credentials(run: Run, tmp_path: Path) -> None:
    """Credentials that the file names and the environment lacks would fail at the first fix, so they are told now."""
    (tmp_path / "watchkeeper.toml").write_text(
        'format = 1\n[[cluster]]\nname = "c"\nurl = "https://c"\naction_credential = "KUBE_ACTION_TOKEN"\n',
        encoding="utf-8",
    )

    status, _, told = run("check-config")

    assert status == 2
    assert "KUBE_ACTION_TOKEN is not set" in told


def test_lint_finds_faults_with_their_line(run: Run, tmp_path: Path) -> None:
    """A runbook that cannot be followed is told with file, line and remedy, and the status says so to a script."""
    book = tmp_path / "broken.md"
    book.write_text(
        "---\nformat: 1\ntitle: x\n---\n\n## Fix\n\n### Do\n\n```yaml step\naction: no.such\n```\n", encoding="utf-8"
    )

    status, shown, _ = run("runbook", "lint", str(book))

    assert status == 1
    assert "broken.md:" in shown
    assert "no.such" in shown


def test_our_runbooks_pass_their_lint(run: Run) -> None:
    """`watchkeeper runbook lint` without paths reads what is shipped."""
    status, shown, _ = run("runbook", "lint", "--today", "2026-11-22")

    assert shown.splitlines()[-1].endswith(" 0 problems")
    assert status == 0


def test_a_command_whose_package_is_missing_says_what_to_install() -> None:
    """The product runs without the lab: its commands are listed, and say what they need when called."""
    command = cli._load(
        EntryPoint(name="demo", value="no_such_package.commands:demo", group=cli._WithInstalledCommands.plugins)
    )

    with pytest.raises(WatchkeeperError, match="pip install"):
        command.main([], standalone_mode=False)


def test_a_missing_benchmark_is_told(run: Run) -> None:
    """The errors of other rooms are told like ours."""
    status, _, told = run("eval", "retrieval", "--corpus", "no-such", "--queries", "no-such", "--qrels", "no-such")

    assert status == 2
    assert told.startswith("watchkeeper: ")


@pytest.mark.integration
def test_a_whole_life_of_a_database(run: Run, tmp_path: Path) -> None:
    """Migrating makes the default database here; its audit is empty and unbroken; there is nothing to replay."""
    (tmp_path / "watchkeeper.toml").write_text("format = 1\n", encoding="utf-8")

    migrated = run("migrate")
    verified = run("audit", "verify")
    replayed = run("replay", "--all")

    assert [each[0] for each in (migrated, verified, replayed)] == [0, 0, 0]
    assert (tmp_path / "watchkeeper.sqlite").exists()
    assert verified[1].startswith("0 rows, unbroken")
    assert replayed[1].startswith("0 dead letters")


@pytest.mark.integration
def test_an_unmigrated_database_is_told(run: Run, tmp_path: Path) -> None:
    """Asking a database that was never migrated is a mistake of order, and told as one."""
    (tmp_path / "watchkeeper.toml").write_text("format = 1\n", encoding="utf-8")

    for words in (("audit", "verify"), ("replay", "--all")):
        status, _, told = run(*words)
        assert status == 2, words
        assert "watchkeeper migrate" in told


@pytest.mark.integration
def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Port 1 of this machine refuses; the sentence says so and does not repeat the URL."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://bot:hunter2@127.0.0.1:1/watchkeeper")

    status, _, told = run("migrate")

    assert status == 2
    assert told.startswith("watchkeeper: the database of DATABASE_URL cannot be used:")
    assert "hunter2" not in told


WITH_POWERS = """
format = 1

[[datasource]]
name = "metrics"
kind = "prometheus"
url = "http://127.0.0.1:9"

[[cluster]]
name = "main"
url = "https://cluster.example.com"
action_credential = "KUBE_ACTION_TOKEN"

[[command]]
name = "restart-router"
argv = ["/usr/local/bin/restart-router"]
environment = ["ROUTER_TOKEN"]
"""


@pytest.mark.parametrize(("variable", "value"), [("KUBE_ACTION_TOKEN", "t0ken"), ("ROUTER_TOKEN_FILE", "/run/secret")])
def test_doors_that_could_change_production_do_not_open(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """What an action_credential or a command's environment names must be elsewhere; the refusal names it alone."""
    (tmp_path / "watchkeeper.toml").write_text(WITH_POWERS)
    for name in ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "PAGERDUTY_WEBHOOK_SECRETS"):
        monkeypatch.setenv(name, "s3cret-of-the-test")
    monkeypatch.setenv(variable, value)

    status, _, told = run("serve", "--no-work")

    assert status == 2
    assert f"{variable.removesuffix('_FILE')} is set" in told
    assert told.count("is set") == 1
    assert value not in told


def test_each_kind_of_process_needs_its_own_settings(run: Run, tmp_path: Path) -> None:
    """Doors do without PagerDuty's key, workers without the secrets of the doors; both are told at once."""
    (tmp_path / "watchkeeper.toml").write_text(WITH_POWERS)

    doors, worker = run("serve", "--no-work"), run("worker")

    assert (doors[0], worker[0]) == (2, 2)
    assert "PAGERDUTY_WEBHOOK_SECRETS is not set" in doors[2]
    assert "PAGERDUTY_API_KEY" not in doors[2]
    assert "PAGERDUTY_API_KEY is not set" in worker[2]
    assert "PAGERDUTY_WEBHOOK_SECRETS" not in worker[2]


def test_who_was_declared_dead_ends_with_a_status_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor starts it again; it is no mistake of anybody's."""

    def dead() -> None:
        raise DeclaredDeadError("others took over")

    monkeypatch.setattr(cli, "app", dead)

    status, _, told = run("worker")

    assert (status, told) == (75, "watchkeeper: others took over\n")
