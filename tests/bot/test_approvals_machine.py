"""Approvals in any order of deeds; `make evidence` runs the same with more than 20,000 of them."""

from __future__ import annotations

import pytest

from tests.approvals_machine import play


@pytest.mark.integration  # a real database
def test_nothing_starts_that_was_not_approved_as_it_is() -> None:
    """No unauthorised start, none of another hash, none twice; and plans do start, or this would prove nothing."""
    house = play(examples=10, steps=25, seed=2)

    assert house.fired.total() > 150
    assert house.starts > 0
    assert house.fired["revoked"] > 0
