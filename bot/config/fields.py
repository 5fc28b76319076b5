"""What single values of watchkeeper.toml must look like: names, addresses, credentials' names, matchers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SLACK_ID = re.compile(r"[TE][A-Z0-9]+/[UW][A-Z0-9]+")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name; use letters, digits, dots, dashes and underscores")
    return value


def _web_address(value: str) -> str:
    if "@" in re.split(r"[/?#]", value.partition("://")[2], maxsplit=1)[0]:  # first, since the value is not repeated
        raise ValueError("the address holds a password; put it in a variable and name that in `credential`")
    try:
        url = urlsplit(value)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # a bracket that does not close, a port that is none
        usable = False
    if not usable:
        raise ValueError(f"{value!r} is not a web address; write http://HOST or https://HOST")
    return value.rstrip("/")


def _private_address(value: str) -> str:
    """For addresses that a credential is sent to."""
    value = _web_address(value)
    refuse_plain(value)
    return value


def refuse_plain(value: str) -> None:
    """Raises ValueError for an address that would carry a credential unencrypted to another machine."""
    url = urlsplit(value)
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise ValueError("would send the credential unencrypted; use https:// (http:// only for this machine)")


def _variable(value: str) -> str:
    """The value is not repeated: somebody may have written the secret itself here."""
    if not _VARIABLE.fullmatch(value):
        raise ValueError("this must be the NAME of an environment variable; write no secret here, set it there")
    return value


def _slack_id(value: str) -> str:
    if not _SLACK_ID.fullmatch(value):
        raise ValueError(f"{value!r} is not TEAM/USER; write both ids, such as T01234567/U01234567")
    return value


def _matchers(value: Mapping[str, str]) -> Mapping[str, str]:
    for label, matcher in value.items():
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is not a label name; use letters, digits and underscores")
        pattern = matcher.removeprefix("!")
        if pattern.startswith("~"):
            try:
                re.compile(pattern[1:])
            except re.error as error:
                raise ValueError(f"{matcher!r} is not a regular expression: {error}; correct it") from None
    return value


def _git_branch(value: str) -> str:
    if not _BRANCH.fullmatch(value) or ".." in value or "//" in value or value.endswith(("/", ".", ".lock")):
        raise ValueError(f"{value!r} is not the name of a branch; use letters, digits, `/`, `.`, `_` and `-`")
    return value


def _git_remote(value: str) -> str:
    """A web address, or a path on this machine. SSH is left out: its keys and known hosts are somebody's own files."""
    return value if value.startswith("/") else _private_address(value)


def _kill_switches(value: Mapping[str, str]) -> Mapping[str, str]:
    for dimension, flag in value.items():
        if flag.count(f"{{{dimension}}}") != 1 or "{" in flag.replace(f"{{{dimension}}}", ""):
            raise ValueError(f'the flag of one {dimension} has to be named by it; write "{dimension}-{{{dimension}}}"')
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}; correct it") from None
    return value


Name = Annotated[str, AfterValidator(_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
GitBranch = Annotated[str, AfterValidator(_git_branch)]
GitRemote = Annotated[str, AfterValidator(_git_remote)]
PrivateAddress = Annotated[str, AfterValidator(_private_address)]
CredentialName = Annotated[str, AfterValidator(_variable)]
SlackId = Annotated[str, AfterValidator(_slack_id)]
KillSwitches = Annotated[Mapping[Literal["agent", "tool"], str], AfterValidator(_kill_switches)]
Matchers = Annotated[Mapping[str, str], AfterValidator(_matchers)]


class Entry(BaseModel):
    """Frozen, and strict about its keys: a misspelt key would otherwise be a setting that silently does nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
