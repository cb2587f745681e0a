"""Functions that read the documents of one model, for each set of fields that they come with.

A frozen class pays ``object.__setattr__`` for every field, and a loop over the fields looks everything up again for
each document. So the steps are written out once, compiled, and fill a blank that then becomes the model: a third
of the time. These functions know what is plainly right and leave all else to others. For snapshots that come with
``id``, ``project_id``, ``created_at`` and a field that nobody knows, this is what runs::

    def one(plain, metadata):
        made = blank()
        try:
            if len(plain) != 4: raise Unlike
            value = plain[key_0]
            if value.__class__ is not str: raise Unlike
            made.id = value
            value = plain[key_1]
            if value.__class__ is not str: raise Unlike
            made.project_id = value
            value = plain[key_2]
            value = moment(value)
            if value.tzinfo is None: raise Unlike
            made.created_at = value
            made.label = None
            made.extra = {key_3: plain[key_3]}
            made.metadata = metadata
            made.__class__ = cls
        except Exception:
            return None
        return made

    def each(items, metadata, other):
        key_0, key_1, key_2, key_3 = items[0]
        found = list(starmap(blank, repeat((), len(items))))
        for number, plain, made in zip(range(len(items)), items, found):
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
"""When a value is not plainly of a type; a time shows that when it is made."""
_CONVERSIONS: Final[Mapping[Any, tuple[str, ...]]] = {
    Decimal: ("value = prices[value] if value.__class__ is float and value else exact(value)",),
    datetime: (
        "value = moment(value)",  # of anything but a text, and of no time, it makes an exception
        "if value.tzinfo is None: raise Unlike",
    ),
}
_READ_INLINE: Final = frozenset({*_UNLIKE, *_CONVERSIONS, object})
_BOTH: Final = """\
def one(plain, metadata):
    made = blank()
    try:
{one}
    except Exception:
        return None
    return made

def each(items, metadata, other):
    {keys} = items[0]
    found = list(starmap(blank, repeat((), len(items))))
    for number, plain, made in zip(range(len(items)), items, found):
        try:
{each}
        except Exception:
            found[number] = other(number, plain, metadata)
    return tuple(found)
"""


class Unlike(Exception):
    """What was read is not plainly what the function is for."""


class _Prices(dict[float, Decimal]):
    """Prices repeat, and this finds one in a third of the time that ``exact`` takes.

    Equal keys have to be written alike, so that it holds no integer, and neither 0.0 nor -0.0.
    """

    def __missing__(self, price: float) -> Decimal:
        if len(self) >= _MOST_PRICES:
            self.clear()
        self[price] = amount = exact(price)
        return amount


_PRICES: Final = _Prices()


class Compiled(NamedTuple):
    """What reads documents with a certain set of fields.

    Attributes:
        one: takes a document and the metadata of the answer; ``None`` where it is not plainly right.
        each: takes a list, the first of which has these fields; of what is not plainly right it makes what its last
            argument does, which also gets its place.
    """

    one: Callable[[Any, Any], Any]
    each: Callable[[list[Any], Any, Callable[[int, Any, Any], Any]], tuple[Any, ...]]


def fields_of(cls: type[Any]) -> list[Field]:
    """Return the fields of a model that a document has."""
    attrs.resolve_types(cls)
    return [field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]


def compiled(cls: type[Any], names: tuple[str, ...], hook_of: Callable[[Any], Hook]) -> Compiled | None:
    """Compile what reads documents with the fields ``names``, of which there must be one.

    Args:
        cls: the model.
        names: as a document has them, in its order.
        hook_of: gives what reads a type that is neither a plain value nor a time.

    Returns:
        ``None`` where one is missing that must be there.
    """
    source = source_of(cls, names)
    if source is None:
        return None
    scope: dict[str, Any] = {"cls": cls, "exact": exact, "prices": _PRICES, "moment": datetime.fromisoformat}
    scope |= {"Unlike": Unlike}
    scope |= {"blank": _blank_class(cls), "starmap": starmap, "repeat": repeat}  # type: ignore[arg-type] # a class is hashable
    scope |= {f"key_{number}": name for number, name in enumerate(names)}
    for field in fields_of(cls):
        base, _ = _split(field.type)
        if base not in _READ_INLINE:
            scope |= {f"hook_{field.name}": hook_of(base), f"type_{field.name}": base}
    exec(source, scope)  # noqa: S102 - it holds the names of our own fields, and nothing of a document
    return Compiled(scope["one"], scope["each"])


def source_of(cls: type[Any], names: tuple[str, ...]) -> str | None:
    """Return the source of ``one`` and ``each``, or ``None`` as ``compiled`` does."""
    keys = {name: f"key_{number}" for number, name in enumerate(names)}
    unknown = dict(keys)
    lines = [f"if len(plain) != {len(names)}: raise Unlike"]  # all of them are read, so that there is nothing else
    for field in fields_of(cls):
        known = [name for name in (field.name, field.metadata.get("read_from")) if name in keys]
        if known:
            unknown.pop(known[0], None)
            lines += _steps(field, keys[known[0]], contested=len(known) == 2)
        elif field.default is attrs.NOTHING:
            return None
        else:
            lines.append(f"made.{field.name} = None")
    lines.append(f"made.extra = {{{', '.join(f'{key}: plain[{key}]' for key in unknown.values())}}}")
    if "metadata" in attrs.fields_dict(cls):
        lines.append("made.metadata = metadata")
    steps = "\n".join([*lines, "made.__class__ = cls"])
    one, each = (textwrap.indent(steps, " " * depth) for depth in (8, 12))
    return _BOTH.format(one=one, each=each, keys=", ".join(keys.values()) + "," * (len(keys) == 1))


def _steps(field: Field, key: str, *, contested: bool) -> list[str]:
    """Return the steps that read a field; where it came under two names, a null leaves it to the other one."""
    base, nullable = _split(field.type)
    may_be_null = (nullable or field.default is not attrs.NOTHING) and not contested and base is not object
    steps = []
    if base in _UNLIKE:
        steps.append(f"if {_UNLIKE[base]}{' and value is not None' if may_be_null else ''}: raise Unlike")
    conversion = _CONVERSIONS.get(base, ())
    if base not in _READ_INLINE:
        conversion = (f"value = hook_{field.name}(value, type_{field.name})",)
    if conversion and may_be_null:
        conversion = ("if value is not None:", *(f"    {step}" for step in conversion))
    return [f"value = plain[{key}]", *steps, *conversion, f"made.{field.name} = value"]


def _split(annotation: Any) -> tuple[Any, bool]:
    """Return the type inside ``X | None``, and whether there was one."""
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = (arg for arg in get_args(annotation) if arg is not NoneType)
        return inner, True
    return annotation, False


@functools.cache
def _blank_class(cls: type[Any]) -> type[Any]:
    """Return a class of the same layout, to be filled with plain stores before it becomes ``cls``.

    It must not inherit any of attrs' ``__init__``, ``__setattr__`` and ``__delattr__``: with a single one left every
    store, or the making, goes through Python.
    """
    plainly = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(cls.__name__, (cls,), {"__slots__": (), **plainly})
