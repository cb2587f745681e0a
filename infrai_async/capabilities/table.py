"""Classes of the table of capabilities: a capability, its routes and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import attrs

R_co = TypeVar("R_co", covariant=True)
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Kind: TypeAlias = Literal["string", "number", "integer", "boolean", "json", "object", "strings", "objects"]

_KINDS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "string": ((str,), "a string"),
    "number": ((int, float), "a number"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
    "object": ((dict,), "an object (a mapping with string keys)"),
    "strings": ((list,), "a list of strings"),
    "objects": ((list,), "a list of objects"),
}


@attrs.frozen(kw_only=True, eq=False)
class Param:
    """One parameter of a capability.

    Attributes:
        name: name of the public argument.
        kind: JSON type of the value on the wire.
        where: part of the request that carries it.
        required: whether it must be given.
        choices: documented values, as the public argument spells them.
        bounds: documented range, both ends included.
        wire: name on the wire, if it differs (``from`` is not a valid Python argument; contract D20).
        also: further body fields that carry the same value (contract D5, D12).
        lower: whether the value is sent in lower case (contract D20, ``op``).
        default: value sent when the argument is omitted (contract D20, the verb).
        needs: for some values, the other parameter that they require (contract D23).
        free: whether it accepts any string.
        may_lack: whether ``None`` omits it from the request.

    Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d5 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d12 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d20 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d23
    """

    name: str = attrs.field(kw_only=False)
    kind: Kind = attrs.field(default="string", kw_only=False)
    where: Literal["path", "query", "body"]
    required: bool = False
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    wire: str = attrs.field(default=attrs.Factory(lambda self: self.name, takes_self=True))
    also: tuple[str, ...] = ()
    lower: bool = False
    default: str | None = None
    needs: Mapping[str, str] = attrs.field(factory=dict)
    free: bool = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.kind == "string" and not self.choices, takes_self=True)
    )
    may_lack: bool = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: not self.required and self.default is None and self.kind != "json", takes_self=True
        ),
    )

    def mismatch(self, value: object) -> str | None:
        """Return what ``value`` (plain JSON) must be, or ``None`` if it is valid."""
        if self.kind == "json":
            return None
        types, wanted = _KINDS[self.kind]
        fits = isinstance(value, types) and (self.kind == "boolean" or not isinstance(value, bool))
        if fits and isinstance(value, list):
            fits = all(isinstance(item, str if self.kind == "strings" else dict) for item in value)
        if not fits:
            return wanted
        if self.choices and value not in self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:  # type: ignore[operator]
            return f"between {self.bounds[0]:g} and {self.bounds[1]:g}"
        return None


def _is_plain(route: Route) -> bool:
    return all(
        param.where != "body" and not param.also and (param.free or (param.kind == "integer" and param.bounds is None))
        for param in route.params
    )


@attrs.frozen(eq=False)
class Route:
    """One route of a capability: a path template and its parameters.

    Attributes:
        path: path template, with a ``{name}`` for each path parameter.
        params: the parameters of the request.
        names: their public names.
        plain: whether path and query carry only free strings and unbounded integers, as most reading calls do.
    """

    path: str
    params: tuple[Param, ...] = ()
    names: frozenset[str] = attrs.field(
        init=False, default=attrs.Factory(lambda self: frozenset(param.name for param in self.params), takes_self=True)
    )
    plain: bool = attrs.field(init=False, default=attrs.Factory(_is_plain, takes_self=True))


@attrs.frozen(kw_only=True, eq=False)
class Capability(Generic[R_co]):
    """A capability of the service.

    Attributes:
        id: documented id, for example ``db.project.create``.
        method: HTTP method.
        routes: its routes, in the order in which they are tried.
        returns: model of the response; for a list, the model of one item.
        paged: whether the response is a page of items.
        deduplicates: whether the documentation lists ``idempotency_key`` among the body fields.
        public: whether it is sent without the API key (contract D18).
        bare: whether the response has no envelope (contract 1.2).
        mutates: whether it changes something, and therefore carries an idempotency key (contract D4).
        resendable: whether it may be sent again after an ambiguous failure (contract D19).
        params: all parameters of all routes, by public name.

    Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d4 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d18 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19 ,
        https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#12-success-envelope
    """

    id: str = attrs.field(kw_only=False)
    method: Method = attrs.field(kw_only=False)
    routes: tuple[Route, ...]
    returns: type[R_co]
    paged: bool = False
    deduplicates: bool = False
    public: bool = False
    bare: bool = False
    mutates: bool = attrs.field(init=False, default=attrs.Factory(lambda self: self.method != "GET", takes_self=True))
    resendable: bool = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: self.method in ("GET", "DELETE") or self.deduplicates, takes_self=True),
    )
    params: Mapping[str, Param] = attrs.field(
        init=False, default=attrs.Factory(lambda self: _params_by_name(self.routes), takes_self=True)
    )


def _params_by_name(routes: tuple[Route, ...]) -> Mapping[str, Param]:
    return {param.name: param for route in reversed(routes) for param in route.params}


def define(
    id: str,
    method: Method,
    path: str,
    *params: Param,
    returns: type[R_co],
    current: Route | None = None,
    paged: bool = False,
    deduplicates: bool = False,
    public: bool = False,
    bare: bool = False,
) -> Capability[R_co]:
    """Return a capability; ``current`` is the route of the running service, where it differs from ``path``."""
    seed = Route("/v1" + path, params)
    return Capability(
        id,
        method,
        routes=(seed,) if current is None else (seed, current),
        returns=returns,
        paged=paged,
        deduplicates=deduplicates,
        public=public,
        bare=bare,
    )


path: Final = partial(Param, where="path", required=True)
query: Final = partial(Param, where="query")
body: Final = partial(Param, where="body")
PAGING: Final = (query("cursor"), query("limit", "integer"))
