"""What is shipped: a wheel that has everything it needs to run elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("bot", "diagnostics", "retrieval", "runbooks", "lab", "alembic")
FILES = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy (building leaves files beside the sources) without asking any package index."""
    copy, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in SHIPPED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        str(built),
    ]
    subprocess.run([*command, str(copy)], check=True, capture_output=True, text=True)
    [found] = built.glob("*.whl")
    return zipfile.ZipFile(found)


@pytest.mark.integration
def test_everything_that_runs_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """Modules, migrations under their own name, runbooks, causes and the page: all that is here is there."""
    here = {
        file.relative_to(ROOT).as_posix()
        for folder in SHIPPED
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    expected = {
        f"bot/migrations/{name.removeprefix('alembic/')}" if name.startswith("alembic/") else name for name in here
    }

    assert expected - set(wheel.namelist()) == set()


@pytest.mark.integration
def test_nothing_else_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """No tests, and no package named `alembic` that would hide the library."""
    roots = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}

    assert roots == {"bot", "diagnostics", "retrieval", "runbooks", "lab"}


@pytest.mark.integration
def test_the_licence_travels_along(wheel: zipfile.ZipFile) -> None:
    """LICENSE and the notices are in the wheel's metadata, as its licence asks."""
    shipped = {name.rpartition("/")[2] for name in wheel.namelist() if ".dist-info/licenses/" in name}

    assert shipped == {"LICENSE", "THIRD_PARTY.md"}
