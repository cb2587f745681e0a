"""From plain JSON to models, strictly: nothing is quietly turned into another type.

cattrs is the registry. For each model, and for each set of fields that its answers come with, a function is compiled
once that reads just those in one pass (about a third of the time of a generated cattrs hook, and strict). Whatever is
not plainly right (a wrong type, a field under two names) goes to ``_explain``, the reading in full, which either copes
or says where the answer is wrong.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter

from infrai_async import _json
from infrai_async._answer import Envelope, exact, kind_of
from infrai_async._protocol.reader import Reader
from infrai_async.capabilities import Capability
from infrai_async.errors import DecodeError
from infrai_async.models import (
    NO_METADATA,
    Ack,
    FlagValue,
    FlagValues,
    Metadata,
    Model,
    Page,
    PurgeResult,
)

_json.loads(b"null")  # loads the codec: whoever imports this ahead of a call wants that too

R = TypeVar("R")
Structure: TypeAlias = Callable[[Any, Metadata | None], Any]

_MOST_SHAPES: Final = 64  # of one class: who sends more is read in full
_FLAG_ENTRY: Final = frozenset({"key", "value", "default_value", "enabled", "reason", "variant", "version"})


class _Mismatch(Exception):
    """A value of the wrong JSON type; the path to it grows while the exception rises."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__()
        self.wanted = wanted
        self.found = kind_of(value)
        self.path = ""

    def under(self, step: str) -> _Mismatch:
        self.path = step + self.path
        return self


class _Missing(_Mismatch):
    """A field that the documentation promises is not there."""


def decode(row: Capability[R], envelope: Envelope) -> R:
    """Return the model that the answer of ``row`` is.

    Raises:
        DecodeError: the answer is not what the contract promises; it names the place.
    """
    try:
        return _value(row, envelope.data, envelope.metadata, enveloped=envelope.enveloped)
    except _Mismatch as mismatch:
        raise _decode_error(mismatch, envelope.root) from None


def decode_page(row: Capability[R], envelope: Envelope) -> Page[R]:
    """Return the page that the answer of a listing is.

    Raises:
        DecodeError: as for ``decode``.
    """
    try:
        return _page(row, envelope.data, envelope.metadata)
    except _Mismatch as mismatch:
        raise _decode_error(mismatch, envelope.root) from None


def quick(row: Capability[R], body: bytes) -> R | None:
    """Return what ``decode`` would of an answer of status 200; ``None`` for what is no plain envelope, or wrong."""
    try:
        document: Any = _json.loads(body)
        if document["ok"] is True:
            return _value(row, document["data"], document.get("metadata"), enveloped=True)
    except Exception:  # noqa: BLE001 - whatever it is, the full way meets it again and words it
        return None
    return None


def quick_page(row: Capability[R], body: bytes) -> Page[R] | None:
    """As ``quick``, for what ``decode_page`` returns."""
    try:
        document: Any = _json.loads(body)
        if document["ok"] is True:
            return _page(row, document["data"], document.get("metadata"))
    except Exception:  # noqa: BLE001 - as above
        return None
    return None


VALUE: Final[Reader[Any]] = Reader(decode, quick)
PAGE: Final[Reader[Any]] = Reader(decode_page, quick_page)


def _value(row: Capability[R], data: object, metadata: object, *, enveloped: bool) -> R:
    form = _FORMS.get(row.returns)
    if form is not None:
        data = form(data, enveloped)
    return _STRUCTURERS[row.returns](data, _metadata(metadata))  # type: ignore[no-any-return]


def _page(row: Capability[R], data: object, metadata: object) -> Page[R]:
    said = _metadata(metadata)
    if not isinstance(data, dict):
        raise _Mismatch("an object with items", data)
    items, next_cursor = data.get("items"), data.get("next_cursor")
    if not isinstance(items, list):
        raise _Mismatch("a list", items).under(".items")
    if not isinstance(next_cursor, str | None):
        raise _Mismatch("a string", next_cursor).under(".next_cursor")
    return Page(items=_each(row.returns, items, said), next_cursor=next_cursor or None, metadata=said)


