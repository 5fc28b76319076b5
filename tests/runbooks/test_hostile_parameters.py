"""Two thousand hostile texts through every parameter of the actions on prompts, flags, commits and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import build_actions
from tests.runbooks.test_command import hostile

ACTIONS = build_actions()
FINE: Mapping[str, Mapping[str, Any]] = {
    "mlflow.set_alias": {"prompt": "chat-system", "alias": "production", "version": 7, "source": "prompts"},
    "flag.set": {"flag": "chat-new-prompt", "on": False, "source": "flags"},
    "git.revert": {"commit": "0123456789", "again": False, "source": "folder"},
    "kubernetes.patch": {
        "cluster": "lab",
        "namespace": "chat",
        "deployment": "chat-vllm",
        "container": "vllm",
        "field": "env.TOP_K",
        "value": "5",
    },
}
PARAMETERS = [(action, parameter) for action, fine in FINE.items() for parameter in fine]


@pytest.mark.parametrize(("action", "parameter"), PARAMETERS)
def test_a_hostile_text_is_literal_or_refused(action: str, parameter: str) -> None:
    """What is taken is the same text, on one line, and a name stays in its place in a path; the rest is refused."""
    model = ACTIONS[action].params
    for text in hostile(2000):
        try:
            taken = getattr(model.model_validate({**FINE[action], parameter: text}), parameter)
        except ValidationError:
            continue
        if not isinstance(taken, str):  # `on` and `7` are words for a truth and a number
            assert text in {"on", "off", "7", str(taken)}
            continue
        assert taken == text
        assert text.isprintable()
        assert text.isascii()
        if (action, parameter) == ("kubernetes.patch", "value"):
            assert "$(" not in text
        else:
            assert quote(text, safe="") == text
            assert not text.startswith(("-", "."))


def test_every_parameter_is_tried() -> None:
    """A parameter that somebody adds is tried, too."""
    assert all(set(fine) == set(ACTIONS[action].params.model_fields) for action, fine in FINE.items())
