"""The CDN: distributions, purges and cache statistics."""

from datetime import datetime

import attrs

from infrai_async.models.base import Ack, Model, read_from


@attrs.frozen(kw_only=True, weakref_slot=False)
class Distribution(Model):
    """A CDN distribution in front of an origin; ``cache_ttl_seconds`` is in seconds."""

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
    """An accepted cache purge; its truth value is that of ``ok``."""

    purge_id: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class CacheStats(Model):
    """Delivery statistics of a time range; ``hit_ratio`` is between 0 and 1."""

    requests: int
    bytes_served: int
    hit_ratio: float
    hits: int | None = None
    misses: int | None = None
