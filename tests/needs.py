"""Tests that need a real component say so here: skipped on a desk without it, failed where CI promises it."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def need_program(name: str, install: str) -> str:
    """
    The full path of a program that a test runs.

    Without it the test skips, naming the command that installs it; with CI=true it fails, since there a skip would
    look like a pass.
    """
    found = shutil.which(name)
    if found is None:
        lack(f"{name} is not installed: {install}")
    return found


def lack(reason: str) -> NoReturn:
    """Skip the running test for `reason`, or fail it where CI=true."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI has to have everything that tests need, but {reason}", pytrace=False)
    pytest.skip(reason)
