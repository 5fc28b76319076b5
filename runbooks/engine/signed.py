"""
Which files of a folder were reviewed where there is no Git to ask: those of a list that a key has signed.

The list is `SHA256SUMS`, as `sha256sum` writes it (`HEX  NAME` on each line), beside it `SHA256SUMS.sig`, its Ed25519
signature (64 bytes). OpenSSL writes and checks the same: `openssl pkeyutl -sign -rawin -inkey KEY -in SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

LIST = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
_MOST_BYTES = 4 * 1024 * 1024  # some forty thousand files
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S(?:.*\S)?)")


class UnsignedError(Exception):
    """The list or the key cannot be used; the message says why. Nothing of the folder counts then."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """The SHA-256 (hex) that the signed list gives each file, by name."""

    hashes: dict[str, str]

    def objection(self, name: str, content: bytes) -> str | None:
        """Why this file of this content does not count; None when the list holds it."""
        if name not in self.hashes:
            return f"not in the signed {LIST}: it was not reviewed, and is left out"
        if self.hashes[name] != hashlib.sha256(content).hexdigest():
            return f"not what the signed {LIST} holds: not reviewed like this, and is left out"
        return None


def signed(folder: Path, public_key: Path) -> Signed:
    """
    What the list of this folder holds, once its signature has proved to be of this key (PEM).

    A key inside the folder would be written by whoever writes the list, and is refused. Blocks. Raises UnsignedError.
    """
    if public_key.resolve().is_relative_to(folder.resolve()):
        raise UnsignedError(f"the key {public_key} lies in the folder that it is to vouch for")
    key = _public(public_key)
    said = _read(folder / LIST)
    try:
        key.verify(_read(folder / SIGNATURE), said)
    except InvalidSignature:
        raise UnsignedError(f"{SIGNATURE} is not the signature of {LIST} by the key {public_key}") from None
    return Signed(hashes=_hashes(said))


def sign(folder: Path, names: Sequence[str], private_key: Path) -> list[str]:
    """
    Write the list of these files and its signature by this key (PEM, without a passphrase); what changed in it, as
    lines for who signs. Blocks.

    Raises UnsignedError.
    """
    key = _private(private_key)
    before = _hashes(_read(folder / LIST)) if (folder / LIST).exists() else {}
    lines = [f"{hashlib.sha256(_read(folder / name)).hexdigest()}  {name}\n" for name in sorted(names)]
    said = "".join(lines).encode("utf-8", "surrogateescape")
    now = _hashes(said)
    if set(now) != set(names):
        raise UnsignedError("a file's name has a line break or ends in a space: rename it")
    try:
        (folder / LIST).write_bytes(said)
        (folder / SIGNATURE).write_bytes(key.sign(said))
    except OSError as error:
        raise UnsignedError(f"{error.filename} cannot be written: {error.strerror}") from error
    changed = {name: "changed" if name in before else "new" for name in now if now[name] != before.get(name)}
    return [
        f"{what}: {name}" for name, what in sorted({**dict.fromkeys(before.keys() - now, "gone"), **changed}.items())
    ]


def _hashes(said: bytes) -> dict[str, str]:
    """Of two lines for one name neither counts; a line that is none of ours says nothing."""
    found: dict[str, str] = {}
    for line in said.decode("utf-8", "surrogateescape").split("\n"):
        if match := _LINE.fullmatch(line):
            found[match[2]] = match[1] if found.get(match[2], match[1]) == match[1] else ""
    return found


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnsignedError(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UnsignedError(f"{file} has more than {_MOST_BYTES} bytes")
    return content


def _public(file: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsignedError(f"{file} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UnsignedError(f"{file} is no Ed25519 key; write one with `openssl genpkey -algorithm ed25519`")
    return key


def _private(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnsignedError(f"{file} is no private key in PEM without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnsignedError(f"{file} is no Ed25519 key; write one with `openssl genpkey -algorithm ed25519`")
    return key
