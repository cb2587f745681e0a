"""Describe the capability table and the models as JSON Schema, with example calls."""

from __future__ import annotations

import json
import shlex
import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlencode

import attrs

from infrai_async.capabilities import Param
from infrai_async.local.http.router import Row
from infrai_async.local.services.base import Data
from infrai_async.models import FlagValues

_KINDS: Final[Mapping[str, Data]] = {
    "json": {},
    "strings": {"type": "array", "items": {"type": "string"}},
    "objects": {"type": "array", "items": {"type": "object"}},
}
_PLAIN: Final[Mapping[Any, Data]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": "number"},
    str: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
}
_EXAMPLES: Final[Mapping[str, Any]] = {"integer": 1, "number": 5, "boolean": True, "object": {}, "json": True}
_OURS: Final = frozenset({"extra", "metadata"})
"""Fields that the client adds to every model; they are not part of the response data."""


def of_param(param: Param) -> Data:
    """Return the schema of one parameter."""
    schema = dict(_KINDS.get(param.kind, {"type": param.kind}))
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.bounds:
        schema["minimum"], schema["maximum"] = param.bounds
    return schema


def of_request(capability: Row) -> Data:
    """Return the schema of a capability's parameters."""
    params = [*parameters_of(capability)]
    return {
        "type": "object",
        "properties": {name: schema for name, _, _, schema in params},
        "required": [name for name, _, required, _ in params if required],
    }


def parameters_of(capability: Row) -> Iterator[tuple[str, str, bool, Data]]:
    """Yield all fields that the gateway takes, of either generation of routes (D31), the current one's first.

    Yields:
        The name, where it stands (``path``, ``query`` or ``body``), whether every request needs it, and its schema.
    """
    current, older = capability.routes[-1].params, [one for route in capability.routes[:-1] for one in route.params]
    needed = {param.wire for param in current if param.required}
    for route in capability.routes[:-1]:
        needed &= {param.wire for param in route.params if param.required}
    seen = set()
    for param in (*current, *older):
        for name in (param.wire, *param.also):
            if name not in seen:
                seen.add(name)
                yield name, param.where if name == param.wire else "body", name in needed, of_param(param)
    if capability.mutates and capability.method != "DELETE" and "idempotency_key" not in seen:
        yield "idempotency_key", "body", False, {"type": "string"}


def of_response(capability: Row) -> Data:
    """Return the schema of a capability's response: the envelope's ``data``, or the whole body if it has none."""
    if not capability.paged:
        return _of_model(capability.returns)
    items = {"type": "array", "items": _of_model(capability.returns)}
    return {
        "type": "object",
        "properties": {"items": items, "next_cursor": {"type": ["string", "null"]}},
        "required": ["items"],
    }


def _of_model(model: type[Any]) -> Data:
    if model is FlagValues:  # its keys are the names of the flags, so it has no fixed fields
        return {"title": model.__name__, "type": "object", "additionalProperties": {}}
    hints = get_type_hints(model)
    fields = [field for field in attrs.fields(model) if field.name not in _OURS]
    return {
        "title": model.__name__,
        "type": "object",
        "properties": {field.name: _of_type(hints[field.name]) for field in fields},
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
    }


def _of_type(hint: Any) -> Data:
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if attrs.has(hint):
        return _of_model(hint)
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return {"anyOf": [_of_type(one) for one in arguments]}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _of_type(arguments[0])}
    if get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _of_type(arguments[1])}
    return {}


def curl(capability: Row, base_url: str) -> str:
    """Return a curl command with the required parameters; ids and names in it are placeholders to replace."""
    params = capability.routes[-1].params
    path, query, body = (
        {one.wire: _example(one) for one in params if one.where == where and (one.required or where == "path")}
        for where in ("path", "query", "body")
    )
    url = base_url + capability.routes[-1].path.format(**{name: quote(value, safe="") for name, value in path.items()})
    words = ["curl", "-X", capability.method, shlex.quote(f"{url}?{urlencode(query)}" if query else url)]
    if not capability.public:
        words.append('-H "Authorization: Bearer $INFRAI_API_KEY"')
    if capability.mutates and capability.method != "DELETE":
        words += ["-H", shlex.quote("Content-Type: application/json"), "-d", shlex.quote(json.dumps(body))]
    return " ".join(words)


def _example(param: Param) -> Any:
    if param.choices:
        return param.choices[0]
    if param.wire == "origin":
        return "https://example.com"
    if param.kind in ("strings", "objects"):
        return []
    return _EXAMPLES.get(param.kind, f"your-{param.wire.replace('_', '-')}")
