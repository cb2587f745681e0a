"""Building the request of a call from its capability and arguments, without I/O.

All checks of arguments happen here, before anything is sent. Error messages name the argument as the caller spelled
it. Contract D22 says what is checked; the service decides about everything else.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import attrs

from infrai_async._protocol.json import NESTING, is_too_deep
from infrai_async.errors import InvalidArgument
from infrai_async.models import FlagRule, Model, RolloutConfig, Variant, to_plain

if TYPE_CHECKING:
    from infrai_async.capabilities import Capability, Param, Route
    from infrai_async.models import JSON


class Unset(Enum):
    """The type of ``UNSET``: it marks an argument that is not given where ``None`` is a valid value.

    For such arguments ``None`` means JSON ``null``, or no time limit.
    """

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

_unreserved: Final = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch  # text that percent-encoding does not change
_segment: Final = re.compile(r"(?!\.)[A-Za-z0-9_.~-]+").fullmatch  # and that path resolution does not change either

_canonical: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False
).encode

LONGEST_TARGET: Final = 64_000
"""The maximum length of a request's path and query in bytes; common servers accept 8 to 64 KiB."""
_LONG_TARGET: Final = 1024  # bytes; a request with a shorter target has too long headers
_WORD: Final = 64  # bits
_LARGEST_INTEGER: Final = 14_000  # bits; Python refuses to convert integers of more than 4300 digits to text


@attrs.define
class Request:
    """A request, without the parts that the client adds: origin, credentials and headers.

    ``target`` is the encoded path with its query, and is sent byte for byte. ``is_retry`` is true if the request
    repeats one that failed. ``route`` is the capability's route that it takes.
    """

    method: str
    target: str
    body: bytes | None = attrs.field(default=None, repr=False)
    idempotency_key: str | None = None
    is_retry: bool = attrs.field(default=False, eq=False)
    route: Route | None = attrs.field(default=None, eq=False, repr=False)


def build(
    capability: Capability[Any],
    route: Route,
    arguments: Mapping[str, object],
    idempotency_key: str | None = None,
    *,
    key_in_body: bool = False,
) -> Request:
    """Build the request of one call.

    Args:
        capability: the capability to call.
        route: the route of the capability to take.
        arguments: the arguments by public name; ``None`` and ``UNSET`` mean not given.
        idempotency_key: the key, sent as a header with every call that changes something.
        key_in_body: whether the caller chose the key, which then goes into the body too (D4).

    Returns:
        The request.

    Raises:
        InvalidArgument: an argument is missing or wrong, the route does not carry it, or the URL is too long.
    """
    path: dict[str, str] = {}
    query: list[str] = []
    body: dict[str, JSON] = {}
    for param in route.params:
        value = _argument(param, arguments)
        if value is UNSET:
            if param.required:
                raise InvalidArgument(f"{param.name} is required", capability=capability.id)
            continue
        plain = _checked(capability, param, value)
        if param.needs:
            _check_needs(capability, param, value, arguments)
        if param.where == "path":
            path[param.name] = _encoded_segment(capability, param, str(plain))
        elif param.where == "query":
            query.append(f"{param.wire}={quote(_query_text(param, plain), safe='')}")
        else:
            body[param.wire] = plain.lower() if param.lower and isinstance(plain, str) else plain
        for name in param.also:
            body[name] = plain
    if len(capability.routes) > 1 and (names := _not_carried(capability, route, arguments)):
        listed = " and ".join(names)
        raise InvalidArgument(f"the service has no route that takes {listed}: omit {listed}", capability=capability.id)
    if key_in_body and capability.deduplicates:
        body["idempotency_key"] = idempotency_key
    target = route.path.format_map(path)
    if query:
        target += "?" + "&".join(query)
    if len(target) > LONGEST_TARGET:
        length = f"{len(target):,} bytes, more than {LONGEST_TARGET:,}"
        raise InvalidArgument(_advice_on_url(capability, route, arguments, length), capability=capability.id)
    encoded = canonical_body(body) if capability.method in ("POST", "PUT", "PATCH") else None
    return Request(capability.method, target, encoded, idempotency_key if capability.mutates else None, route=route)


class _Targets(dict["Route", Callable[[Mapping[str, object]], "str | None"]]):
    """The functions that build the targets of each route, compiled on first use."""

    def __missing__(self, route: Route) -> Callable[[Mapping[str, object]], str | None]:
        self[route] = compiled = _compile_target(route) if route.plain else _no_target
        return compiled


target_of: Final = _Targets()
"""``target_of[route](arguments)`` is the target of a request that only reads, if no argument needs encoding.

Otherwise it is ``None``, and ``build`` must be used: it encodes the arguments, or raises if one is wrong.
"""


def _no_target(_: Mapping[str, object]) -> None:
    """Return ``None``: the targets of a route that is not plain always need ``build``."""


