"""Models in pydantic and FastAPI, which ask a class for its schema; pydantic is imported only when they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import attrs

from infrai_async.models.shown import is_secret, public_of

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core.core_schema import CoreSchema, TypedDictField


def core_schema_of(cls: type[Any], source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a model for pydantic, as the ``__get_pydantic_core_schema__`` of its class.

    An instance is valid as it is. A dict is read like a response, by pydantic's rules, with unknown fields in
    ``extra``. What goes out has neither connection URIs nor keys, so a dict may lack them: the instance then has empty
    strings there.
    """
    from pydantic_core import core_schema

    shown: CoreSchema
    given: CoreSchema
    make: Callable[[Any], Any]
    if issubclass(cls, Mapping):  # the values of all flags
        shown = given = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        make = partial(_values_made, cls)
    else:
        fields = _fields(cls, source, handler)
        secrets = frozenset(name for name, (_, secret) in fields.items() if secret)
        shown = core_schema.typed_dict_schema(
            {name: field for name, (field, secret) in fields.items() if not secret},
            extra_behavior="allow",
        )
        given = core_schema.typed_dict_schema(
            {name: field for name, (field, _) in fields.items()}, extra_behavior="allow"
        )
        make = partial(_made, cls, frozenset(fields), secrets)
    return core_schema.no_info_wrap_validator_function(
        lambda value, read: value if isinstance(value, cls) else make(read(value)),
        given,
        serialization=core_schema.plain_serializer_function_ser_schema(public_of, return_schema=shown),
        metadata={"pydantic_js_functions": [partial(_describe, cls, shown)]},
    )


def _describe(cls: type[Any], shown: CoreSchema, _: CoreSchema, handler: Any) -> Any:
    """Return the JSON schema of a model: of what goes out, without secrets, for what comes in as well."""
    return {"title": cls.__name__, **handler(shown)}


def _fields(cls: type[Any], source: Any, handler: GetCoreSchemaHandler) -> dict[str, tuple[TypedDictField, bool]]:
    """Return the schema of each field, and whether it holds a secret."""
    from pydantic_core import core_schema

    attrs.resolve_types(cls)
    arguments = get_args(source)  # of a generic class: the type of a page's items
    fields = {}
    for field in attrs.fields(cls):
        if field.name in ("extra", "metadata"):
            continue
        kind = field.type if not arguments or field.name != "items" else tuple[arguments[0], ...]  # type: ignore[valid-type]
        schema = handler.generate_schema(_in_json(kind))
        secret = is_secret(field)
        required = field.default is attrs.NOTHING and not secret
        fields[field.name] = core_schema.typed_dict_field(schema, required=required), secret
    return fields


def _in_json(kind: Any) -> Any:
    """Return the type of a field in JSON, where money is a number (contract 1.2)."""
    if kind is Decimal:
        return float
    return float | None if kind == (Decimal | None) else kind


def _made(cls: type[Any], known: frozenset[str], secrets: frozenset[str], given: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = dict.fromkeys(secrets, "") | {
        name: value for name, value in given.items() if name in known
    }
    rest = {name: value for name, value in given.items() if name not in known}
    if rest and "extra" in attrs.fields_dict(cls):
        values["extra"] = rest
    return cls(**{name: _money(cls, name, value) for name, value in values.items()})


def _values_made(cls: Any, given: Mapping[str, Any]) -> Any:
    return cls(values_by_key=given)


def _money(cls: type[Any], name: str, value: Any) -> Any:
    kind = getattr(attrs.fields_dict(cls).get(name), "type", None)
    is_money = kind is Decimal or kind == (Decimal | None)
    return Decimal(repr(value)) if is_money and isinstance(value, float) else value
