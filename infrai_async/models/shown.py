"""What of a model may be shown to others: records for data frames, and JSON for web frameworks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs

from infrai_async.models.secrets import mask_signed, mask_uri, repr_secret, repr_signed, repr_uri

_SECRET_NAME: Final = re.compile(r"(?i)(^|[_\-. ])keys?($|[_\-. ])|api_?key|secret|token|passw|credential").search
_MASK: Final = "***"
_MASKS: Final[Mapping[object, Callable[[str], str]]] = {
    repr_uri: mask_uri,
    repr_signed: mask_signed,
    repr_secret: lambda _: _MASK,
}


def number_of(amount: Decimal) -> int | float:
    """Return an amount of money as the number that JSON has for it."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def is_secret(field: attrs.Attribute[Any]) -> bool:
    """Return whether a field holds a secret that no web page needs: a connection URI or an API key."""
    return field.repr in (repr_uri, repr_secret)


def record_of(value: Any, *, secrets: bool) -> Any:
    """Return a value as a dict for a data frame, or as an item of one; times stay times, and money is a number.

    Args:
        value: a model, another attrs object, or anything that one of their fields may hold.
        secrets: whether to show secrets, which are masked otherwise.
    """
    match value:
        case Decimal():
            return number_of(value)
        case tuple() | list():
            return [_unknown("", item, secrets=secrets) for item in value]
        case Mapping() if not attrs.has(type(value)):
            return {str(key): _unknown(str(key), item, secrets=secrets) for key, item in value.items()}
        case Mapping():  # a model that is a mapping, whose items are its fields
            return {str(key): _documented(item, secrets=secrets) for key, item in value.items()}
    if not attrs.has(type(value)):
        return value
    record = {
        field.name: _field(field, getattr(value, field.name), secrets=secrets)
        for field in attrs.fields(type(value))
        if field.name not in ("extra", "metadata") and not _is_absent(field, value)
    }
    extra: Mapping[str, object] = getattr(value, "extra", {})
    return record | {name: _unknown(name, item, secrets=secrets) for name, item in extra.items()}


def public_of(value: Any) -> dict[str, Any]:
    """Return the fields of a model that a web page may show: without connection URIs and keys; times stay times."""
    if isinstance(value, Mapping):
        return dict(value)
    record = {
        field.name: _public_item(getattr(value, field.name))
        for field in attrs.fields(type(value))
        if field.name not in ("extra", "metadata") and not is_secret(field) and not _is_absent(field, value)
    }
    extra: Mapping[str, object] = getattr(value, "extra", {})
    return record | {name: _unknown(name, item, secrets=False) for name, item in extra.items()}


def _public_item(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_public_item, value))
    if attrs.has(type(value)):
        return public_of(value)
    return number_of(value) if isinstance(value, Decimal) else value


def _is_absent(field: attrs.Attribute[Any], value: object) -> bool:
    return field.default is None and getattr(value, field.name) is None


def _field(field: attrs.Attribute[Any], value: object, *, secrets: bool) -> object:
    if not secrets and value is not None and field.repr is not True:
        return _MASKS[field.repr](value) if isinstance(value, str) and field.repr in _MASKS else _MASK
    return _documented(value, secrets=secrets)


def _documented(value: object, *, secrets: bool) -> object:
    """Return the value of a documented field, whose names are no sign of a secret: a variant has a ``key`` too."""
    match value:
        case tuple() | list():
            return [_documented(item, secrets=secrets) for item in value]
        case Mapping() if not attrs.has(type(value)):
            return {str(key): _documented(item, secrets=secrets) for key, item in value.items()}
    return record_of(value, secrets=secrets)


def _unknown(name: str, value: object, *, secrets: bool) -> object:
    """Return a value whose meaning nobody has documented, masked if its name or its text is like a secret's."""
    if secrets:
        return record_of(value, secrets=True)
    if _SECRET_NAME(name) and isinstance(value, str | list | tuple | Mapping):
        return _MASK
    return mask_uri(value) if isinstance(value, str) else record_of(value, secrets=False)