def _compile_target(route: Route) -> Callable[[Mapping[str, object]], str | None]:
    scope: dict[str, Any] = {"unreserved": _unreserved, "segment": _segment}
    exec(_source_of_target(route), scope)  # noqa: S102 - values of the capability table enter it by ``repr`` only
    return scope["target"]  # type: ignore[no-any-return]


def _source_of_target(route: Route) -> str:
    """Return the source of the function ``target(arguments)``; tests/protocol/test_request.py shows an example."""
    lines = []
    variables: dict[str | None, str] = {}
    for number, param in enumerate(route.params):
        variables[param.name] = value = f"value_{number}"
        lines += [f"{value} = arguments.get({param.name!r})", f"if {_misfits(param, value)}:", "    return None"]
        if param.where == "query":
            text = value if param.free else f"str({value})"
            lines += [f"if {value} is not None:", f"    query += {f'&{param.wire}='!r} + {text}"]
    parts = [(repr(literal), variables.get(name)) for literal, name, _, _ in string.Formatter().parse(route.path)]
    path = " + ".join(part for pair in parts for part in pair if part is not None)
    if any(param.where == "query" for param in route.params):
        lines = ["query = ''", *lines, f"return {path} + (query and '?' + query[1:])"]
    else:
        lines.append(f"return {path}")
    return "def target(arguments):\n" + "".join(f"    {line}\n" for line in lines)


def _misfits(param: Param, value: str) -> str:
    """Return the source of a condition that is true if a value must be encoded or checked by ``build``."""
    if param.free:
        as_it_is = "segment" if param.where == "path" else "unreserved"
        # Most values are identifiers, and this check takes a third of the time of the regular expression.
        fits = f"{value}.__class__ is str and ({value}.isascii() and {value}.isidentifier() or {as_it_is}({value}))"
    else:
        fits = f"{value}.__class__ is int and {value}.bit_length() <= {_WORD}"
    return f"not ({value} is None or {fits})" if param.may_lack else f"not ({fits})"


def route_for(capability: Capability[Any], arguments: Mapping[str, object], generation: int = 0) -> Route:
    """Return the route to try first: the given generation's, unless only the other carries every argument (D2)."""
    routes = capability.routes
    if len(routes) == 1:
        return routes[0]
    preferred, other = routes[generation], routes[1 - generation]
    return other if _not_carried(capability, preferred, arguments) else preferred


def _not_carried(capability: Capability[Any], route: Route, arguments: Mapping[str, object]) -> list[str]:
    """Return the names of the given arguments that only the other generation's route carries."""
    return [
        name
        for name, param in capability.params.items()
        if name not in route.names and name in arguments and _argument(param, arguments) is not UNSET
    ]


def advice_on_length(capability: Capability[Any], request: Request, arguments: Mapping[str, object]) -> str:
    """Return what to shorten in a request that the service has found too long."""
    if request.route is not None and len(request.target) > _LONG_TARGET:
        return _advice_on_url(capability, request.route, arguments, f"{len(request.target):,} bytes")
    return "the request's headers are too long: shorten the client's headers, or idempotency_key"


def _advice_on_url(capability: Capability[Any], route: Route, arguments: Mapping[str, object], length: str) -> str:
    """Return the message about a URL that is too long; it names the argument that takes up most of it."""
    sizes = {
        param.name: len(quote(_query_text(param, _checked(capability, param, value)), safe=""))
        for param in route.params
        if param.where != "body" and (value := _argument(param, arguments)) is not UNSET
    }
    advice = f": shorten {max(sizes, key=sizes.__getitem__)}" if sizes else ""
    return f"the request's URL is too long ({length}){advice}"


def canonical_body(body: Mapping[str, JSON]) -> bytes:
    """Encode a body canonically: sorted keys, no spaces, one trailing newline, UTF-8 (contract 1.1)."""
    return (_canonical(body) + "\n").encode()


def canonical_call(name: str, capability: Capability[Any], arguments: Mapping[str, object]) -> bytes:
    """Encode a call under an operation's name, independently of the generation of routes (D2).

    Raises:
        InvalidArgument: an argument is wrong.
    """
    given = {
        param.name: _checked(capability, param, value)
        for param in capability.params.values()
        if (value := _argument(param, arguments)) is not UNSET
    }
    return _canonical([name, capability.id, given]).encode()


