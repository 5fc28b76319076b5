"""OTLP's JSON form of a trace: ids in hex as the protocol wants, or in base64 as Tempo writes them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt
from pydantic.alias_generators import to_camel

from diagnostics.traces.genai import kept
from diagnostics.traces.model import LONGEST, Attribute, Span

_ERROR = frozenset({2, "STATUS_CODE_ERROR"})
_VALUES = ("stringValue", "intValue", "doubleValue", "boolValue")


class OtlpValue(BaseModel):
    """Part of an answer; OTLP's names are in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class _KeyValue(OtlpValue):
    key: str = ""
    value: Any = None


class _Resource(OtlpValue):
    attributes: tuple[_KeyValue, ...] = ()


class _Status(OtlpValue):
    code: int | str = 0


class _Span(OtlpValue):
    span_id: str
    parent_span_id: str = ""
    name: str = ""
    start_time_unix_nano: NonNegativeInt
    end_time_unix_nano: NonNegativeInt = 0
    attributes: tuple[_KeyValue, ...] = ()
    status: _Status = _Status()


class _Scope(OtlpValue):
    spans: tuple[_Span, ...] = ()


class ResourceSpans(OtlpValue):
    """What one service instance reported of a trace."""

    resource: _Resource = _Resource()
    scope_spans: tuple[_Scope, ...] = ()

    def read(self) -> list[Span]:
        """The spans that have ended; one without an end is still running."""
        service = next((_value(each) for each in self.resource.attributes if each.key == "service.name"), None)
        return [
            _span(span, str(service or ""))
            for scope in self.scope_spans
            for span in scope.spans
            if span.end_time_unix_nano
        ]


def hex_id(text: str) -> str | None:
    """An id in hex, whether it came as 16 hex digits or in base64; None for an absent or zero one."""
    if len(text) != 16:
        try:
            text = base64.b64decode(text, validate=True).hex()
        except (binascii.Error, ValueError):
            return text or None
    return text.lower() if text.strip("0") else None


def _span(span: _Span, service: str) -> Span:
    found = {each.key: kept(each.key, _value(each)) for each in span.attributes}
    attributes: dict[str, Attribute] = {name: value for name, value in found.items() if value is not None}
    return Span(
        id=hex_id(span.span_id) or "",
        parent=hex_id(span.parent_span_id),
        service=service[:LONGEST],
        name=span.name[:LONGEST],
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=span.status.code in _ERROR,
        attributes=attributes,
    )


def _value(pair: _KeyValue) -> Any:
    """A scalar; lists and maps are not read. Protobuf writes 64-bit numbers as text."""
    if not isinstance(pair.value, dict):
        return None
    return next((pair.value[kind] for kind in _VALUES if kind in pair.value), None)
