"""
The key that no database holds, and what is made from it: the signature of checkpoints, the seal of approvals.

One secret for each deployment, `WATCHKEEPER_SEAL_KEY`; every purpose has a key of its own that is derived from it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bot.config import SEAL_KEY
from bot.incidents import WatchkeeperError

_BYTES = 32


class SealKey:
    """What is derived from the secret. Raises WatchkeeperError for one that is not 32 bytes in URL-safe base64."""

    def __init__(self, secret: str) -> None:
        try:
            raw = base64.b64decode(secret, altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != _BYTES:
            remedy = "make one with `watchkeeper audit new-key`"
            raise WatchkeeperError(f"{SEAL_KEY} has to be {_BYTES} bytes in URL-safe base64: {remedy}")
        self.for_approvals = _derived(raw, b"watchkeeper: approvals")
        """What approvals are sealed with (HMAC-SHA256)."""
        self._signing = Ed25519PrivateKey.from_private_bytes(_derived(raw, b"watchkeeper: audit checkpoints"))

    @property
    def public(self) -> str:
        """What anybody may know, in hexadecimal: it verifies what `sign` made, and makes nothing."""
        return self._signing.public_key().public_bytes_raw().hex()

    def sign(self, text: str) -> str:
        """An Ed25519 signature (RFC 8032) in hexadecimal."""
        return self._signing.sign(text.encode()).hex()


def new_secret() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(_BYTES)).decode()


def is_signed(text: str, signature: str, public: str) -> bool:
    """Did who has the key that belongs to `public` sign exactly this? Raises WatchkeeperError for no public key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError as error:
        raise WatchkeeperError(
            "this is no public key: it has 64 hexadecimal digits, and `watchkeeper audit public-key` prints it"
        ) from error
    try:
        key.verify(bytes.fromhex(signature), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _derived(raw: bytes, purpose: bytes) -> bytes:
    return hmac.digest(raw, purpose, "sha256")
