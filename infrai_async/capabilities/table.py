"""What a row of the table of capabilities is: its parameters, its routes, its result."""

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
        name: the public argument, which is also the wire's name unless ``wire`` says otherwise.
        kind: the JSON type that the wire carries.
        where: the part of the request that it travels in.
        choices: the documented values, as the public argument spells them.
        bounds: the documented range, both ends included.
        wire: the wire's name where it differs (``from`` is no Python argument; D20).
        also: further body fields that carry the same value (D5, D12).
        lower: whether the wire has the value in lower case (D20: ``op``).
        default: what is sent when it is not given (D20: the verb always is).
        needs: for a value, the other parameter that it requires (D23).
        free: whether any text will do.
        may_lack: whether ``None`` leaves it out.
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
        """Say what ``value`` (plain JSON) should have been, or ``None`` when it fits."""
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
    """One way to reach a capability: a path template and the parameters that go with it.

    Attributes:
        plain: whether it carries nothing but free texts and whole numbers, in path and query, as most do that only
            read.
    """

    path: str
    params: tuple[Param, ...] = ()
    plain: bool = attrs.field(init=False, default=attrs.Factory(_is_plain, takes_self=True))


@attrs.frozen(kw_only=True, eq=False)
class Capability(Generic[R_co]):
    """A capability of the service.

    Attributes:
        id: the documented id, for example ``db.project.create``.
        routes: how to reach it, in the order in which they are tried.
        returns: the model that its answer becomes; for a list, the model of one item.
        paged: whether the answer is a page of items.
        deduplicates: whether the documentation lets its body carry an ``idempotency_key``.
        public: whether it goes out without the API key (D18).
        bare: whether its answer comes without an envelope (CONTRACT.md 1.2).
        mutates: whether it changes something, and so carries an idempotency key (D4).
        resendable: whether it may be sent again after a failure that leaves open whether it was done (D19).
        params: every parameter of any generation, by its public name.
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
    """Return a capability by its seed's route; ``current`` is the route of the running service, where it differs."""
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
