"""
Did PagerDuty, or Slack, really send these bytes? Total functions: any header gives True or False, never an exception.

The usual verifiers are not total: slack_sdk 3.47 raises ValueError on the timestamp "abc" and TypeError on a non-ASCII
signature, which is a 500 for anybody who can reach the port. Ours work on bytes from end to end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime

SLACK_TOLERANCE_S = 300
_LONGEST_HEADER = 4096  # PagerDuty sends 67 bytes for each live secret
_UNIX_TIME = re.compile(rb"[0-9]{1,12}")


def verify_pagerduty(raw: bytes, header: str | bytes | None, secrets: Sequence[bytes]) -> bool:
    """
    True if any `v1=` value of `X-PagerDuty-Signature` is the HMAC-SHA256 (hex) of the raw body under any live secret.

    The header lists one value for each secret of the subscription; we may hold several secrets while they rotate. The
    signature covers the body alone, no time and no id: replays verify, and only `event.id` can tell.
    """
    candidates = [
        value.strip().removeprefix(b"v1=")
        for value in _header_bytes(header).split(b",")
        if value.strip().startswith(b"v1=")
    ]
    expected = [hmac.new(secret, raw, hashlib.sha256).hexdigest().encode() for secret in secrets if secret]
    # No early end: the time must not tell which secret or which value came close.
    matches = [hmac.compare_digest(candidate, digest) for candidate in candidates for digest in expected]
    return any(matches)


def verify_slack(
    raw: bytes,
    timestamp_header: str | bytes | None,
    signature_header: str | bytes | None,
    secret: bytes,
    now: datetime,
) -> bool:
    """True if `v0=` + HMAC-SHA256("v0:<timestamp>:<raw body>") matches and the time is within five minutes of now."""
    timestamp = _header_bytes(timestamp_header).strip()
    if not secret or not _UNIX_TIME.fullmatch(timestamp):
        return False
    is_same = hmac.compare_digest(_header_bytes(signature_header).strip(), sign_slack(raw, timestamp, secret))
    is_fresh = abs(now.timestamp() - int(timestamp)) <= SLACK_TOLERANCE_S
    return is_same and is_fresh


def sign_slack(raw: bytes, timestamp: bytes, secret: bytes) -> bytes:
    """The value of `X-Slack-Signature` for this body at this time."""
    return b"v0=" + hmac.new(secret, b"v0:" + timestamp + b":" + raw, hashlib.sha256).hexdigest().encode()


def _header_bytes(header: str | bytes | None) -> bytes:
    """The header as bytes; one that is absent or absurdly long is empty."""
    if header is None or len(header) > _LONGEST_HEADER:
        return b""
    return header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
