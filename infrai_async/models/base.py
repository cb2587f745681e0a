"""Base classes of the models: conversion to plain JSON, and metadata of a call."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import attrs

from infrai_async.models.shown import number_of

if TYPE_CHECKING:
    JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
else:
    JSON = object  # cattrs resolves annotations at run time; as ``object`` it passes any JSON value through

T_co = TypeVar("T_co", covariant=True)


def read_from(other: str) -> dict[str, str]:
    """Return the attrs metadata of a field that is read from ``other`` when its own name is missing."""
    return {"read_from": other}


def to_plain(value: object) -> JSON:
    """Return ``value`` as plain JSON types: times as ISO 8601, money as numbers, tuples as lists."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return number_of(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case Model():
            return value.to_dict()
        case tuple() | list():
            return [to_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no plain JSON form")


class Shown:
    """Base class of what pydantic and FastAPI take as results and response models, without connection URIs and keys."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from infrai_async.models.pydantic_schema import core_schema_of  # imported here, because only pydantic asks

        return core_schema_of(cls, source, handler)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Metadata(Shown):
    """What the service reports about a call (contract 1.2); any field may be missing.

    Attributes:
        request_id: the service's id of the call, to quote to its support.
        cost_usd: cost of the call in US dollars.
        latency_ms: time the service took, in milliseconds.
        vendor: provider that served the call.
        cache_hit: whether the response came from a cache.
        extra: fields that the documentation does not name, as the service sent them.

    Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#12-success-envelope
    """

    request_id: str | None = None
    cost_usd: Decimal | None = None
    latency_ms: float | None = None
    vendor: str | None = None
    cache_hit: bool | None = None
    extra: Mapping[str, JSON] = attrs.field(factory=dict, repr=False, hash=False)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record  # imported here, as below, because only notebooks need it

        return record(self)


NO_METADATA = Metadata()


def call_footer(metadata: Metadata) -> dict[str, object]:
    """Return the fields of the footer below a model's table: facts about its call."""
    return {"request_id": metadata.request_id, "cost_usd": metadata.cost_usd}


@attrs.frozen(kw_only=True, weakref_slot=False)
class Model(Shown):
    """Base class of all results.

    Attributes:
        extra: fields that the documentation does not name, as the service sent them.
        metadata: metadata of the call; the items of a page share the metadata of the page.
    """

    extra: Mapping[str, JSON] = attrs.field(factory=dict, repr=False, hash=False)
    metadata: Metadata = attrs.field(default=NO_METADATA, repr=False, eq=False)

    def to_dict(self) -> dict[str, JSON]:
        """Return the model as plain JSON types. Secrets, such as connection URIs, are not masked.

        Returns:
            A dict of the fields, unknown ones (``extra``) at the same level; without ``metadata``, and without
            optional fields that are ``None``.
        """
        plain: dict[str, JSON] = {}
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if field.name in ("extra", "metadata") or (value is None and field.default is None):
                continue
            plain[field.name] = to_plain(value)
        plain.update(self.extra)
        return plain

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record

        return record(self, footer=call_footer(self.metadata))


@attrs.frozen(kw_only=True, weakref_slot=False)
class Page(Shown, Generic[T_co]):
    """One page of a listing.

    Attributes:
        items: the items, in order.
        next_cursor: cursor of the next page; ``None`` on the last page.
        metadata: metadata of the call that fetched the page.
    """

    items: tuple[T_co, ...] = ()
    next_cursor: str | None = None
    metadata: Metadata = attrs.field(default=NO_METADATA, repr=False, eq=False)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import table

        footer = {"next_cursor": self.next_cursor, **call_footer(self.metadata)}
        return table(self.items, empty="an empty page", footer=footer)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Ack(Model):
    """An acknowledgement; its truth value is that of ``ok``."""

    ok: bool

    def __bool__(self) -> bool:
        return self.ok
