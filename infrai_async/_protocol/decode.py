"""Strict decoding of JSON to models: no value is silently converted to another type.

cattrs is the registry of the converters. Documents in the expected form are read by functions compiled for the model
and the set of fields (``_protocol._codegen``). All others (a wrong type, a time without a zone) go to ``_explain``,
the complete decoder, which either reads them or raises an error that names the wrong place.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter

from infrai_async._protocol import json
from infrai_async._protocol._codegen import Compiled, Field, compiled, fields_of
from infrai_async._protocol.reader import ResponseReader
from infrai_async._protocol.response import Envelope, exact, kind_of
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

json.loads(b"null")  # imports the codec now, because modules that import this one early want that too

R = TypeVar("R")

_MOST_SHAPES: Final = 64  # sets of fields of one model that functions are compiled for
_MOST_FIELDS: Final = 100  # fields of one document; with more, the complete decoder reads it
_FLAG_ENTRY: Final = frozenset({"key", "value", "default_value", "enabled", "reason", "variant", "version"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,23}", re.ASCII).fullmatch


class _Mismatch(Exception):
    """A value has the wrong JSON type. The path to it is built while the exception propagates."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__()
        self.wanted = wanted
        self.found = kind_of(value)
        self.path = ""

    def under(self, step: str) -> _Mismatch:
        self.path = step + self.path
        return self


class _Missing(_Mismatch):
    """A field that the API documents as always present is missing."""


def decode(capability: Capability[R], envelope: Envelope) -> R:
    """Decode the response of ``capability`` to its model.

    Raises:
        DecodeError: the response does not have the documented form; the message names the path of the fault.
    """
    try:
        return _value(capability, envelope.data, envelope.metadata, envelope.enveloped)
    except _Mismatch as mismatch:
        raise _decode_error(mismatch, envelope.root) from None


def decode_page(capability: Capability[R], envelope: Envelope) -> Page[R]:
    """Decode the response of a listing to a page.

    Raises:
        DecodeError: as for ``decode``.
    """
    try:
        return _page(capability, envelope.data, envelope.metadata)
    except _Mismatch as mismatch:
        raise _decode_error(mismatch, envelope.root) from None


def quick(capability: Capability[R], body: bytes) -> R | None:
    """Decode a body of status 200 as ``decode`` does; return ``None`` unless it is a valid envelope."""
    try:
        document: Any = json.loads(body)
        if document["ok"] is True:
            return _value(capability, document["data"], document.get("metadata"), True)
    except Exception:  # noqa: BLE001 - the complete decoder meets any fault again and reports it
        return None
    return None


def quick_page(capability: Capability[R], body: bytes) -> Page[R] | None:
    """Decode a page of status 200 as ``decode_page`` does; return ``None`` unless it is a valid envelope."""
    try:
        document: Any = json.loads(body)
        if document["ok"] is True:
            return _page(capability, document["data"], document.get("metadata"))
    except Exception:  # noqa: BLE001 - as above
        return None
    return None


VALUE: Final[ResponseReader[Any]] = ResponseReader(decode, quick)
PAGE: Final[ResponseReader[Any]] = ResponseReader(decode_page, quick_page)


def _value(capability: Capability[R], data: object, metadata: object, enveloped: bool) -> R:
    reader = _READERS[capability.returns]
    if reader.form is not None:
        data = reader.form(data, enveloped)
    parsed = _METADATA.last(metadata, None) or _metadata(metadata)
    model = reader.last(data, parsed)  # nearly always succeeds
    return reader.read(data, parsed) if model is None else model  # type: ignore[no-any-return]


def _page(capability: Capability[R], data: object, metadata: object) -> Page[R]:
    parsed = _metadata(metadata)
    if not isinstance(data, dict):
        raise _Mismatch("an object with items", data)
    items, next_cursor = data.get("items"), data.get("next_cursor")
    if not isinstance(items, list):
        raise _Mismatch("a list", items).under(".items")
    if not isinstance(next_cursor, str | None):
        raise _Mismatch("a string", next_cursor).under(".next_cursor")
    return Page(
        items=_READERS[capability.returns].read_each(items, parsed), next_cursor=next_cursor or None, metadata=parsed
    )


def _decode_error(mismatch: _Mismatch, root: str) -> DecodeError:
    path = root + mismatch.path
    if isinstance(mismatch, _Missing):
        return DecodeError(f"{path}: missing in the response ({mismatch.wanted})", path=path)
    return DecodeError(f"{path}: expected {mismatch.wanted}, got {mismatch.found}", path=path)


