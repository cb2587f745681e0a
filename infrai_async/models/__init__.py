"""What the API answers: frozen, slotted values, one class for each documented type (CONTRACT.md 2.8).

A field without a default is one that every documented answer of its type carries; it may still be nullable.
A field with a default of ``None`` may be missing. What the documentation does not name lands in ``extra``, and
values of an enumeration stay the strings they came as, so that an answer of tomorrow still reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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

    Reads generously: everything between the user's colon and the last ``@`` is taken to be the password, so that one
    with unescaped punctuation is not half shown.
    """
    masked = re.sub(r"(?<=//)([^:@/]*):.*@", r"\1:***@", uri, flags=re.DOTALL)
    return re.sub(r"(?is)(password\s*=\s*)('(?:[^'\\]|\\.)*'(?![^&\s])|(?:\\.|[^&\s])+)", r"\1***", masked)


def _repr_uri(uri: str) -> str:
    return repr(mask_uri(uri))


def _repr_signed(url: str) -> str:
    return repr(url.partition("?")[0] + ("?***" if "?" in url else ""))


def _repr_secret(_: object) -> str:
    return "'***'"


def read_from(other: str) -> dict[str, str]:
    """Field metadata: where the field's own name is missing, it is read from ``other``."""
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
    """What the envelope says about the call itself (CONTRACT.md 1.2); any of it may be missing."""

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


def _call(metadata: Metadata) -> dict[str, object]:
    """What the table of an answer says about its call."""
    return {"request_id": metadata.request_id, "cost_usd": metadata.cost_usd}


@attrs.frozen(kw_only=True, weakref_slot=False)
class Model:
    """The base of every result.

    Attributes:
        extra: fields that the documentation does not name, as they came.
        metadata: the envelope's metadata; items of a page share their page's.
    """

    extra: Mapping[str, JSON] = attrs.field(factory=dict, repr=False, hash=False)
    metadata: Metadata = attrs.field(default=NO_METADATA, repr=False, eq=False)

    def to_dict(self) -> dict[str, JSON]:
        """Return plain JSON types: unknown fields at their own level, secrets in clear, no metadata.

        A field that the answer need not carry and that is ``None`` is left out.
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

        return record(self, footer=_call(self.metadata))


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

        footer = {"next_cursor": self.next_cursor, **_call(self.metadata)}
        return table(self.items, empty="an empty page", footer=footer)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Ack(Model):
    """A bare acknowledgement, truthy as its ``ok`` is."""

    ok: bool

    def __bool__(self) -> bool:
        return self.ok


@attrs.frozen(kw_only=True, weakref_slot=False)
class Project(Model):
    """A Postgres project. ``connection_uri`` works as it is; ``masked_uri`` is safe to print."""

    id: str
    name: str
    connection_uri: str = attrs.field(repr=_repr_uri)
    region: str | None = None
    created_at: datetime | None = None
    vendor: str | None = None
    plan: str | None = None
    mode: str | None = None
    postgres_version: str | None = None
    status: str | None = None

    @property
    def masked_uri(self) -> str:
        """``connection_uri`` with its password masked."""
        return mask_uri(self.connection_uri)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Branch(Model):
    """A copy-on-write branch of a project, a database of its own."""

    id: str
    branch_name: str
    project_id: str
    connection_uri: str = attrs.field(repr=_repr_uri)
    from_branch: str | None = None
    created_at: datetime | None = None

    @property
    def masked_uri(self) -> str:
        """``connection_uri`` with its password masked."""
        return mask_uri(self.connection_uri)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Snapshot(Model):
    """A frozen copy of a project at one point in time."""

    id: str
    project_id: str
    created_at: datetime
    label: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class ProjectInventory:
    """A project with all its branches and snapshots."""

    project: Project
    branches: tuple[Branch, ...]
    snapshots: tuple[Snapshot, ...]

    def to_dict(self) -> dict[str, JSON]:
        """Return plain JSON types, as the models' own ``to_dict`` does: connection URIs stand in clear."""
        return {
            "project": self.project.to_dict(),
            "branches": to_plain(self.branches),
            "snapshots": to_plain(self.snapshots),
        }

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record

        has = {"branches": len(self.branches), "snapshots": len(self.snapshots)}
        return record(self.project, footer={**has, **_call(self.project.metadata)})


