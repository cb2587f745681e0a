"""Models in pydantic and FastAPI, which ask a class for its schema; pydantic is imported only when they do."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

import attrs

from infrai_async.models.shown import is_secret, public_of

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core.core_schema import CoreSchema, TypedDictField

_MASK = "***"


def core_schema_of(cls: type[Any], source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a model for pydantic, as the ``__get_pydantic_core_schema__`` of its class.

    An instance is valid as it is. A dict is read like a response: no value becomes one of another type, a time without
    a zone is in UTC, and unknown fields land in ``extra``. What goes out has neither connection URIs nor keys, so a
    dict may lack them: the instance then has empty strings there.
    """
    from pydantic_core import core_schema

    shown: CoreSchema
    given: CoreSchema
    make: Callable[[Any, Callable[[Any], Any]], Any]
    if issubclass(cls, Mapping):  # the values of all flags
        shown = given = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        make = partial(_values_made, cls)
    else:
        fields = _fields(cls, source, handler)
        shown = core_schema.typed_dict_schema(
            {name: field for name, field in fields.items() if not is_secret(attrs.fields_dict(cls)[name])},
            extra_behavior="allow",
        )
        given = core_schema.typed_dict_schema(fields)
        make = partial(_made, cls)

    def validate(value: Any, read: Callable[[Any], Any]) -> Any:
        return value if isinstance(value, cls) else make(value, read)

    validate.__name__ = cls.__name__  # the title of the errors
    return core_schema.no_info_wrap_validator_function(
        validate,
        given,
        ref=_reference(cls, source),
        serialization=core_schema.plain_serializer_function_ser_schema(public_of, return_schema=shown),
        metadata={"pydantic_js_functions": [partial(_describe, cls, shown)]},
    )


def _reference(cls: type[Any], source: Any) -> str:
    """Return the name under which schemas refer to a model instead of repeating it, in the form of pydantic's own."""
    name = f"{cls.__module__}.{cls.__qualname__}:{id(cls)}"
    arguments = ",".join(f"{getattr(kind, '__qualname__', kind)}:{id(kind)}" for kind in get_args(source))
    return f"{name}[{arguments}]" if arguments else name


def _describe(cls: type[Any], shown: CoreSchema, _: CoreSchema, handler: Any) -> Any:
    """Return the JSON schema of a model: of what goes out, without secrets, for what comes in as well."""
    description = re.split(r"[.:;]", inspect.getdoc(cls) or "", maxsplit=1)[0]  # the rest is about Python
    return {"title": cls.__name__, "description": description, **handler(shown)}


def _fields(cls: type[Any], source: Any, handler: GetCoreSchemaHandler) -> dict[str, TypedDictField]:
    from pydantic_core import core_schema

    attrs.resolve_types(cls)
    arguments = get_args(source)  # of a generic class: the type of a page's items
    fields = {}
    for field in attrs.fields(cls):
        if field.name in ("extra", "metadata"):
            continue
        kind = field.type if not arguments or field.name != "items" else tuple[arguments[0], ...]  # type: ignore[valid-type]
        required = field.default is attrs.NOTHING and not is_secret(field)
        fields[field.name] = core_schema.typed_dict_field(_schema_of(kind, handler), required=required)
    return fields


def _schema_of(kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a field, which is strict where pydantic would convert texts, numbers and booleans."""
    from pydantic_core import core_schema

    inner = [one for one in get_args(kind) if one is not NoneType]
    if len(inner) == 1 and NoneType in get_args(kind):
        return core_schema.nullable_schema(_schema_of(inner[0], handler))
    if kind is bool:
        return core_schema.bool_schema(strict=True)
    if kind is int:
        return core_schema.int_schema(strict=True)
    if kind is float:
        return core_schema.float_schema(strict=True)
    if kind is Decimal:  # a number in JSON (contract 1.2)
        return core_schema.no_info_wrap_validator_function(_money, core_schema.float_schema(strict=True))
    if kind is datetime:
        return core_schema.no_info_wrap_validator_function(_time, core_schema.datetime_schema())
    return handler.generate_schema(kind)


def _money(value: Any, read: Callable[[Any], float]) -> Decimal:
    if value.__class__ is Decimal or value.__class__ is int:
        return Decimal(value)
    return Decimal(repr(read(value)))


def _time(value: Any, read: Callable[[Any], datetime]) -> datetime:
    from pydantic_core import PydanticCustomError

    if not isinstance(value, str | datetime):  # pydantic would take numbers for seconds since 1970
        raise PydanticCustomError("datetime_type", "Input should be an ISO 8601 time")
    moment = read(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _made(cls: type[Any], value: Any, read: Callable[[Any], Any]) -> Any:
    """Make a model of a dict; secrets and unknown fields are kept from pydantic, whose errors quote what it reads."""
    if not isinstance(value, dict):
        return read(value)  # raises
    fields = {field.name: field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")}
    rest = dict(value)
    given: dict[str, Any] = {}
    secrets: dict[str, str] = {name: "" for name, field in fields.items() if is_secret(field)}
    for name, field in fields.items():
        other = field.metadata.get("read_from", name)
        source = name if rest.get(name) is not None or other not in rest else other
        if source in rest:
            given[name] = rest.pop(source)
            rest.pop(name, None)
        if name in secrets and isinstance(given.get(name), str):
            secrets[name], given[name] = given[name], _MASK
    made = {**read(given), **secrets}
    return cls(**made, extra=rest) if rest and "extra" in attrs.fields_dict(cls) else cls(**made)


def _values_made(cls: Any, value: Any, read: Callable[[Any], Any]) -> Any:
    return cls(values_by_key=read(value))
