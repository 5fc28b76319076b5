"""
The fields of a deployment that `kubernetes.patch` may set, each with the shape of its values; nothing else is a field.

`resources.limits.memory`, `args.--max-num-seqs`, `env.OMP_NUM_THREADS`, `strategy.maxSurge`. A value is a text; None
is a field that is not there. What can be set can be put back exactly: values keep their place and their form, what is
added goes to the end of its list, and only the end of a list is removed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runbooks.engine.actions.kubernetes_objects import at, items_at
from runbooks.engine.values import ActionError, JsonObject

CONTAINERS = ("spec", "template", "spec", "containers")
STRATEGY = ("spec", "strategy")

_WHOLE = r"[1-9][0-9]{0,6}"
_FRACTION = r"0\.[0-9]{1,4}"
_SWITCH = r"[01]"
_TEXT = r"(?:(?!\$\()[ -~]){0,200}"  # Kubernetes would put another variable's value, a secret's too, for `$(NAME)`

_AMOUNTS = {"memory": r"[1-9][0-9]{0,8}(?:k|M|G|T|Ki|Mi|Gi|Ti)", "cpu": r"[1-9][0-9]{0,8}m?"}
_KINDS = ("limits", "requests")
_STRATEGY = ("maxSurge", "maxUnavailable")
# Sizes and shares of vLLM, SGLang and TGI. None of them names a file, a host, a model or a credential.
_FLAGS = {
    "--max-num-seqs": _WHOLE,
    "--max-num-batched-tokens": _WHOLE,
    "--max-model-len": _WHOLE,
    "--gpu-memory-utilization": _FRACTION,
    "--api-server-count": _WHOLE,
    "--max-running-requests": _WHOLE,
    "--max-total-tokens": _WHOLE,
    "--chunked-prefill-size": _WHOLE,
    "--mem-fraction-static": _FRACTION,
    "--max-concurrent-requests": _WHOLE,
    "--max-batch-prefill-tokens": _WHOLE,
}
_VARIABLES = {
    "OMP_NUM_THREADS": _WHOLE,
    "RAYON_NUM_THREADS": _WHOLE,
    "TOKENIZERS_PARALLELISM": "true|false",
    "VLLM_LOGGING_LEVEL": "DEBUG|INFO|WARNING|ERROR",
    "NCCL_DEBUG": "VERSION|WARN|INFO",
    "NCCL_P2P_DISABLE": _SWITCH,
    "NCCL_IB_DISABLE": _SWITCH,
}
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_DECIMAL = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "m": -3}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A field's values match `pattern` whole. An `own` variable is allowed only where the configuration names it."""

    group: str  # resources, args, env or strategy
    key: str
    pattern: str
    own: bool = False

    def fits(self, value: str | None) -> bool:
        if value is None:
            return self.group != "strategy"  # Kubernetes would put its default there
        return re.fullmatch(self.pattern, value, re.ASCII) is not None

    def same(self, one: str | None, other: str | None) -> bool:
        """Are they the same value? Kubernetes writes 1024Mi as 1Gi."""
        if self.group != "resources" or one is None or other is None:
            return one == other
        return _amount(one) == _amount(other)

    @property
    def replaces_pods(self) -> bool:
        return self.group != "strategy"


def shape_of(field: str) -> Shape:
    """Raises ValueError for whatever is not listed here."""
    group, _, key = field.partition(".")
    kind, _, resource = key.partition(".")
    if group == "resources" and kind in _KINDS and resource in _AMOUNTS:
        return Shape(group=group, key=key, pattern=_AMOUNTS[resource])
    if group == "args" and key in _FLAGS:
        return Shape(group=group, key=key, pattern=_FLAGS[key])
    if group == "strategy" and key in _STRATEGY:
        return Shape(group=group, key=key, pattern="(?:0|[1-9][0-9]{0,2})%?")
    if group == "env" and _NAME.fullmatch(key):
        return Shape(group=group, key=key, pattern=_VARIABLES.get(key, _TEXT), own=key not in _VARIABLES)
    raise ValueError("not a field that may be set; runbooks/README.md lists them")


def container_of(deployment: JsonObject, name: str | None) -> str:
    """The container of this name, or the only one. Raises ActionError."""
    names = [str(one.get("name")) for one in items_at(deployment, *CONTAINERS)]
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ActionError(f"it has {len(names)} containers ({', '.join(names)}): say which in `container`")
    if names.count(name) != 1:
        raise ActionError(f"it has no container {name} (it has: {', '.join(names)})")
    return name


def value_at(deployment: JsonObject, shape: Shape, container: str) -> str | None:
    """The field's value. Raises ActionError where it could not be put back as it is."""
    if shape.group == "strategy":
        value = at(deployment, *STRATEGY, "rollingUpdate", shape.key)
    else:
        value = _READ[shape.group](_container(deployment, container), shape)
    text = None if value is None else str(value)
    if not shape.fits(text):
        raise ActionError(f"its {shape.group} {shape.key} has a value that could not be put back: change it by hand")
    return text