@attrs.frozen(kw_only=True, weakref_slot=False)
class Bucket(Model):
    """An object-storage bucket."""

    bucket: str = attrs.field(metadata=read_from("name"))
    vendor: str
    region: str
    created_at: datetime
    acl: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class PresignedUrl(Model):
    """A URL that carries its own authority: send bytes to it (PUT) or fetch it (GET) without the API key.

    ``headers`` must go along with the request as they are.
    """

    url: str = attrs.field(repr=_repr_signed)
    method: str
    expires_at: datetime
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False, hash=False)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Distribution(Model):
    """A CDN distribution in front of an origin."""

    distribution_id: str
    origin: str
    domain: str | None
    enabled: bool
    status: str
    edge_url: str | None = None
    edge_hostname: str | None = attrs.field(default=None, metadata=read_from("cname_target"))
    cache_ttl_seconds: int | None = None
    allowed_methods: tuple[str, ...] | None = None
    https_only: bool | None = None
    tags: tuple[str, ...] | None = None
    vendor: str | None = None
    created_at: datetime | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class PurgeResult(Ack):
    """A purge that was taken on, truthy as its ``ok`` is."""

    purge_id: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class CacheStats(Model):
    """Delivery figures of a time range; ``hit_ratio`` lies between 0 and 1."""

    requests: int
    bytes_served: int
    hit_ratio: float
    hits: int | None = None
    misses: int | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class Variant:
    """One arm of a roll-out: ``weight`` is relative to the sum of all weights."""

    key: str
    value: JSON
    weight: float = 1

    def to_dict(self) -> dict[str, JSON]:
        """Return the plain JSON form that the API takes."""
        return {"key": self.key, "value": self.value, "weight": self.weight}


@attrs.frozen(kw_only=True, weakref_slot=False)
class FlagRule:
    """Serve something to whom ``attribute operator value`` holds for; the first rule that holds wins.

    Conditions that are combined (``all``, ``any``, ``not``) are written as plain dicts, which go wherever a rule goes.

    Attributes:
        attribute: ``user_id``, or a name in the context, such as ``plan`` or ``app.version``.
        operator: such as ``eq``, ``in`` or ``semver_gte``; ``not_`` before it asks the opposite.
        value: what the attribute is compared with.
        serve: what the flag is for them.
        values: instead of ``value``, any of several.
        negate: ask the opposite.
        ignore_case: take texts for equal that differ in case only.
        variant: instead of ``serve``, the name of a variant of the flag's roll-out.
        rollout: serve only a share of them, and its variants if it has any; the rest goes on to the next rule.
    """

    attribute: str
    operator: str
    value: JSON = None
    serve: JSON = True
    values: tuple[JSON, ...] | None = None
    negate: bool = False
    ignore_case: bool = False
    variant: str | None = None
    rollout: RolloutConfig | None = None

    def to_dict(self) -> dict[str, JSON]:
        """Return the plain JSON form that the API takes."""
        plain: dict[str, JSON] = {"attribute": self.attribute, "operator": self.operator}
        if self.values is not None:
            plain["values"] = list(self.values)
        if self.values is None or self.value is not None:
            plain["value"] = self.value
        plain |= {name: True for name in ("negate", "ignore_case") if getattr(self, name)}
        if self.rollout is not None:
            plain["rollout"] = self.rollout.to_dict()
        if self.variant is not None:
            plain["variant"] = self.variant
        elif self.rollout is None or not self.rollout.variants:
            plain["serve"] = self.serve
        return plain


