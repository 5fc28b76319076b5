"""The runbooks of an installation: what the linter complains about is read, and never run."""

from __future__ import annotations

from pathlib import Path

from bot.config import RunbookFolder
from bot.library import open_shelf

GOOD = """---
format: 1
title: A deployment needs another replica
alerts: [LLMQueueBacklog]
owner: the team
---
## Fix
Add one.

### Add a replica
By hand: `kubectl scale`.

```yaml step
action: kubernetes.scale
with: {deployment: "{deployment}", replicas: "{replicas_now + 1}"}
verify: [queue]
undo: previous
```
"""


def test_a_runbook_that_the_linter_complains_about_offers_no_step(tmp_path: Path) -> None:
    """A misspelt check would otherwise be missed when the change is made already, and no check would prove nothing."""
    (tmp_path / "good.md").write_text(GOOD, encoding="utf-8")
    (tmp_path / "misspelt.md").write_text(GOOD.replace("[queue]", "[quue]"), encoding="utf-8")
    (tmp_path / "unproven.md").write_text(GOOD.replace("verify: [queue]\n", ""), encoding="utf-8")

    shelf = open_shelf([RunbookFolder(path=tmp_path)])

    assert len(shelf.runbooks["good"].steps) == 1
    assert shelf.runbooks["misspelt"].steps == shelf.runbooks["unproven"].steps == ()
    assert {problem.path for problem in shelf.problems} == {"misspelt.md", "unproven.md"}
    assert {"good", "misspelt", "unproven"} <= {each.doc_id for each in shelf.documents()}
