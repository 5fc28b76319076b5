"""The form of front matter and steps as a JSON Schema (draft 2020-12), for editors and for other people's programs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from runbooks.engine.lint import Vocabulary


def schema() -> dict[str, Any]:
    """It accepts and refuses, in form, what `parse` does; `$defs` has `frontMatter` and `step`."""
    text = files("runbooks.engine").joinpath("runbook.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def schema_for(vocabulary: Vocabulary) -> dict[str, Any]:
    """The same, and with the names that exist here, so that an editor completes them and marks all others."""
    narrowed = schema()
    names = {"action": vocabulary.actions, "check": vocabulary.checks, "cause": vocabulary.causes}
    for kind, known in names.items():
        narrowed["$defs"][kind] = {"enum": sorted(known)}
    return narrowed
