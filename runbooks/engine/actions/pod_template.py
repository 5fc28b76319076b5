"""Pod templates as values: what belongs to the deployment, whether two are the same, and what differs in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from runbooks.engine.values import JsonObject, canonical

POD_TEMPLATE_HASH = "pod-template-hash"
_MOST_DIFFERENCES = 6
_MOST_CHARS = 60


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

    Values of environment variables are left out, since people put secrets there.
    """
    present, future = dict(_leaves("", now)), dict(_leaves("", then))
    changed = [path for path in sorted(present.keys() | future.keys()) if present.get(path) != future.get(path)]
    said = [
        f"{path} changes" if ".env" in path else f"{path} {_short(present.get(path))} -> {_short(future.get(path))}"
        for path in changed[:_MOST_DIFFERENCES]
    ]
    more = len(changed) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(_item(path, index, inner), inner)
    else:
        yield path, value


def _item(path: str, index: int, item: Any) -> str:
    """Containers and variables go by their names, so that one more in front does not change them all."""
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str):
        return f"{path}[{index}]"
    return name if path == "spec.containers" else f"{path}.{name}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."
