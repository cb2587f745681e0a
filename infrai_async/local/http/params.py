"""Parse the query and body of a request into the parameters of its capability, and validate them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, cast
from urllib.parse import parse_qsl

from infrai_async.capabilities import FLAG_ROLLOUT, FLAG_SET, Kind, Param
from infrai_async.local._errors import RequestRefused, invalid
from infrai_async.local.http.router import Match, Row
from infrai_async.models import JSON

_MISSING: Final = object()
_INT64: Final = 2**63
_LARGEST: Final = 2**20
_DEEPEST: Final = 100  # levels of nesting


def decompress(raw: bytes, encoding: str) -> bytes:
    """Decompress a body according to its ``Content-Encoding``.

    Raises:
        RequestRefused: 415, if the encoding is neither gzip nor deflate; 413, if the result exceeds 1 MiB; 400, if the
            data is malformed.
    """
    if not raw or encoding.strip().lower() in ("", "identity"):
        return raw
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise RequestRefused(
            415, "VALIDATION_ERROR", "this Content-Encoding is not supported; use gzip, deflate or none"
        )
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects which of the two it is
    try:
        plain = decoder.decompress(raw, _LARGEST)
    except zlib.error:
        raise invalid("the body does not match its Content-Encoding") from None
    if len(plain) == _LARGEST:
        raise RequestRefused(413, "VALIDATION_ERROR", "the body is larger than 1 MiB")
    if not decoder.eof:
        raise invalid("the body is incomplete")
    return plain


def parse_body(raw: bytes) -> dict[str, JSON]:
    """Parse the body of a request; an empty body is an empty object.

    Raises:
        RequestRefused: 400, if it is not a JSON object in UTF-8.
    """
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)
        _check_storable(body)
    except (ValueError, RecursionError):
        raise invalid("the body is not valid JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    return body


def parse_query(raw: str) -> dict[str, str]:
    """Parse a query string; the last value of a repeated field counts.

    Raises:
        RequestRefused: 400, if it is not valid UTF-8 after decoding.
    """
    try:
        fields = dict(parse_qsl(raw, keep_blank_values=True, errors="strict"))
        "".join((*fields, *fields.values())).encode()
    except ValueError:
        raise invalid("the query is not valid UTF-8 after percent-decoding") from None
    return fields


def parse_params(match: Match, query: Mapping[str, str], body: Mapping[str, JSON]) -> dict[str, Any]:
    """Return the parameters of a call by their public names; unknown fields are ignored.

    Raises:
        RequestRefused: 400, if a parameter is missing, has the wrong type, or is given twice with different values.
    """
    capability = match.capability
    body, waived = _normalized(capability, body)
    _check_repeated(match, body)
    params: dict[str, Any] = {param.name: match.values[param.wire] for param in match.route.params if _in_path(param)}
    for name, param in capability.params.items():
        if _in_path(param):
            continue
        value = _from_query(param, query) if param.where == "query" else _from_body(capability, param, body)
        if value is not _MISSING:
            params[name] = _checked(param, value)
        elif param.required and name not in waived:
            raise invalid(f"{param.wire} is required", **{param.wire: "required"})
    return params


def unknown_fields(capability: Row, body: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the fields of a body that are neither parameters of any generation nor the idempotency key."""
    known = {name for route in capability.routes for param in route.params for name in (param.wire, *param.also)}
    body, _ = _normalized(capability, body)
    return {name: value for name, value in body.items() if name not in known | {"idempotency_key"}}


