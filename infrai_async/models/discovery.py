"""Discovery: the service's description of its capabilities."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from infrai_async.models.base import JSON, Model, call_footer


@attrs.frozen(kw_only=True, weakref_slot=False)
class CapabilityInfo(Model):
    """Description of one capability; fields that only the detailed document has are in ``extra``."""

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
    """Index of all capabilities that the service offers."""

    capabilities: tuple[CapabilityInfo, ...]
    version: str | None = None
    generated_at: datetime | None = None

    def _repr_html_(self) -> str:
        from infrai_async._display.html import table

        footer = {"version": self.version, "generated_at": self.generated_at, **call_footer(self.metadata)}
        return table(self.capabilities, empty="no capabilities", footer=footer)