@attrs.frozen(kw_only=True, weakref_slot=False)
class RolloutConfig:
    """A percentage roll-out: who is in follows from ``salt`` and the unit, and stays so while ``salt`` does."""

    percentage: float
    salt: str
    sticky_unit: str = "user_id"
    variants: Sequence[Variant | Mapping[str, JSON]] = ()

    def to_dict(self) -> dict[str, JSON]:
        """Return the plain JSON form that the API takes."""
        plain: dict[str, JSON] = {
            "percentage": self.percentage,
            "salt": self.salt,
            "sticky_unit": self.sticky_unit,
        }
        if self.variants:
            plain["variants"] = [each.to_dict() if isinstance(each, Variant) else dict(each) for each in self.variants]
        return plain


@attrs.frozen(kw_only=True, weakref_slot=False)
class Flag(Model):
    """A flag's definition; ``rules`` and ``rollout`` stay the plain JSON they came as."""

    key: str
    description: str | None = None
    type: str | None = None
    default_value: JSON = attrs.field(default=None, hash=False)
    rules: tuple[Mapping[str, JSON], ...] | None = attrs.field(default=None, hash=False)
    rollout: Mapping[str, JSON] | None = attrs.field(default=None, hash=False)
    tags: Mapping[str, str] | None = attrs.field(default=None, hash=False)
    enabled: bool | None = None
    version: int | None = None
    archived: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class FlagState(Model):
    """Whether a flag is on for the one who asks, truthy as ``enabled`` is."""

    enabled: bool

    def __bool__(self) -> bool:
        return self.enabled


@attrs.frozen(kw_only=True, weakref_slot=False)
class FlagValue(Model):
    """What a flag evaluates to; ``reason`` says why, ``variant`` which arm of a roll-out."""

    value: JSON = attrs.field(metadata=read_from("default_value"), hash=False)
    key: str | None = None
    default_value: JSON = attrs.field(default=None, hash=False)
    enabled: bool | None = None
    reason: str | None = None
    variant: str | None = None
    version: int | None = None


@attrs.frozen(kw_only=True, weakref_slot=False, eq=False)
class FlagValues(Model, Mapping[str, JSON]):
    """Every flag's value for the one who asks: a mapping of flag key to value."""

    values_by_key: Mapping[str, JSON] = attrs.field(hash=False)

    def __getitem__(self, key: str) -> JSON:
        return self.values_by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)

    def __eq__(self, other: object) -> bool:
        return Mapping.__eq__(self, other)

    def to_dict(self) -> dict[str, JSON]:
        """Return a plain dict of flag key to value."""
        return dict(self.values_by_key)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import mapping

        return mapping(self, empty="no flags", footer=_call(self.metadata))


@attrs.frozen(kw_only=True, weakref_slot=False)
class Activation(Model):
    """A fresh account with its first key, which the repr masks."""

    account_id: str
    project_id: str
    primary_api_key: str = attrs.field(repr=_repr_secret)
    trial_credit_usd: Decimal
    checkout_url: str | None


@attrs.frozen(kw_only=True, weakref_slot=False)
class Balance(Model):
    """What is left in the wallet."""

    balance_usd: Decimal = attrs.field(metadata=read_from("balance"))
    currency: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class TopupRecord(Model):
    """A top-up to be paid at ``checkout_url``."""

    topup_id: str
    amount_usd: Decimal | None = None
    state: str | None = None
    checkout_url: str | None = attrs.field(default=None, metadata=read_from("next_action_url"))
    currency: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class CapabilityInfo(Model):
    """One capability as discovery describes it; what only the detailed document has is in ``extra``."""

    id: str
    method: str | None = None
    path: str | None = None
    available: bool | None = None
    regions: tuple[str, ...] | None = None
    vendors: JSON = attrs.field(default=None, hash=False)
    billing: Mapping[str, JSON] | None = attrs.field(default=None, hash=False)
    idempotent: JSON = attrs.field(default=None, hash=False)


@attrs.frozen(kw_only=True, weakref_slot=False)
class DiscoveryIndex(Model):
    """Every capability that the service lists."""

    capabilities: tuple[CapabilityInfo, ...]
    version: str | None = None
    generated_at: datetime | None = None

    def _repr_html_(self) -> str:
        from infrai_async._display.html import table

        footer = {"version": self.version, "generated_at": self.generated_at, **_call(self.metadata)}
        return table(self.capabilities, empty="no capabilities", footer=footer)
