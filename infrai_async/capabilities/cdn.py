"""CDN capabilities: distributions and their caches (contract 2.3)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import PAGING, body, define, path, query
from infrai_async.models import Ack, CacheStats, Distribution, PurgeResult

_DISTRIBUTION: Final = (
    body("domain"),
    body("enabled", "boolean"),
    body("cache_ttl_seconds", "number"),
    body("allowed_methods", "strings"),
    body("https_only", "boolean"),
    body("tags", "strings"),
    body("vendor"),
)

DISTRIBUTION_CREATE: Final = define(
    "cdn.distribution.create",
    "POST",
    "/cdn/distribution/create",
    body("origin", required=True),
    *_DISTRIBUTION,
    returns=Distribution,
)
DISTRIBUTION_GET: Final = define(
    "cdn.distribution.get",
    "GET",
    "/cdn/distribution/get/{distribution_id}",
    path("distribution_id"),
    returns=Distribution,
)
DISTRIBUTION_LIST: Final = define(
    "cdn.distribution.list", "GET", "/cdn/distribution/list", *PAGING, returns=Distribution, paged=True
)
DISTRIBUTION_UPDATE: Final = define(
    "cdn.distribution.update",
    "PATCH",
    "/cdn/distribution/update/{distribution_id}",
    path("distribution_id"),
    body("origin"),
    *_DISTRIBUTION,
    returns=Distribution,
)
DISTRIBUTION_DELETE: Final = define(
    "cdn.distribution.delete",
    "DELETE",
    "/cdn/distribution/delete/{distribution_id}",
    path("distribution_id"),
    returns=Ack,
)
CACHE_PURGE: Final = define(
    "cdn.cache.purge",
    "POST",
    "/cdn/cache/purge",
    body("distribution_id", required=True),
    body("paths", "strings"),
    body("tags", "strings"),
    body("purge_everything", "boolean"),
    body("vendor"),
    returns=PurgeResult,
    deduplicates=True,
)
CACHE_STATS: Final = define(
    "cdn.cache.stats",
    "GET",
    "/cdn/cache/stats",
    query("distribution_id"),
    query("from_", wire="from"),
    query("to"),
    returns=CacheStats,
)
