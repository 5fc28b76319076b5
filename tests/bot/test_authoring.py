"""`watchkeeper runbook new | import | schema`: what is written, what is told, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bot.test_cli import Run, run

__all__ = ["run"]


def test_a_new_runbook_says_what_is_left_to_do(run: Run, tmp_path: Path) -> None:
    """The file is there and reads well; nothing is overwritten, not even by the same command."""
    status, shown, _ = run("runbook", "new", "slow-answers", "--out", str(tmp_path), "--owner", "chat")
    text = (tmp_path / "slow-answers.md").read_text(encoding="utf-8")
    again, _, told = run("runbook", "new", "slow-answers", "--out", str(tmp_path))

    assert status == 0
    assert "neither an alert nor a cause" in shown
    assert "## Remediation" in text
    assert (again, "is there already" in told) == (2, True)
    assert (tmp_path / "slow-answers.md").read_text(encoding="utf-8") == text


def test_with_its_facts_a_new_runbook_passes_lint(run: Run, tmp_path: Path) -> None:
    """So that a pipeline takes it from the start."""
    facts = ("--owner", "chat", "--alert", "LLMSlow", "--cause", "S04", "--title", "Answers are slow")
    _, shown, _ = run("runbook", "new", "slow-answers", "--out", str(tmp_path), *facts)

    assert "to do" not in shown
    assert run("runbook", "lint", str(tmp_path))[0] == 0


def test_a_name_is_no_path(run: Run, tmp_path: Path) -> None:
    """Nothing is written outside the folder."""
    status, _, told = run("runbook", "new", "../elsewhere", "--out", str(tmp_path))

    assert (status, "cannot be a runbook's name" in told) == (2, True)


def test_an_import_tells_line_by_line_what_is_lost(run: Run, tmp_path: Path) -> None:
    """A skill is named for its folder; the second time its runbook is there already."""
    skill = tmp_path / "restart-api" / "SKILL.md"
    skill.parent.mkdir()
    skill.write_text(
        "---\ndescription: Restarts it.\nlicense: MIT\n---\n\n```sh\nmake restart\n```\n", encoding="utf-8"
    )

    status, shown, _ = run("runbook", "import", str(skill), "--out", str(tmp_path))

    assert status == 0
    assert f"{skill}:3: `license` of the front matter has no place here" in shown
    assert "1 steps for people, 2 losses" in shown
    assert (tmp_path / "restart-api.md").is_file()
    assert run("runbook", "import", str(skill), "--out", str(tmp_path))[0] == 2
    assert run("runbook", "import", str(tmp_path / "gone.md"))[0] == 2


def test_the_schema_knows_our_names(run: Run) -> None:
    """Whoever has it in the editor is offered the actions, checks and causes that exist."""
    known = json.loads(run("runbook", "schema")[1])["$defs"]

    assert "kubernetes.scale" in known["action"]["enum"]
    assert "queue" in known["check"]["enum"]
    assert "S04" in known["cause"]["enum"]


def test_a_day_for_lint_must_be_one(run: Run) -> None:
    """A mistyped day must not pass as today."""
    assert run("runbook", "lint", "--today", "tomorrow")[0] == 2
