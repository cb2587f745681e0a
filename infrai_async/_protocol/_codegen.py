"""Compiles functions that decode the documents of one model, one for each set of fields that occurs.

A frozen class calls ``object.__setattr__`` for every field, and a loop over the fields repeats every lookup for each
document. The steps are therefore generated and compiled once. They fill a blank instance, whose class is then set to
the model, in a third of the time. The functions accept only documents in the expected form and leave all others to the
complete decoder. For snapshots with ``id``, ``project_id``, ``created_at`` and an unknown field, this is the code::

    def one(plain, metadata):
        model = blank()
        try:
            if len(plain) != 4: raise Unlike
            value = plain[key_0]
            if value.__class__ is not str: raise Unlike
            model.id = value
            value = plain[key_1]
            if value.__class__ is not str: raise Unlike
            model.project_id = value
            value = plain[key_2]
            value = moment(value)
            if value.tzinfo is None: raise Unlike
            model.created_at = value
            model.label = None
            model.extra = {key_3: plain[key_3]}
            if is_too_deep(plain[key_3]): raise Unlike
            model.metadata = metadata
            model.__class__ = cls
        except Exception:
            return None
        return model

    def each(items, metadata, other):
        key_0, key_1, key_2, key_3 = items[0]
        found = list(starmap(blank, repeat((), len(items))))
        for number, plain, model in zip(range(len(items)), items, found):
            try:
                (the same steps)
            except Exception:
                found[number] = other(number, plain, metadata)
        return tuple(found)
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import repeat, starmap
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, TypeAlias, Union, get_args, get_origin

import attrs

from infrai_async._protocol.json import is_too_deep
from infrai_async._protocol.response import exact

Field: TypeAlias = "attrs.Attribute[Any]"
Hook: TypeAlias = Callable[[Any, Any], Any]

_MOST_PRICES: Final = 1_000
_UNLIKE: Final[Mapping[Any, str]] = {
    str: "value.__class__ is not str",
    bool: "value is not True and value is not False",
    int: "value.__class__ is not int",
    float: "value.__class__ is not float and value.__class__ is not int",
    Decimal: "value.__class__ is not float and value.__class__ is not int",
}
"""The conditions under which a value is not of a type; for times, the conversion itself raises."""
_CONVERSIONS: Final[Mapping[Any, tuple[str, ...]]] = {
    Decimal: ("value = prices[value] if value.__class__ is float and value else exact(value)",),
    datetime: (
        "value = moment(value)",  # raises for anything but a string that is a time
        "if value.tzinfo is None: raise Unlike",
    ),
}
_READ_INLINE: Final = frozenset({*_UNLIKE, *_CONVERSIONS, object})
_BOTH: Final = """\
def one(plain, metadata):
    model = blank()
    try:
{one}
    except Exception:
        return None
    return model

def each(items, metadata, other):
    {keys} = items[0]
    found = list(starmap(blank, repeat((), len(items))))
    for number, plain, model in zip(range(len(items)), items, found):
        try:
{each}
        except Exception:
            found[number] = other(number, plain, metadata)
    return tuple(found)