def check_names(capability: Capability[Any], arguments: Mapping[str, object] | None) -> dict[str, object]:
    """Return ``arguments`` by their public names; the API's own spelling (``from``) is accepted too.

    ``idempotency_key``, which is no parameter of the table, is returned as it is.

    Raises:
        InvalidArgument: the capability has no argument of this name, one is given twice, or ``arguments`` is not a
            mapping.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise InvalidArgument("arguments must be a mapping of names to values", capability=capability.id)
    by_wire = {param.wire: name for name, param in capability.params.items()}
    public: dict[str, object] = {}
    for name, value in arguments.items():
        known = name if name in capability.params or name == "idempotency_key" else by_wire.get(name)
        if known is None:
            close = difflib.get_close_matches(str(name), capability.params, n=1)
            advice = f"did you mean {close[0]}?" if close else "it takes " + (", ".join(capability.params) or "none")
            raise InvalidArgument(f"{name} is not an argument of this capability: {advice}", capability=capability.id)
        if known in public:
            raise InvalidArgument(f"{known} is given twice: pass it once", capability=capability.id)
        public[known] = value
    return public


def check_key(capability: Capability[Any], key: object) -> str:
    """Return ``key`` after checking that it can be sent in a header.

    Raises:
        InvalidArgument: ``key`` is not a non-empty string of printable ASCII characters.
    """
    if isinstance(key, str) and key and key.isascii() and key.isprintable():
        return key
    raise InvalidArgument(
        "idempotency_key must be a non-empty string of printable ASCII characters", capability=capability.id
    )


def seconds(name: str, value: float | timedelta) -> float:
    """Return a duration in seconds.

    Raises:
        InvalidArgument: the duration is not positive and finite.
    """
    amount = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount <= sys.float_info.max:
        raise InvalidArgument(f"{name} must be a positive number of seconds or a timedelta")
    return float(amount)


def _argument(param: Param, arguments: Mapping[str, object]) -> object:
    value = arguments.get(param.name, UNSET)
    if value is None and param.kind != "json":
        value = UNSET
    return param.default if value is UNSET and param.default is not None else value


def _checked(capability: Capability[Any], param: Param, value: object) -> JSON:
    if type(value) is str and param.free and value.isascii():
        return value  # the most common case by far
    try:
        plain = _plain(value)
        if is_too_deep(plain):
            raise RecursionError
    except (_NotPlain, RecursionError) as error:
        reason = str(error) if isinstance(error, _NotPlain) else f"is nested too deeply: at most {NESTING} levels"
        raise InvalidArgument(f"{param.name} {reason}", capability=capability.id) from None
    wanted = param.mismatch(plain)
    if wanted is not None:
        raise InvalidArgument(f"{param.name} must be {wanted}, not {_describe(param, value)}", capability=capability.id)
    return plain


def _check_needs(capability: Capability[Any], param: Param, value: object, arguments: Mapping[str, object]) -> None:
    other = param.needs.get(str(value))
    if other is not None and _argument(capability.params[other], arguments) is UNSET:
        raise InvalidArgument(f"{other} is required with {param.name}={value!r}", capability=capability.id)


class _NotPlain(Exception):
    """An argument has no JSON form; the message continues the argument's name."""


def _plain(value: object) -> JSON:
    match value:
        case None | bool():
            return value
        case int():
            if value.bit_length() > _LARGEST_INTEGER:
                raise _NotPlain("has too many digits")
            return int(value)
        case str():
            if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
                raise _NotPlain("holds half of a surrogate pair, which UTF-8 cannot encode")
            return str.__str__(value)
        case Decimal() if value.is_snan():  # a signalling NaN raises in any comparison
            raise _NotPlain("must be finite")
        case float() | Decimal():
            if not math.isfinite(value):
                raise _NotPlain("must be finite")
            return to_plain(value) if isinstance(value, Decimal) else float(value)
        case timedelta():
            length = value.total_seconds()
            return int(length) if length.is_integer() else length
        case datetime():
            if value.tzinfo is None:
                raise _NotPlain("has no time zone: pass an aware datetime, such as datetime.now(timezone.utc)")
            return to_plain(value)
        case Model():
            raise _NotPlain(f"is a {type(value).__name__}: pass one of its fields, such as its id")
        case FlagRule() | RolloutConfig() | Variant():
            return _plain(value.to_dict())
        case Mapping():
            return {_text_key(key): _plain(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_plain(item) for item in value]
    raise _NotPlain(f"has no JSON form: it is of type {type(value).__name__}")


def _text_key(key: object) -> str:
    if not isinstance(key, str):
        raise _NotPlain(f"has a key of type {type(key).__name__}; JSON keys are strings")
    return str(_plain(key))


def _describe(param: Param, value: object) -> str:
    return repr(value) if param.choices or param.bounds else type(value).__name__


def _encoded_segment(capability: Capability[Any], param: Param, text: str) -> str:
    """Encode any text as one path segment; a segment of only dots would be resolved away in transit (D3)."""
    if not text:
        raise InvalidArgument(f"{param.name} must not be empty", capability=capability.id)
    encoded = quote(text, safe="")
    return encoded.replace(".", "%2E") if encoded in (".", "..") else encoded


def _query_text(param: Param, value: JSON) -> str:
    if param.kind in ("json", "object"):
        return _canonical(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
