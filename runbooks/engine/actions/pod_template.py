"""Pod templates as values: what belongs to the deployment, whether two are the same, and what differs in words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runbooks.engine.values import JsonObject, canonical

POD_TEMPLATE_HASH = "pod-template-hash"
_MOST_DIFFERENCES = 6
_MOST_CHARS = 60
_MOST_READ = 16_000  # characters; a longer argument is a whole file, and hidden unread


def own_template(owner: JsonObject) -> JsonObject:
    """
    The template of a deployment or replica set as the deployment would have it.

    A replica set's carries `pod-template-hash`, which its controller added; both may carry an empty creation time.
    """
    template = dict((owner.get("spec") or {}).get("template") or {})
    metadata = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != POD_TEMPLATE_HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def digest(template: JsonObject) -> str:
    """Equal templates have equal digests (64 bits, in hex)."""
    return hashlib.sha256(canonical(template)).hexdigest()[:16]


def differences(now: JsonObject, then: JsonObject) -> str:
    """
    What changes when `then` replaces `now`: `vllm.args[3] 256 -> 192; ...`, a few of many.

    Values of environment variables are left out, since people put secrets there; so is every argument, header or
    annotation that a name such as `--api-key` makes a secret of: `vllm.args[5] changes (hidden)`.
    """
    present, future = dict(_leaves("", now)), dict(_leaves("", then))
    paths = sorted(present.keys() | future.keys())
    pairs = [(path, present.get(path, _ABSENT), future.get(path, _ABSENT)) for path in paths]
    said = [_said(path, before, after) for path, before, after in pairs if before.value != after.value]
    more = len(said) - _MOST_DIFFERENCES
    return "; ".join(said[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class _Leaf:
    """One value of a template; `is_secret` when it stands behind a telling name, or holds one and its value."""

    value: Any
    is_secret: bool


_ABSENT = _Leaf(value=None, is_secret=False)

# A name is telling by one of its words: `HF_TOKEN`, `--api-key`, `authToken`, `accesskey`.
_TELLING = re.compile(
    r".*passw(?:or)?d.*|.*passphrase.*|.*secret.*|.*credential.*|.*apikey.*|.*auth|authorization|bearer|cookie|dsn|jwt"
    r"|pat|pwd|.*keys?|.*tokens?"
)
# Counts of tokens are no secrets, and what people change most: `--max-num-batched-tokens=8192`.
_COUNTED = re.compile(r"tokens?")
_COUNT = re.compile(r"[0-9]{1,12}|--.*", re.DOTALL)  # the next flag after a flag without a value, too
_WORD = re.compile(r"[A-Za-z]{1,64}")
_NAME_AND_VALUE = re.compile(  # the value may itself be a name before a value, so it is only looked at
    r"([A-Za-z][\w.-]{0,127})[\"']{0,2}(?:\s{0,8}[=:]\s{0,8}|\s{1,8})(?=[\"']{0,2}([^\s\"',;]{0,64}))"
)
_LOGIN_IN_ADDRESS = re.compile(r"://[^\s/@]{1,256}@")


def _leaves(path: str, value: Any, *, is_secret: bool = False) -> Iterator[tuple[str, _Leaf]]:
    """Every value with its path, and whether it must be hidden."""
    if isinstance(value, dict):
        for name, inner in value.items():
            here = f"{path}.{name}" if path else str(name)
            yield from _leaves(here, inner, is_secret=is_secret or _hides(path, str(name), value))
    elif isinstance(value, list):
        are_words = path.endswith((".args", ".command"))  # of the container, a probe or a hook
        for index, inner in enumerate(value):
            hidden = are_words and _is_secret_word(value, index)
            yield from _leaves(_item(path, index, inner), inner, is_secret=is_secret or hidden)
    else:
        yield path, _Leaf(value=value, is_secret=is_secret or bool(_LOGIN_IN_ADDRESS.search(str(value))))


def _hides(path: str, name: str, parent: JsonObject) -> bool:
    """Variables and headers always; annotations by their name and their text."""
    if name == "env":
        return isinstance(parent[name], list)
    if name == "value":
        return "name" in parent
    return path.endswith("metadata.annotations") and (_is_telling(name, "") or _holds_secret(str(parent[name])))


def _is_secret_word(words: list[Any], index: int) -> bool:
    """Does the word hold a secret, or stand behind a flag such as `--api-key`, which takes one or several?"""
    word = str(words[index])
    if _holds_secret(word):
        return True
    flag_at = next((at for at in range(index - 1, -1, -1) if str(words[at]).startswith("-")), None)
    if flag_at is None or "=" in str(words[flag_at]):
        return False
    is_next = flag_at == index - 1
    if not is_next and word.startswith("-"):
        return False
    return _is_telling(str(words[flag_at]), word if is_next else "0")


def _holds_secret(text: str) -> bool:
    """`--api-key=value`, `API_KEY=value vllm serve`, `{"password": "value"}`."""
    return len(text) > _MOST_READ or any(_is_telling(name, value) for name, value in _NAME_AND_VALUE.findall(text))


def _is_telling(name: str, value: str) -> bool:
    """Does this name say that its value is a secret?"""
    words = [word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name))]
    telling = [word for word in words if _TELLING.fullmatch(word)]
    counts = all(_COUNTED.fullmatch(word) for word in telling) and words[-1:] != ["token"]
    return bool(telling) and not (counts and _COUNT.fullmatch(value))


def _said(path: str, present: _Leaf, future: _Leaf) -> str:
    if present.is_secret or future.is_secret:
        return f"{path} changes (hidden)"
    return f"{path} {_short(present.value)} -> {_short(future.value)}"


def _item(path: str, index: int, item: Any) -> str:
    """Containers and variables go by their names, so that one more in front does not change them all."""
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str):
        return f"{path}[{index}]"
    return name if path == "spec.containers" else f"{path}.{name}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."
