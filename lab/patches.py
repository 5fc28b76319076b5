"""The three kinds of patch that the Kubernetes API takes: JSON patch, JSON merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
}
"""The lists of a pod template that a strategic merge patch merges by key; every other list is replaced whole."""


class PatchError(Exception):
    """The patch does not fit the object: a path that is not there, a failed test, or an operation that is none."""


def apply(content_type: str, target: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The object after the patch; the given one stays as it is. Raises PatchError, and KeyError for another type."""
    result = _APPLY[content_type](copy.deepcopy(target), copy.deepcopy(patch))
    if not isinstance(result, dict):
        raise PatchError("the patch leaves no object")
    return result


def _json_patch(target: Any, operations: Any) -> Any:
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    for operation in operations:
        if not isinstance(operation, Mapping) or not isinstance(operation.get("path"), str):
            raise PatchError(f"{operation!r} is not an operation with a path")
        target = _operate(target, operation)
    return target


def _operate(target: Any, operation: Mapping[str, Any]) -> Any:
    op, path = operation.get("op"), _steps(operation["path"])
    if op in {"add", "replace", "test"} and "value" not in operation:
        raise PatchError(f"operation {op} {operation['path']} lacks a value")
    if op in {"move", "copy"}:
        source = _steps(str(operation.get("from", "")))
        value = copy.deepcopy(_read(target, source))
        if op == "move":
            _write(target, source, remove=True)
        _write(target, path, value=value)
    elif op == "test":
        if _read(target, path) != operation["value"]:
            raise PatchError(f"testing value {operation['path']} failed")
    elif op == "remove":
        _write(target, path, remove=True)
    elif op in {"add", "replace"}:
        if not path:
            return operation["value"]
        if op == "replace":
            _read(target, path)
        _write(target, path, value=operation["value"], replace=op == "replace")
    else:
        raise PatchError(f"{op!r} is not a JSON patch operation")
    return target


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f"{path!r} is not a JSON pointer")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _place(parent: Any, step: str) -> Any:
    """The index or key under which a step of a JSON pointer finds something in its parent."""
    if isinstance(parent, list):
        if step == "-":
            return len(parent)
        if not step.isdigit():
            raise PatchError(f"{step!r} is not a place in a list")
        return int(step)
    return step


def _read(target: Any, steps: list[str]) -> Any:
    for step in steps:
        try:
            target = target[_place(target, step)]
        except (KeyError, IndexError, TypeError):
            raise PatchError(f"nothing at /{'/'.join(steps)}") from None
    return target


def _write(target: Any, steps: list[str], *, value: Any = None, remove: bool = False, replace: bool = False) -> None:
    parent = _read(target, steps[:-1])
    place: Any = _place(parent, steps[-1]) if steps else ""
    try:
        if remove:
            del parent[place]
        elif isinstance(parent, list) and not replace:
            parent.insert(place, value)
        else:
            parent[place] = value
    except (KeyError, IndexError, TypeError):
        raise PatchError(f"nothing at /{'/'.join(steps)}") from None


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _strategic(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    directive = patch.pop("$patch", None)
    if directive == "replace":
        return patch
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list) and key in _MERGE_KEYS:
            merged[key] = _merge_list(merged.get(key) or [], value, _MERGE_KEYS[key])
        else:
            merged[key] = _strategic(merged.get(key), value)
    return merged


def _merge_list(existing: list[Any], patch: list[Any], by: str) -> list[Any]:
    merged = list(existing)
    for item in patch:
        if not isinstance(item, dict) or by not in item:
            raise PatchError(f"an entry of a list that merges by {by!r} lacks it")
        place = next((n for n, old in enumerate(merged) if isinstance(old, dict) and old.get(by) == item[by]), None)
        if item.get("$patch") == "delete":
            merged = [old for n, old in enumerate(merged) if n != place]
        elif place is None:
            merged.append(item)
        else:
            merged[place] = _strategic(merged[place], item)
    return merged


_APPLY: Mapping[str, Callable[[Any, Any], Any]] = {
    JSON_PATCH: _json_patch,
    MERGE_PATCH: _merge,
    STRATEGIC_PATCH: _strategic,
}