def _each(cls: type[R], items: list[Any], metadata: Metadata) -> tuple[R, ...]:
    structure = _STRUCTURERS[cls]
    try:
        return tuple([structure(item, metadata) for item in items])
    except _Mismatch:
        for index, item in enumerate(items):
            try:
                structure(item, metadata)
            except _Mismatch as mismatch:
                raise mismatch.under(f".items[{index}]") from None
        raise


def _decode_error(mismatch: _Mismatch, root: str) -> DecodeError:
    path = root + mismatch.path
    if isinstance(mismatch, _Missing):
        return DecodeError(f"{path}: the answer lacks it ({mismatch.wanted})", path=path)
    return DecodeError(f"{path}: expected {mismatch.wanted}, got {mismatch.found}", path=path)


def _metadata(raw: object) -> Metadata:
    if not raw and (raw is None or raw == {}):
        return NO_METADATA
    try:
        return _STRUCTURERS[Metadata](raw, None)  # type: ignore[no-any-return]
    except _Mismatch as mismatch:
        raise _decode_error(mismatch, "$.metadata") from None


def _acknowledged(data: object, enveloped: bool) -> object:
    if data is None and enveloped:
        return {"ok": True}
    return {"ok": True, **data} if isinstance(data, dict) else data


def _bare_value(data: object, _: bool) -> object:
    return {"value": data} if isinstance(data, str | int | float) else data


def _values_by_key(data: object, _: bool) -> object:
    if not isinstance(data, dict):
        return data
    inner = data["flags"] if data.keys() == {"flags"} and isinstance(data["flags"], dict) else data
    return {"values_by_key": {key: _flag_entry(value) for key, value in inner.items()}}


def _flag_entry(value: object) -> object:
    if isinstance(value, dict) and "value" in value and _FLAG_ENTRY.issuperset(value):
        return value["value"]
    return value


_FORMS: Final[Mapping[type[Any], Callable[[object, bool], object]]] = {
    Ack: _acknowledged,
    PurgeResult: _acknowledged,
    FlagValue: _bare_value,
    FlagValues: _values_by_key,
}
"""What brings the forms that data may take (D9, D10, D21), in an envelope or bare, into the one that is documented."""


# --- strict primitives -------------------------------------------------------------------------------------------


def _exactly(cls: type, wanted: str) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if value.__class__ is cls:
            return value
        raise _Mismatch(wanted, value)

    return check


def _integer(value: Any, _: Any) -> int:
    if value.__class__ is int or (value.__class__ is float and value.is_integer()):
        return int(value)
    raise _Mismatch("a whole number", value)


def _number(value: Any, _: Any) -> float:
    if value.__class__ is float or value.__class__ is int:
        return value
    raise _Mismatch("a number", value)


def _money(value: Any, _: Any) -> Decimal:
    if value.__class__ is float or value.__class__ is int:
        return exact(value)
    raise _Mismatch("a number", value)


def _time(value: Any, _: Any) -> datetime:
    if value.__class__ is str:
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    raise _Mismatch("an ISO 8601 time", value)


def _anything(value: Any, _: Any) -> Any:
    return value


# --- the registry ------------------------------------------------------------------------------------------------


def _optional(cls: Any) -> Callable[[Any, Any], Any]:
    (inner,) = (arg for arg in get_args(cls) if arg is not NoneType)
    hook = _CONVERTER.get_structure_hook(inner)
    return lambda value, _: None if value is None else hook(value, inner)


def _tuple(cls: Any) -> Callable[[Any, Any], Any]:
    inner = get_args(cls)[0]
    hook = _CONVERTER.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if value.__class__ is not list:
            raise _Mismatch("a list", value)
        return tuple([_at(f"[{index}]", hook, item, inner) for index, item in enumerate(value)])

    return structure