def with_value(deployment: JsonObject, shape: Shape, container: str, value: str | None) -> JsonObject:
    """A copy of the deployment with the field set. Raises ActionError."""
    changed: dict[str, Any] = copy.deepcopy(dict(deployment))
    if shape.group == "strategy":
        strategy = changed["spec"].setdefault("strategy", {})
        strategy.setdefault("rollingUpdate", {})[shape.key] = int(value) if value and value.isdigit() else value
    else:
        _WRITE[shape.group](_container(changed, container), shape, value)
    return changed


def _container(deployment: JsonObject, name: str) -> Any:
    return next(one for one in items_at(deployment, *CONTAINERS) if one.get("name") == name)


def _read_resource(container: Any, shape: Shape) -> Any:
    return at(container, "resources", *shape.key.split("."))


def _write_resource(container: Any, shape: Shape, value: str | None) -> None:
    kind, _, name = shape.key.partition(".")
    amounts = container.setdefault("resources", {}).setdefault(kind, {})
    if value is None:
        amounts.pop(name, None)
        if not amounts:
            del container["resources"][kind]
    else:
        amounts[name] = value


def _read_argument(container: Any, shape: Shape) -> str | None:
    found = _argument(container, shape.key)
    return None if found is None else _words(container, "args")[found[0]][found[1] :]


def _write_argument(container: Any, shape: Shape, value: str | None) -> None:
    words, found = _words(container, "args"), _argument(container, shape.key)
    if found is None and value is not None:
        container["args"] = [*words, f"{shape.key}={value}"]
    elif found is not None and value is not None:
        index, start = found
        container["args"] = [*words[:index], words[index][:start] + value, *words[index + 1 :]]
    elif found is not None:
        if found[0] != len(words) - 1 or found[1] == 0:
            raise ActionError(f"{shape.key} is not the last of the arguments: remove it by hand")
        container["args"] = words[:-1]


def _argument(container: Any, flag: str) -> tuple[int, int] | None:
    """
    Where the flag's value is: which argument, and from which character on; None when the flag is not there.

    vLLM takes `--max_num_seqs`, too. Raises ActionError where the arguments are not a plain list of flags.
    """
    words, command = _words(container, "args"), _words(container, "command")
    if not any(word.startswith("--") for word in words):
        raise ActionError("its container has no list of arguments with flags: change it by hand")
    if any(re.fullmatch(r"-\w*c", word) for word in (*command, *words)):
        raise ActionError("its container is started by a script: change it by hand")
    places = [index for index, word in enumerate(words) if _dashed(word.partition("=")[0]) == flag]
    if sum(flag in _dashed(word) for word in (*command, *words)) > len(places) or len(places) > 1:
        raise ActionError(f"{flag} stands more than once, or within something else: change it by hand")
    if not places:
        return None
    [index] = places
    if "=" in words[index]:
        return index, words[index].index("=") + 1
    if index + 1 == len(words):
        raise ActionError(f"{flag} has no value: change it by hand")
    return index + 1, 0


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def _words(container: Any, key: str) -> list[str]:
    return [str(word) for word in container.get(key) or []]


def _read_variable(container: Any, shape: Shape) -> Any:
    found = _variables(container, shape.key)
    return found[0].get("value", "") if found else None


def _write_variable(container: Any, shape: Shape, value: str | None) -> None:
    found, listed = _variables(container, shape.key), list(container.get("env") or [])
    if value is None:
        if found and listed[-1] is not found[0]:
            raise ActionError(f"{shape.key} is not the last of the variables: remove it by hand")
        container["env"] = listed[:-1] if found else listed
        if not container["env"]:
            del container["env"]
    elif found:
        found[0]["value"] = value
    else:
        container["env"] = [*listed, {"name": shape.key, "value": value}]


def _variables(container: Any, name: str) -> Sequence[Any]:
    """The variable's entry, or none. Raises ActionError when it is not a plain value."""
    found = [one for one in items_at(container, "env") if one.get("name") == name]
    if len(found) > 1 or any("valueFrom" in one for one in found):
        raise ActionError(f"{name} comes from somewhere else, or stands twice: change it by hand")
    return found


_READ: dict[str, Callable[[Any, Shape], Any]] = {
    "resources": _read_resource,
    "args": _read_argument,
    "env": _read_variable,
}
_WRITE: dict[str, Callable[[Any, Shape, str | None], None]] = {
    "resources": _write_resource,
    "args": _write_argument,
    "env": _write_variable,
}


def _amount(quantity: str) -> Decimal:
    number = Decimal(quantity.rstrip("mkMGTi"))
    unit = quantity.lstrip("0123456789")
    return number * 1024 ** _BINARY[unit] if unit in _BINARY else number.scaleb(_DECIMAL[unit])
