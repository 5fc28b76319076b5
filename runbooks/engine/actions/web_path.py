"""Paths that may be called at an address, and network addresses that may not."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import unquote

MOST_CHARACTERS = 1000

_ALLOWED = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*", re.ASCII)
_EXPLICIT_QUERY = re.compile(r"\\\?|\[[^\]]*\?[^\]]*\]")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds keep their metadata besides the link-local ranges: AWS and Oracle, Alibaba, Azure's wire server.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")


def unfit_path(path: str, patterns: Sequence[str]) -> str:
    """
    Why this path may not be called, "" when it may.

    It must match one pattern from end to end, and mean to every server what it says: no second slash, no dots that
    climb, nothing escaped that servers decode to a separator. A query has to stand in the pattern (`\\?`); `.*` lets
    none in.
    """
    if len(path) > MOST_CHARACTERS:
        return f"has more than {MOST_CHARACTERS} characters"
    if not _ALLOWED.fullmatch(path):
        return "is not a plain path: it starts with / and holds letters, digits and escapes such as %20"
    if any(_is_separator(unquote(escape)) for escape in re.findall("%[0-9A-F]{2}", path)) or not _is_text(path):
        return "escapes a character that must not be escaped"
    way = path.partition("?")[0]
    if "//" in way or any(part.partition(";")[0] in {".", ".."} for part in way.split("/")):
        return "has an empty part, `.` or `..`"
    if not any(_matches(path, pattern) for pattern in patterns):
        return f"matches none of {', '.join(patterns)}"
    return ""


def _is_separator(char: str) -> bool:
    return char in "/\\.%?#;&=" or not char.isprintable()


def _is_text(path: str) -> bool:
    try:
        return unquote(path, errors="strict").isprintable()
    except UnicodeDecodeError:
        return False


def _matches(path: str, pattern: str) -> bool:
    if "?" in path and not _EXPLICIT_QUERY.search(pattern):
        return False
    return re.fullmatch(pattern, path) is not None


def unfit_address(address: Address, configured: str) -> str:
    """
    Why a connection to this address is refused, "" when it may be made; `configured` is the host in the configuration.

    A name may lead to a private address, as names inside a network do, but not to this machine, not to a cloud's
    metadata, and to nothing that is no single host: for those the configuration has to hold the address itself.
    """
    inner = _unwrapped(address)
    if _is_literally(configured, address):
        return ""
    if inner.is_loopback or inner.is_unspecified:
        return f"{address} is this machine, and the configuration does not say so"
    if inner.is_link_local or inner in _METADATA or inner in _SITE_LOCAL:
        return f"{address} is a link-local or metadata address"
    if inner.is_multicast or inner.is_reserved:
        return f"{address} is no address of a single host"
    return ""


def _is_literally(configured: str, address: Address) -> bool:
    if configured == "localhost":
        return address.is_loopback
    try:
        return ipaddress.ip_address(configured) == address
    except ValueError:  # a name
        return False


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside: v4-mapped, NAT64, 6to4, Teredo; Python's own properties look at the outside."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or address in _LOCAL_NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return address
