"""Feature flags: definitions and evaluation results."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import attrs

from infrai_async.models.base import JSON, Model, Shown, call_footer, read_from


@attrs.frozen(kw_only=True, weakref_slot=False)
class Variant(Shown):
    """One variant of a rollout; ``weight`` is relative to the sum of all weights."""

    key: str
    value: JSON
    weight: float = 1

    def to_dict(self) -> dict[str, JSON]:
        """Return the plain JSON form that the API accepts."""
        return {"key": self.key, "value": self.value, "weight": self.weight}


@attrs.frozen(kw_only=True, weakref_slot=False)
class RolloutConfig(Shown):
    """A percentage rollout; whether a user is included depends on ``salt`` and the user's id only.

    Attributes:
        percentage: share of the users to include, 0 to 100.
        salt: string that seeds the assignment of users; keep it to keep the assignment.
        sticky_unit: id by which users are assigned: ``user_id``, ``session_id`` or ``device_id``.
        variants: variants to choose from, with their weights.
    """

    percentage: float
    salt: str
    sticky_unit: str = "user_id"
    variants: Sequence[Variant | Mapping[str, JSON]] = ()

    def to_dict(self) -> dict[str, JSON]:
        """Return the plain JSON form that the API accepts."""
        plain: dict[str, JSON] = {
            "percentage": self.percentage,
            "salt": self.salt,
            "sticky_unit": self.sticky_unit,
        }
        if self.variants:
            plain["variants"] = [each.to_dict() if isinstance(each, Variant) else dict(each) for each in self.variants]
        return plain


@attrs.frozen(kw_only=True, weakref_slot=False)
class FlagRule(Shown):
    """A targeting rule: if ``attribute operator value`` holds, the flag has the value ``serve``. The first match wins.

    Combined conditions (``all``, ``any``, ``not``) are written as plain dicts, which are accepted wherever a rule is.

    Attributes:
        attribute: ``user_id``, or a name in the context, such as ``plan`` or ``app.version``.
        operator: operator such as ``eq``, ``in`` or ``semver_gte``; the prefix ``not_`` negates it.
        value: value to compare the attribute with.
        serve: value of the flag when the rule matches.
        values: several values to compare with instead of ``value``; one match is enough.
        negate: whether to negate the condition.
        ignore_case: whether to compare strings without regard to case.
        variant: name of a variant of the flag's rollout to serve, instead of ``serve``.
        rollout: rollout that limits the rule to a percentage of those it matches, with variants if it has any; the
            others are evaluated against the next rule.
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
        """Return the plain JSON form that the API accepts."""
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
class Flag(Model):
    """Definition of a flag; ``rules`` and ``rollout`` are plain JSON, as the service sent them."""

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
    """Whether a flag is on for a user; its truth value is that of ``enabled``."""

    enabled: bool

    def __bool__(self) -> bool:
        return self.enabled


@attrs.frozen(kw_only=True, weakref_slot=False)
class FlagValue(Model):
    """Value of a flag for a user, the ``reason`` for it and the ``variant`` of the rollout, if any."""

    value: JSON = attrs.field(metadata=read_from("default_value"), hash=False)
    key: str | None = None
    default_value: JSON = attrs.field(default=None, hash=False)
    enabled: bool | None = None
    reason: str | None = None
    variant: str | None = None
    version: int | None = None


@attrs.frozen(kw_only=True, weakref_slot=False, eq=False)
class FlagValues(Model, Mapping[str, JSON]):
    """Values of all flags for a user: a mapping of flag key to value."""

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

        return mapping(self, empty="no flags", footer=call_footer(self.metadata))
