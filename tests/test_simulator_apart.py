"""The simulator and the knowledge of causes know nothing of each other, so that a score means something."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KNOWLEDGE = ("diagnostics.causes", "diagnostics.checks")
EVALUATIONS = (ROOT / "lab" / "evaluation", ROOT / "lab" / "alert_texts")
"""They simulate nothing: what they read of the knowledge they score."""

SIMULATOR = sorted(path for path in (ROOT / "lab").rglob("*.py") if not set(EVALUATIONS) & set(path.parents))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", SIMULATOR, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_part_of_the_simulator_reads_the_knowledge(path: Path) -> None:
    """Neither a module of causes or checks nor one of their files; only the evaluations may."""
    assert not [name for name in imported(path) if name.startswith(KNOWLEDGE)]
    assert ".toml" not in path.read_text(encoding="utf-8") or path.name in {"configuration.py", "files.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "diagnostics").rglob("*.py")), ids=lambda path: path.stem)
def test_no_part_of_the_diagnosis_reads_the_simulator_or_the_truth(path: Path) -> None:
    """A case's truth is for whoever scores; a scenario's name is nothing that a check could ask for."""
    assert not [name for name in imported(path) if name == "lab" or name.startswith("lab.")]
    text = path.read_text(encoding="utf-8")
    opened = [line for line in text.splitlines() if "truth.json" in line and "never" not in line]
    assert not opened
