"""
Does the text of a step do by hand what its block does? At least: not the same deed on another target.

Compared are kubectl commands with literal names against literal parameters. A placeholder on either side (`NAME`,
`<node>`, `$NS`, `{scope.node}`) says nothing, and so does a command for another deed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runbooks.engine.values import StepTemplate

_COMMAND = re.compile(r"\bkubectl[^`\n|;&]*")
_CONTINUED = re.compile(r"\\\n\s*")
_PLACEHOLDER = re.compile(r"[<>${}*]|\.\.\.|^[A-Z][A-Z0-9_-]*$")
_SHORT = {"-n": "namespace", "--namespace": "namespace", "--replicas": "replicas", "--to-revision": "to_revision"}


@dataclass(frozen=True, kw_only=True)
class _Deed:
    """What an action is called in kubectl, and the parameter that names its target there."""

    words: tuple[str, ...]
    param: str
    kinds: tuple[str, ...] = ()


_DEPLOYMENT = ("deployment", "deployments", "deploy", "deployment.apps")
_DEEDS = {
    "kubernetes.scale": _Deed(words=("scale",), param="deployment", kinds=_DEPLOYMENT),
    "kubernetes.restart": _Deed(words=("rollout", "restart"), param="deployment", kinds=_DEPLOYMENT),
    "kubernetes.rollout_undo": _Deed(words=("rollout", "undo"), param="deployment", kinds=_DEPLOYMENT),
    "kubernetes.cordon": _Deed(words=("cordon",), param="node", kinds=("node",)),
    "kubernetes.uncordon": _Deed(words=("uncordon",), param="node", kinds=("node",)),
    "kubernetes.drain": _Deed(words=("drain",), param="node", kinds=("node",)),
    "kubernetes.delete_pod": _Deed(words=("delete",), param="pod", kinds=("pod", "pods", "po")),
}


def disagreements(step: StepTemplate) -> Iterator[tuple[str, str, str]]:
    """A parameter, what the text says it is, and what the block says, wherever both are literal and differ."""
    deed = _DEEDS.get(step.action)
    if deed is None:
        return
    for command in _COMMAND.findall(_CONTINUED.sub(" ", step.prose)):
        for name, said in _said(command, deed):
            done = step.params.get(name)
            if done is not None and _is_literal(said) and _is_literal(str(done)) and said != str(done):
                yield name, said, str(done)


def _said(command: str, deed: _Deed) -> Iterator[tuple[str, str]]:
    """The parameters that this command names, if it does this deed."""
    try:
        words = shlex.split(command, comments=True)[1:]
    except ValueError:  # an apostrophe in the sentence around it
        words = command.split()[1:]
    plain, options = _sorted(words)
    size = len(deed.words)
    if tuple(plain[:size]) != deed.words:
        return
    if target := _target(plain[size:], deed):
        yield deed.param, target
        yield from options


def _sorted(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The words that are no options, and the options that name a parameter of ours."""
    plain: list[str] = []
    options: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _SHORT:
            options.append((_SHORT[name], value if equals else next(rest, "")))
        elif not word.startswith("-"):
            plain.append(word)
    return plain, options


def _target(plain: Sequence[str], deed: _Deed) -> str:
    if not plain:
        return ""
    kind, slash, name = plain[0].partition("/")
    if slash:
        return name if kind in deed.kinds else ""
    if kind in deed.kinds:
        return plain[1] if len(plain) > 1 else ""
    return kind if deed.param == "node" else ""


def _is_literal(value: str) -> bool:
    return bool(value) and not _PLACEHOLDER.search(value)
