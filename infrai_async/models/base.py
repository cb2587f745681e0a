"""The bases of every model: the plain JSON form, the metadata of a call, how secrets are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import attrs

if TYPE_CHECKING:
    JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
else:
    JSON = object  # what cattrs meets when it resolves the annotations: any JSON value, passed through

T_co = TypeVar("T_co", covariant=True)


def mask_uri(uri: str) -> str:
    """Return a connection URI with its password replaced by ``***``.

    Everything between the colon after the user and the last ``@`` counts as the password, so that a password with
    unescaped punctuation is not shown in part.
    """
    masked = re.sub(r"(?<=//)([^:@/]*):.*@", r"\1:***@", uri, flags=re.DOTALL)
    return re.sub(r"(?is)(password\s*=\s*)('(?:[^'\\]|\\.)*'(?![^&\s])|(?:\\.|[^&\s])+)", r"\1***", masked)


def repr_uri(uri: str) -> str:
    """Return the repr of a connection URI, its password masked."""
    return repr(mask_uri(uri))


def repr_signed(url: str) -> str:
    """Return the repr of a presigned URL without its query, which carries the signature."""
    return repr(url.partition("?")[0] + ("?***" if "?" in url else ""))


def repr_secret(_: object) -> str:
    """Return the repr of a secret, which shows nothing of it."""
    return "'***'"


def read_from(other: str) -> dict[str, str]:
    """Return the metadata of a field that is read from ``other`` when its own name is missing."""
    return {"read_from": other}


def to_plain(value: object) -> JSON:
    """Return ``value`` as plain JSON types: times as ISO 8601, money as numbers, tuples as lists."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case Model():
            return value.to_dict()
        case tuple() | list():
            return [to_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no plain JSON form")


@attrs.frozen(kw_only=True, weakref_slot=False)
class Metadata:
    """What the envelope says about the call itself (contract 1.2); any of it may be missing."""

    request_id: str | None = None
    cost_usd: Decimal | None = None
    latency_ms: float | None = None
    vendor: str | None = None
    cache_hit: bool | None = None
    extra: Mapping[str, JSON] = attrs.field(factory=dict, repr=False, hash=False)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record  # here and below: for notebooks alone

        return record(self)


NO_METADATA = Metadata()


def call_footer(metadata: Metadata) -> dict[str, object]:
    """Return what the footer of a model's table says about its call."""
    return {"request_id": metadata.request_id, "cost_usd": metadata.cost_usd}


@attrs.frozen(kw_only=True, weakref_slot=False)
class Model:
    """The base of every result.

    Attributes:
        extra: the fields that the documentation does not name, as the service sent them.
        metadata: the envelope's metadata; items of a page share their page's.
    """

    extra: Mapping[str, JSON] = attrs.field(factory=dict, repr=False, hash=False)
    metadata: Metadata = attrs.field(default=NO_METADATA, repr=False, eq=False)

    def to_dict(self) -> dict[str, JSON]:
        """Return plain JSON types: unknown fields at their own level, secrets in clear, no metadata.

        A field that is optional in the response and ``None`` is left out.
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
class Page(Generic[T_co]):
    """One page of a list: ``items``, the cursor of the next page (``None`` on the last) and the call's metadata."""

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
    """A bare acknowledgement, truthy as its ``ok`` is."""

    ok: bool

    def __bool__(self) -> bool:
        return self.ok