def _mapping(cls: Any) -> Callable[[Any, Any], Any]:
    inner = get_args(cls)[1]
    hook = _CONVERTER.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if value.__class__ is not dict:
            raise _Mismatch("an object", value)
        return {key: _at(f".{key}", hook, item, inner) for key, item in value.items()}

    return structure


def _at(step: str, hook: Callable[[Any, Any], Any], value: Any, cls: Any) -> Any:
    try:
        return hook(value, cls)
    except _Mismatch as mismatch:
        raise mismatch.under(step) from None


def _is_model(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Model | Metadata)


def _model(cls: type[Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: _STRUCTURERS[cls](value, NO_METADATA)


def _has_origin(*origins: object) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) in origins


def _registry() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook_factory(_is_model, _model)
    converter.register_structure_hook_factory(_has_origin(Union, UnionType), _optional)
    converter.register_structure_hook_factory(_has_origin(tuple), _tuple)
    converter.register_structure_hook_factory(_has_origin(Mapping), _mapping)
    for cls, hook in _PRIMITIVES.items():
        converter.register_structure_hook(cls, hook)
    # By identity: registered as a class, ``object`` would catch everything.
    converter.register_structure_hook_func(lambda cls: cls is object, _anything)
    return converter


_PRIMITIVES: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    str: _exactly(str, "a string"),
    bool: _exactly(bool, "a boolean"),
    int: _integer,
    float: _number,
    Decimal: _money,
    datetime: _time,
}
_CONVERTER: Final = _registry()


# --- a compiled function for each class and set of fields ----------------------------------------------------------


class _Structurers(dict[type[Any], Structure]):
    """For each class ``f(plain, metadata) -> cls``, raising ``_Mismatch``: the one for the fields that came last."""

    def __missing__(self, cls: type[Any]) -> Structure:
        self[cls] = made = _Shapes(cls, self).read
        return made


_STRUCTURERS: Final = _Structurers()


class _Shapes:
    """The functions of one class, by the names of the fields that they read."""

    def __init__(self, cls: type[Any], latest: _Structurers) -> None:
        attrs.resolve_types(cls)
        self._cls = cls
        self._latest = latest
        self._fields = [field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]
        self._has_metadata = issubclass(cls, Model)
        self._explain = functools.partial(_explain, cls, self._fields, self._has_metadata)
        self._made: dict[tuple[str, ...], Structure] = {}
        self._twin = None if "Mapping" in {base.__name__ for base in cls.__mro__} else _twin(cls)

    def read(self, plain: Any, metadata: Metadata | None) -> Any:
        """Read by the function for these fields, which is tried first from now on."""
        if plain.__class__ is not dict or self._twin is None:
            return self._explain(plain, metadata)
        names = tuple(plain)
        structure = self._made.get(names)
        if structure is None:
            if len(self._made) >= _MOST_SHAPES:
                return self._explain(plain, metadata)
            structure = self._made[names] = self._compile(names)
        if structure is not self._explain:
            self._latest[self._cls] = structure
        return structure(plain, metadata)

    def _compile(self, names: tuple[str, ...]) -> Structure:
        scope: dict[str, Any] = {"cls": self._cls, "twin": self._twin, "read": self.read, "explain": self._explain}
        scope |= {"exact": exact, "moment": datetime.fromisoformat}
        loads, checks, stores = [], [], []
        sources = set()
        for field in self._fields:
            name, (base, nullable), required = field.name, _split(field.type), field.default is attrs.NOTHING
            known = [source for source in (name, field.metadata.get("read_from")) if source in names]
            if len(known) == 2 or (required and not known):  # it depends on the values, or one is missing
                return self._explain
            if not known:
                stores.append(f"made.{name} = None")
                continue
            sources.add(known[0])
            loads.append(f"{name} = plain[{known[0]!r}]")
            null = f"{name} is None or " if nullable or not required else ""
            stored = _CONVERTED.get(base, "{0}").format(name)
            if base in _INLINE:
                checks.append(f"({null}{_INLINE[base].format(name)})")
            elif base not in (datetime, object):
                scope[f"hook_{name}"], scope[f"type_{name}"] = _CONVERTER.get_structure_hook(base), base
                stored = f"hook_{name}({name}, type_{name})"
            if base is datetime:  # of anything but a text, and of no time, it makes an exception
                stored = f"when = {stored}"
            if null and stored != name:
                stores.append(f"if {name} is None: made.{name} = None")
                stores.append(f"else: made.{name} = {stored}")
            else:
                stores.append(f"made.{name} = {stored}")
            if base is datetime:
                given = f"{name} is not None and " if null else ""
                stores.append(f"if {given}when.tzinfo is None: return explain(plain, metadata)")
        # All of these are read, so that where there are as many there is nothing else; but for those that nobody knows.
        these, extra = f"len(plain) == {len(names)}", "{}"
        if unknown := [name for name in names if name not in sources]:
            scope |= {"names": set(names), "unknown": unknown}
            these, extra = "plain.keys() == names", "{name: plain[name] for name in unknown}"
        lines = [
            "def structure(plain, metadata):",
            f"    if not (plain.__class__ is dict and {these}): return read(plain, metadata)",
            "    try:",
            *(f"        {load}" for load in loads or ["pass"]),
            "    except KeyError:",
            "        return read(plain, metadata)",
            f"    if not ({' and '.join(checks) or True}): return explain(plain, metadata)",
            "    made = twin()",
            "    try:",
            *(f"        {store}" for store in stores),
            "    except Exception:",
            "        return explain(plain, metadata)",
            f"    made.extra = {extra}",
            *(["    made.metadata = metadata"] if self._has_metadata else []),
            "    made.__class__ = cls",
            "    return made",
        ]
        exec("\n".join(lines), scope)  # noqa: S102 - our own fields, no input
        return scope["structure"]  # type: ignore[no-any-return]