def parse_idempotency_key(header: str | None, body: Mapping[str, JSON]) -> str | None:
    """Return the idempotency key of a write, from its header or its body (CONTRACT.md D4).

    Raises:
        RequestRefused: 400, if both are given and differ, or if the key is not a string of 1 to 255 characters.
    """
    given = [key for key in (header, body.get("idempotency_key")) if key is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise invalid("the header Idempotency-Key and the body's idempotency_key differ", idempotency_key="one value")
    for key in given[:1]:
        if not isinstance(key, str) or not 1 <= len(key) <= 255:
            raise invalid(
                "the idempotency key must be a string of 1 to 255 characters",
                idempotency_key="a string of 1 to 255 characters",
            )
        return key
    return None


def _in_path(param: Param) -> bool:
    return param.where == "path"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_storable(value: object) -> None:
    """Reject values that Python parses but that cannot be stored or returned.

    These are lone surrogates, numbers beyond the range of floats, and nesting so deep that a later step would fail.
    """
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _normalized(capability: Row, body: Mapping[str, JSON]) -> tuple[Mapping[str, JSON], frozenset[str]]:
    """Return a body in the form of its capability's parameters, and the required parameters that it may omit."""
    nested = body.get("rollout")
    if capability.id == FLAG_ROLLOUT.id and isinstance(nested, dict) and "percentage" not in body:
        # The documentation has an example with a nested rollout and without a version (D6).
        return {**nested, **{name: value for name, value in body.items() if name != "rollout"}}, frozenset({"version"})
    if capability.id == FLAG_SET.id and "rollout" in body:
        return {**body, "rollout": nested or {}}, frozenset()  # responses show null for a flag without a rollout
    return body, frozenset()


def _check_repeated(match: Match, body: Mapping[str, JSON]) -> None:
    """Check that path parameters repeated in the body have the same values there (D5)."""
    for param in filter(_in_path, match.route.params):
        for name in (param.wire, *param.also):
            if body.get(name, match.values[param.wire]) != match.values[param.wire]:
                raise invalid(
                    f"{name} in the body differs from the path", **{name: "the same as in the path, or absent"}
                )


def _spellings(capability: Row, name: str) -> Iterable[Param]:
    return (param for route in capability.routes for param in route.params if param.name == name)


def _from_body(capability: Row, param: Param, body: Mapping[str, JSON]) -> Any:
    """Return a parameter's value, given under any of its names in either generation (D2, D12, D20)."""
    spellings = tuple(_spellings(capability, param.name))
    names = dict.fromkeys(name for one in spellings for name in (one.wire, *one.also))
    given = {name: body[name] for name in names if name in body}
    if param.kind != "json":  # null is a value only if the parameter takes any JSON; otherwise it counts as absent
        given = {name: value for name, value in given.items() if value is not None}
    if any(one.lower for one in spellings):
        given = {name: value.upper() if isinstance(value, str) else value for name, value in given.items()}
    values = list(given.values())
    if any(value != values[0] for value in values):
        raise invalid(" and ".join(given) + " differ", **dict.fromkeys(given, "one value"))
    return values[0] if values else _MISSING


def _from_query(param: Param, query: Mapping[str, str]) -> Any:
    if param.kind == "object" and param.wire not in query:
        return _bracketed(param.wire, query)
    text = query.get(param.wire)
    if text is None or (text == "" and param.kind != "json"):
        return _MISSING
    return _READERS[param.kind](param, text)


def _bracketed(name: str, query: Mapping[str, str]) -> Any:
    """Read ``context[k]=v`` and ``context.k=v`` (D7)."""
    found = {}
    for field, value in query.items():
        key = re.fullmatch(rf"{re.escape(name)}(?:\[(.+)\]|\.(.+))", field, re.DOTALL)
        if key:
            found[key[1] or key[2]] = value
    return found or _MISSING


def _read_number(param: Param, text: str) -> JSON:
    pattern = r"[+-]?[0-9]{1,19}" if param.kind == "integer" else r"[+-]?[0-9]{1,19}(\.[0-9]{1,19})?"
    if not re.fullmatch(pattern, text):
        raise _unfit(param, "a whole number" if param.kind == "integer" else "a number")
    return int(text) if param.kind == "integer" else float(text)


def _read_boolean(param: Param, text: str) -> JSON:
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if value is None:
        raise _unfit(param, "true or false")
    return value


def _read_object(param: Param, text: str) -> JSON:
    try:
        return parse_body(text.encode())
    except RequestRefused:
        raise _unfit(param, "a JSON object") from None


def _read_json(param: Param, text: str) -> JSON:
    """Parse JSON; text that is not JSON is taken as a string."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        _check_storable(value)
    except (ValueError, RecursionError):
        return text
    return cast(JSON, value)


_READERS: Final[Mapping[Kind, Callable[[Param, str], JSON]]] = {
    "string": lambda param, text: text,
    "integer": _read_number,
    "number": _read_number,
    "boolean": _read_boolean,
    "object": _read_object,
    "json": _read_json,
}


def _checked(param: Param, value: Any) -> Any:
    wanted = param.mismatch(value)
    if wanted is not None:
        raise _unfit(param, wanted)
    if param.kind == "integer" and not -_INT64 <= value < _INT64:
        raise _unfit(param, "a whole number of 64 bits")
    if param.kind == "number" and not -_INT64 <= value < _INT64:
        raise _unfit(param, "a number between -2**63 and 2**63")
    return value


def _unfit(param: Param, wanted: str) -> RequestRefused:
    return invalid(f"{param.wire} must be {wanted}", **{param.wire: wanted})