def _metadata(raw: object) -> Metadata:
    if not raw and (raw is None or raw == {}):
        return NO_METADATA
    try:
        return _METADATA.read(raw, None)  # type: ignore[no-any-return]
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
"""Converters of other accepted forms of data (D9, D10, D21), in an envelope or bare, to the documented form."""


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
    if json.is_too_deep(value):
        raise _Mismatch(f"at most {json.NESTING} levels of nesting", value)
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
        return {key: _at(f".{_step(key)}", hook, item, inner) for key, item in value.items()}

    return structure


def _step(key: str) -> str:
    """Return a key of a response as a path may quote it: ``*`` unless it looks like a name."""
    return key if _NAME(key) else "*"


def _at(step: str, hook: Callable[[Any, Any], Any], value: Any, cls: Any) -> Any:
    try:
        return hook(value, cls)
    except _Mismatch as mismatch:
        raise mismatch.under(step) from None


def _is_model(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Model | Metadata)


def _model(cls: type[Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: _READERS[cls].read(value, NO_METADATA)


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


# --- the readers of models -----------------------------------------------------------------------------------------


class _ModelReader:
    """Decodes the documents of one model, by a compiled function if possible, else completely.

    Attributes:
        form: converts other accepted forms of data to the documented form; ``None`` if there are none.
        last: the compiled function that was used last; it returns ``None`` for a document that it does not fit.
    """

    def __init__(self, cls: type[Any]) -> None:
        self.form = _FORMS.get(cls)
        self._cls = cls
        self._fields = fields_of(cls)
        self.last: Callable[[Any, Any], Any] = _not_yet
        self._compiled: dict[tuple[str, ...], Compiled | None] = {}

    def read(self, plain: Any, metadata: Metadata | None) -> Any:
        """Decode one document.

        Raises:
            _Mismatch: a value is missing or of the wrong type.
        """
        model = self.last(plain, metadata)
        if model is None:
            functions = self._for_fields_of(plain)
            if functions is not None and functions.one is not self.last:
                self.last = functions.one
                model = functions.one(plain, metadata)
        return _explain(self._cls, self._fields, plain, metadata) if model is None else model

    def read_each(self, items: list[Any], metadata: Metadata) -> tuple[Any, ...]:
        """Decode the documents of a page, which mostly have the same fields."""
        functions = self._for_fields_of(items[0]) if items else None
        if functions is not None:
            return functions.each(items, metadata, self._read_item)
        return tuple([self._read_item(number, item, metadata) for number, item in enumerate(items)])

    def _read_item(self, number: int, item: Any, metadata: Metadata) -> Any:
        return _at(f".items[{number}]", self.read, item, metadata)

    def _for_fields_of(self, plain: Any) -> Compiled | None:
        if plain.__class__ is not dict or not 0 < len(plain) <= _MOST_FIELDS:
            return None
        names = tuple(plain)
        if names not in self._compiled:
            if len(self._compiled) >= _MOST_SHAPES:
                return None
            self._compiled[names] = compiled(self._cls, names, _CONVERTER.get_structure_hook)
        return self._compiled[names]


def _not_yet(plain: Any, metadata: Metadata | None) -> None:
    """Return ``None``: the initial value of ``last``, before any function is compiled."""


class _Readers(dict[type[Any], _ModelReader]):
    """The readers by model, created on first use."""

    def __missing__(self, cls: type[Any]) -> _ModelReader:
        self[cls] = reader = _ModelReader(cls)
        return reader


_READERS: Final = _Readers()
_METADATA: Final = _READERS[Metadata]


def _explain(cls: type[Any], fields: list[Field], plain: Any, metadata: Metadata | None) -> Any:
    """Decode ``plain`` completely. This is the reference for the compiled functions, which only do it faster."""
    if plain.__class__ is not dict:
        raise _Mismatch("an object", plain)
    values: dict[str, Any] = {}
    rest = dict(plain)
    for field in fields:
        name = field.name
        other = field.metadata.get("read_from", name)
        absent = name not in plain or (plain[name] is None and field.type is not object)
        source = other if absent and other in plain else name
        if source in plain:
            values[name] = _at(f".{source}", _CONVERTER.get_structure_hook(field.type), plain[source], field.type)
            rest.pop(source, None)
            rest.pop(name, None)
        elif field.default is attrs.NOTHING:
            raise _Missing(_wanted(field), None).under(f".{name}")
    if issubclass(cls, Model):
        values["metadata"] = metadata
    return cls(extra={name: _at(".*", _anything, value, object) for name, value in rest.items()}, **values)


def _wanted(field: Field) -> str:
    other = field.metadata.get("read_from")
    return f"{field.name} or {other}" if other else "every documented response has this field"
