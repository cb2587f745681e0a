"""From a request to the parameters of its row, by the row: types, required ones, documented values and ranges."""

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
    """Undo a body's ``Content-Encoding``, as far as a mebibyte goes.

    Raises:
        RequestRefused: 415, it is another than gzip and deflate; 413, it hides more; 400, it is garbled.
    """
    if not raw or encoding.strip().lower() in ("", "identity"):
        return raw
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise RequestRefused(415, "VALIDATION_ERROR", "of a body's encodings gzip and deflate can be undone")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out which of the two it is
    try:
        plain = decoder.decompress(raw, _LARGEST)
    except zlib.error:
        raise invalid("the body is not what its Content-Encoding says") from None
    if len(plain) == _LARGEST:
        raise RequestRefused(413, "VALIDATION_ERROR", "the body is larger than 1 MiB")
    if not decoder.eof:
        raise invalid("the body came incomplete")
    return plain


def parse_body(raw: bytes) -> dict[str, JSON]:
    """Return a request's body; none is an empty object.

    Raises:
        RequestRefused: it is not a JSON object in UTF-8.
    """
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)
        _check_storable(body)
    except (ValueError, RecursionError):
        raise invalid("the body is not valid JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise invalid("the body has to be a JSON object")
    return body


def parse_query(raw: str) -> dict[str, str]:
    """Return a query string's fields; of a repeated one the last.

    Raises:
        RequestRefused: it is not UTF-8 once decoded.
    """
    try:
        fields = dict(parse_qsl(raw, keep_blank_values=True, errors="strict"))
        "".join((*fields, *fields.values())).encode()
    except ValueError:
        raise invalid("the query is not UTF-8 once decoded") from None
    return fields


def parse_params(match: Match, query: Mapping[str, str], body: Mapping[str, JSON]) -> dict[str, Any]:
    """Return the call's parameters by their public names; what the row does not know is ignored.

    Raises:
        RequestRefused: a parameter is missing, has the wrong type, or comes twice and differs.
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
    """Return what a body says beyond the parameters of its row, in any generation, and the idempotency key."""
    known = {name for route in capability.routes for param in route.params for name in (param.wire, *param.also)}
    body, _ = _normalized(capability, body)
    return {name: value for name, value in body.items() if name not in known | {"idempotency_key"}}


def parse_idempotency_key(header: str | None, body: Mapping[str, JSON]) -> str | None:
    """Return the idempotency key of a write, from its header or its body (CONTRACT.md D4).

    Raises:
        RequestRefused: both are there and differ, or it is no text of 1 to 255 characters.
    """
    given = [key for key in (header, body.get("idempotency_key")) if key is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise invalid("the header Idempotency-Key and the body's idempotency_key differ", idempotency_key="one value")
    for key in given[:1]:
        if not isinstance(key, str) or not 1 <= len(key) <= 255:
            raise invalid("an idempotency key is a text", idempotency_key="a string of 1 to 255 characters")
        return key
    return None


def _in_path(param: Param) -> bool:
    return param.where == "path"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _check_storable(value: object) -> None:
    """Refuse what parses but can be neither stored nor answered: half a surrogate pair, a number beyond floats.

    And what is nested so deeply that some later step would fail at it.
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
    """Return a body as its row would have it, and which required parameters it need not have."""
    nested = body.get("rollout")
    if capability.id == FLAG_ROLLOUT.id and isinstance(nested, dict) and "percentage" not in body:
        # The documentation's nested example, which has no version (D6).
        return {**nested, **{name: value for name, value in body.items() if name != "rollout"}}, frozenset({"version"})
    if capability.id == FLAG_SET.id and "rollout" in body:
        return {**body, "rollout": nested or {}}, frozenset()  # null is what the flag answers when it has none
    return body, frozenset()


def _check_repeated(match: Match, body: Mapping[str, JSON]) -> None:
    """Hold what the body repeats of the path against the path (D5)."""
    for param in filter(_in_path, match.route.params):
        for name in (param.wire, *param.also):
            if body.get(name, match.values[param.wire]) != match.values[param.wire]:
                raise invalid(f"the body's {name} differs from the path's", **{name: "what the path says, or absent"})


def _spellings(capability: Row, name: str) -> Iterable[Param]:
    return (param for route in capability.routes for param in route.params if param.name == name)


def _from_body(capability: Row, param: Param, body: Mapping[str, JSON]) -> Any:
    """Find a value under any of its names, of either generation (D2, D12, D20)."""
    spellings = tuple(_spellings(capability, param.name))
    names = dict.fromkeys(name for one in spellings for name in (one.wire, *one.also))
    given = {name: body[name] for name in names if name in body}
    if param.kind != "json":  # null is a value only where any JSON is; elsewhere it says nothing
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
    """Read JSON; what is none is taken as a string."""
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
        raise _unfit(param, "a number of a sensible size")
    return value


def _unfit(param: Param, wanted: str) -> RequestRefused:
    return invalid(f"{param.wire} has to be {wanted}", **{param.wire: wanted})
