"""The verifier is total: no header and no body makes it raise, and nothing forged is accepted."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.web.signature import verify_pagerduty, verify_slack

NOW = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
OLD, NEW = b"whsec-old", b"whsec-new"
BODY = b'{"event": {}}'


def pagerduty_value(raw: bytes, secret: bytes) -> str:
    return "v1=" + hmac.new(secret, raw, hashlib.sha256).hexdigest()


def slack_value(raw: bytes, timestamp: str, secret: bytes = NEW) -> str:
    return "v0=" + hmac.new(secret, f"v0:{timestamp}:".encode() + raw, hashlib.sha256).hexdigest()


STAMP = str(int(NOW.timestamp()))


def test_any_signature_under_any_live_secret_is_enough() -> None:
    """While secrets rotate, PagerDuty signs with several and we accept several."""
    both = f"{pagerduty_value(BODY, b'unknown')}, {pagerduty_value(BODY, NEW)}"

    assert verify_pagerduty(BODY, pagerduty_value(BODY, OLD), [OLD, NEW])
    assert verify_pagerduty(BODY, pagerduty_value(BODY, NEW), [OLD, NEW])
    assert verify_pagerduty(BODY, both, [OLD, NEW])
    assert verify_pagerduty(BODY, both.encode(), [NEW])


def test_no_secret_opens_nothing() -> None:
    """A forgotten or empty secret refuses everybody; HMAC with an empty key is something anybody can compute."""
    assert not verify_pagerduty(BODY, pagerduty_value(BODY, b""), [])
    assert not verify_pagerduty(BODY, pagerduty_value(BODY, b""), [b""])
    assert not verify_slack(BODY, STAMP, slack_value(BODY, STAMP, b""), b"", NOW)


def test_a_changed_body_is_refused() -> None:
    """One byte more, or the same JSON serialised again, is another body."""
    assert not verify_pagerduty(BODY + b" ", pagerduty_value(BODY, NEW), [NEW])
    assert not verify_slack(BODY + b" ", STAMP, slack_value(BODY, STAMP), NEW, NOW)


@pytest.mark.parametrize(("age_s", "expected"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_slack_requests_are_fresh_for_five_minutes_both_ways(age_s: int, *, expected: bool) -> None:
    """Older is a replay, younger is a clock that nobody should trust."""
    assert verify_slack(BODY, STAMP, slack_value(BODY, STAMP), NEW, NOW + timedelta(seconds=age_s)) is expected


HOSTILE = [
    None, "", " ", ",", ",,,", "v1", "v1=", "v1=,v1=", "V1=" + "0" * 64, "v1=" + "ä" * 64, "v1=\ud800",
    "v1=\x00", "v0=",
    "v1=" * 5000,
    "v1=" + "0" * 64, "nan", "inf", "-1", "1e9", "0x10", "٣٣٣", "9" * 400,
    "1_000", "+1", " 1 ", "1.0", "²", b"\xff\xfe", b"v1=\xff",
    "v1=" + "0" * 64 + "," * 3000,
]  # fmt: skip


@pytest.mark.parametrize("header", HOSTILE, ids=lambda header: repr(header)[:30])
def test_known_hostile_headers(header: str | bytes | None) -> None:
    """The headers that crash other verifiers are simply false here, in every place."""
    assert not verify_pagerduty(BODY, header, [OLD, NEW])
    assert not verify_slack(BODY, header, slack_value(BODY, STAMP), NEW, NOW)
    assert not verify_slack(BODY, STAMP, header, NEW, NOW)
    assert not verify_slack(BODY, header, header, NEW, NOW)


piece = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["v1=", "v0=", ",", "0" * 64, pagerduty_value(BODY, NEW)[:-1], STAMP, "\ud800", "=", " "]),
)
header = st.one_of(st.none(), st.binary(max_size=90), st.lists(piece, max_size=6).map("".join))


@settings(max_examples=1200, deadline=None)
@given(st.binary(max_size=60), header, header, st.lists(st.binary(max_size=8), max_size=3))
def test_nothing_forged_is_accepted(
    raw: bytes, one: str | bytes | None, two: str | bytes | None, secrets: list[bytes]
) -> None:
    """More than a thousand odd headers, bodies and secrets: always False, never an exception."""
    assert verify_pagerduty(raw, one, secrets) is False
    assert verify_slack(raw, one, two, NEW, NOW) is False


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=40), st.lists(st.text("v1=, x", max_size=9), max_size=5))
def test_what_is_genuine_is_accepted(raw: bytes, secret: bytes, noise: list[str]) -> None:
    """Any body under any secret, with whatever else stands in the list."""
    values = [*noise, pagerduty_value(raw, secret)]

    assert verify_pagerduty(raw, ",".join(values), [b"other", secret])
    assert verify_slack(raw, STAMP, slack_value(raw, STAMP, secret), secret, NOW)
