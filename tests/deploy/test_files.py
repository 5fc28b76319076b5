"""What lies in deploy/ beside the chart, looked at by the tools of each format, and held to the code it speaks of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bot.incidents import WatchkeeperError
from bot.rights import files, manifests
from bot.settings import VARIABLES
from tests.needs import need_program

DEPLOY = Path("deploy")
HERE = Path(sys.executable).parent  # where pip puts the linters
COPIED = ("alembic", "bot", "diagnostics", "lab", "retrieval", "runbooks", "pyproject.toml", "constraints.txt")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", files(), ids=str)
def test_written_files_are_up_to_date(path: Path) -> None:
    """The Roles say what the actions need today: `python -m bot.rights` writes them."""
    assert path.read_text(encoding="utf-8") == files()[path]


def test_an_action_without_rights_is_named() -> None:
    """A Role for something that needs none, or is misspelt, is a mistake that is told."""
    with pytest.raises(WatchkeeperError, match=r"kubernetes\.explode"):
        manifests(["kubernetes.explode"], ["chat"])


def test_the_dockerfile_has_no_findings() -> None:
    """hadolint, with ShellCheck on the commands, is content."""
    found = run(HERE / "hadolint", DEPLOY / "docker/Dockerfile")

    assert found.returncode == 0, found.stdout


def test_the_image_runs_as_nobody_and_for_both_kinds_of_hardware() -> None:
    """A numeric user, so that Kubernetes can see it is not root; CPU and CUDA are build arguments of one file."""
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")

    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "ARG FAISS=cpu" in text
    assert "--build-arg FAISS=gpu" in text


def test_secrets_and_local_state_never_enter_the_image() -> None:
    """The build sees an explicit list, and all that the wheel needs is on it."""
    lines = (DEPLOY / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")

    assert "*" in lines
    for needed in COPIED:
        assert f"!{needed}" in lines


def test_compose_is_sound() -> None:
    """compose-lint finds nothing grave, and only the worker reads the file of credentials that change production."""
    path = DEPLOY / "compose/compose.yaml"
    found = run(HERE / "compose-lint", "check", path)
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]

    assert found.returncode == 0, found.stdout
    assert [name for name, each in services.items() if "actions.env" in each.get("env_file", [])] == ["worker"]
    assert services["web"]["command"] == ["serve", "--no-work"]


def test_compose_names_variables_that_exist() -> None:
    """A misspelt variable would be a setting that silently does nothing."""
    text = "".join(path.read_text(encoding="utf-8") for path in (DEPLOY / "compose").iterdir() if path.is_file())
    ours = set(re.findall(r"^\s*#?\s*([A-Z][A-Z_]+)[=:]", text, re.MULTILINE))
    named_by_config = {"KUBE_ACTION_TOKEN", "LANGFUSE_READ", "LANGFUSE_WRITE"}
    postgres = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}

    assert {name.removesuffix("_FILE") for name in ours - named_by_config - postgres} <= set(VARIABLES)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """systemd-analyze verify, in a root where the program exists."""
    need_program("systemd-analyze", "apt-get install systemd")
    program = tmp_path / "opt/watchkeeper/bin/watchkeeper"
    folder = tmp_path / "etc/systemd/system"
    for each in (program.parent, folder, tmp_path / "etc/watchkeeper"):
        each.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    for unit in UNITS:
        shutil.copy(unit, folder)
    names = [unit.name.replace("@.", "@1.") for unit in UNITS]

    found = run("systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *names)

    assert (found.returncode, found.stderr) == (0, "")
    assert len(names) == 3


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_units_are_hardened(unit: Path) -> None:
    """systemd's own exposure score, 0 (best) to 10, stays at 2 or below."""
    need_program("systemd-analyze", "apt-get install systemd")
    found = run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)

    assert found.returncode == 0, found.stdout[-300:]


def test_the_web_unit_never_reads_the_action_credentials() -> None:
    """They are in a file of their own, which only workers and the all-in-one unit name."""
    readers = [unit.name for unit in UNITS if "actions.env" in unit.read_text(encoding="utf-8")]

    assert readers == ["watchkeeper-worker@.service", "watchkeeper.service"]