def _twin(cls: type[Any]) -> type[Any]:
    """Return a bare class of the same layout, to be filled with plain stores before it becomes ``cls``.

    A frozen class pays ``object.__setattr__`` for each field. The twin must not inherit any of attrs' ``__init__``,
    ``__setattr__`` and ``__delattr__``: with a single one left every store, or the making, goes through Python.
    """
    plainly = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(cls.__name__, cls.__bases__, {"__slots__": cls.__slots__, **plainly})


def _explain(
    cls: type[Any], fields: list[attrs.Attribute[Any]], has_metadata: bool, plain: Any, metadata: Metadata | None
) -> Any:
    """Read ``plain`` in full: the definition of what the compiled function does quickly."""
    if plain.__class__ is not dict:
        raise _Mismatch("an object", plain)
    values: dict[str, Any] = {}
    rest = dict(plain)
    for field in fields:
        name = field.name
        other = field.metadata.get("read_from", name)
        nothing = name not in plain or (plain[name] is None and field.type is not object)
        source = other if nothing and other in plain else name
        if source in plain:
            values[name] = _at(f".{source}", _CONVERTER.get_structure_hook(field.type), plain[source], field.type)
            rest.pop(source, None)
            rest.pop(name, None)
        elif field.default is attrs.NOTHING:
            raise _Missing(_wanted(field), None).under(f".{name}")
    if has_metadata:
        values["metadata"] = metadata
    return cls(extra=rest, **values)


def _wanted(field: attrs.Attribute[Any]) -> str:
    other = field.metadata.get("read_from")
    return f"{field.name} or {other}" if other else "a field that every documented answer has"


_INLINE: Final = {
    str: "{0}.__class__ is str",
    bool: "{0}.__class__ is bool",
    int: "{0}.__class__ is int",
    float: "{0}.__class__ is float or {0}.__class__ is int",
    Decimal: "{0}.__class__ is float or {0}.__class__ is int",
}
_CONVERTED: Final = {Decimal: "exact({0})", datetime: "moment({0})"}


def _split(annotation: Any) -> tuple[Any, bool]:
    """Return the type inside ``X | None``, and whether there was one."""
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = (arg for arg in get_args(annotation) if arg is not NoneType)
        return inner, True
    return annotation, False