"""


class Unlike(Exception):
    """The document is not of the form that the function was compiled for."""


class _Prices(dict[float, Decimal]):
    """A cache of prices, because they repeat and a lookup takes a third of the time of ``exact``.

    Equal keys must have the same decimal form, so the cache holds no integers, and neither 0.0 nor -0.0.
    """

    def __missing__(self, price: float) -> Decimal:
        if len(self) >= _MOST_PRICES:
            self.clear()
        self[price] = amount = exact(price)
        return amount


_PRICES: Final = _Prices()


class Compiled(NamedTuple):
    """The functions that decode documents with a certain set of fields.

    Attributes:
        one: decodes a document, given the metadata of the response; returns ``None`` if the document does not fit.
        each: decodes a list of documents, the first of which has these fields. Its last argument is called with the
            index, the document and the metadata of every document that does not fit.
    """

    one: Callable[[Any, Any], Any]
    each: Callable[[list[Any], Any, Callable[[int, Any, Any], Any]], tuple[Any, ...]]


def fields_of(cls: type[Any]) -> list[Field]:
    """Return the fields of a model that come from the document."""
    attrs.resolve_types(cls)
    return [field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]


def compiled(cls: type[Any], names: tuple[str, ...], hook_of: Callable[[Any], Hook]) -> Compiled | None:
    """Compile the functions that decode documents with the fields ``names``.

    Args:
        cls: the model.
        names: the names of the fields in the document's order, at least one.
        hook_of: returns the converter for a type that is neither a plain value nor a time.

    Returns:
        The functions; ``None`` if a required field is missing.
    """
    source = source_of(cls, names)
    if source is None:
        return None
    scope: dict[str, Any] = {"cls": cls, "exact": exact, "prices": _PRICES, "moment": datetime.fromisoformat}
    scope |= {"Unlike": Unlike, "is_too_deep": is_too_deep}
    scope |= {"blank": _blank_class(cls), "starmap": starmap, "repeat": repeat}  # type: ignore[arg-type] # a class is hashable
    scope |= {f"key_{number}": name for number, name in enumerate(names)}
    for field in fields_of(cls):
        base, _ = _split(field.type)
        if base not in _READ_INLINE:
            scope |= {f"hook_{field.name}": hook_of(base), f"type_{field.name}": base}
    exec(source, scope)  # noqa: S102 - the source contains names of model fields only, and nothing of a document
    return Compiled(scope["one"], scope["each"])


def source_of(cls: type[Any], names: tuple[str, ...]) -> str | None:
    """Return the source of ``one`` and ``each``; ``None`` if a required field is missing."""
    keys = {name: f"key_{number}" for number, name in enumerate(names)}
    unknown = dict(keys)
    lines = [f"if len(plain) != {len(names)}: raise Unlike"]  # every name is read below, so no other field remains
    for field in fields_of(cls):
        known = [name for name in (field.name, field.metadata.get("read_from")) if name in keys]
        if known:
            unknown.pop(known[0], None)
            lines += _steps(field, keys[known[0]], contested=len(known) == 2)
        elif field.default is attrs.NOTHING:
            return None
        else:
            lines.append(f"model.{field.name} = None")
    lines.append(f"model.extra = {{{', '.join(f'{key}: plain[{key}]' for key in unknown.values())}}}")
    lines += [f"if is_too_deep(plain[{key}]): raise Unlike" for key in unknown.values()]
    if "metadata" in attrs.fields_dict(cls):
        lines.append("model.metadata = metadata")
    steps = "\n".join([*lines, "model.__class__ = cls"])
    one, each = (textwrap.indent(steps, " " * depth) for depth in (8, 12))
    return _BOTH.format(one=one, each=each, keys=", ".join(keys.values()) + "," * (len(keys) == 1))


def _steps(field: Field, key: str, *, contested: bool) -> list[str]:
    """Return the steps that decode a field; if it came under both of its names, a null refers to the other one."""
    base, nullable = _split(field.type)
    may_be_null = (nullable or field.default is not attrs.NOTHING) and not contested and base is not object
    steps = []
    if base is object:
        steps.append("if is_too_deep(value): raise Unlike")
    if base in _UNLIKE:
        steps.append(f"if {_UNLIKE[base]}{' and value is not None' if may_be_null else ''}: raise Unlike")
    conversion = _CONVERSIONS.get(base, ())
    if base not in _READ_INLINE:
        conversion = (f"value = hook_{field.name}(value, type_{field.name})",)
    if conversion and may_be_null:
        conversion = ("if value is not None:", *(f"    {step}" for step in conversion))
    return [f"value = plain[{key}]", *steps, *conversion, f"model.{field.name} = value"]


def _split(annotation: Any) -> tuple[Any, bool]:
    """Return the type ``X`` of ``X | None``, and whether ``None`` is allowed."""
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = (arg for arg in get_args(annotation) if arg is not NoneType)
        return inner, True
    return annotation, False


@functools.cache
def _blank_class(cls: type[Any]) -> type[Any]:
    """Return a class of the same layout, whose instances are filled by plain stores before they become ``cls``.

    It must inherit none of attrs' ``__init__``, ``__setattr__`` and ``__delattr__``: with any of them, each store or
    each instantiation would run Python code.
    """
    plainly = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(cls.__name__, (cls,), {"__slots__": (), **plainly})
