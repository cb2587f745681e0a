"""``client.cdn``: distributions and their caches (contract 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property

from infrai_async._dispatch import Resource
from infrai_async._listing.cursor import Cursor
from infrai_async.capabilities import (
    CACHE_PURGE,
    CACHE_STATS,
    DISTRIBUTION_CREATE,
    DISTRIBUTION_DELETE,
    DISTRIBUTION_GET,
    DISTRIBUTION_LIST,
    DISTRIBUTION_UPDATE,
)
from infrai_async.models import Ack, CacheStats, Distribution, PurgeResult


class Cdn(Resource):
    """Content delivery (``client.cdn``)."""

    @cached_property
    def distribution(self) -> Distributions:
        """Distributions, each a caching edge in front of an origin server."""
        return Distributions(self._dispatcher)

    @cached_property
    def cache(self) -> Cache:
        """The edge caches of the distributions."""
        return Cache(self._dispatcher)


class Distributions(Resource):
    """Distributions (``client.cdn.distribution``)."""

    async def create(
        self,
        *,
        origin: str,
        domain: str | None = None,
        enabled: bool | None = None,
        cache_ttl_seconds: float | timedelta | None = None,
        allowed_methods: Sequence[str] | None = None,
        https_only: bool | None = None,
        tags: Sequence[str] | None = None,
        vendor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Distribution:
        """Create a distribution (``cdn.distribution.create``). This call is billed.

        After an ambiguous failure the call is not retried, because the service does not deduplicate it (contract D19).

        Args:
            origin: the host or URL that the edge fetches from.
            domain: the public hostname that will point at the edge.
            enabled: whether the distribution serves requests.
            cache_ttl_seconds: how long to cache responses that have no caching headers, in seconds or as a
                ``timedelta``.
            allowed_methods: the HTTP methods that the edge forwards.
            https_only: whether the edge refuses plain HTTP.
            tags: labels that ``cdn.cache.purge`` can select by.
            vendor: the provider to use. The service chooses by default.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The new ``Distribution``, with its ``distribution_id``, ``status``, ``edge_url`` and settings.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            InfraiError: the call failed for another reason.
        """
        arguments = _settings(origin, domain, enabled, cache_ttl_seconds, allowed_methods, https_only, tags, vendor)
        return await self._dispatcher.call(DISTRIBUTION_CREATE, arguments, idempotency_key)

    async def get(self, distribution_id: str) -> Distribution:
        """Get a distribution (``cdn.distribution.get``).

        Args:
            distribution_id: the distribution's id.

        Returns:
            The ``Distribution``, with its ``status``, ``edge_url`` and settings.

        Raises:
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(DISTRIBUTION_GET, {"distribution_id": distribution_id})

    async def update(
        self,
        distribution_id: str,
        *,
        origin: str | None = None,
        domain: str | None = None,
        enabled: bool | None = None,
        cache_ttl_seconds: float | timedelta | None = None,
        allowed_methods: Sequence[str] | None = None,
        https_only: bool | None = None,
        tags: Sequence[str] | None = None,
        vendor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Distribution:
        """Change a distribution (``cdn.distribution.update``). Settings that are not given stay as they are.

        After an ambiguous failure the call is not retried, because the service does not deduplicate it (contract D19).

        Args:
            distribution_id: the distribution's id.
            origin: the host or URL that the edge fetches from.
            domain: the public hostname that will point at the edge.
            enabled: whether the distribution serves requests.
            cache_ttl_seconds: how long to cache responses that have no caching headers, in seconds or as a
                ``timedelta``.
            allowed_methods: the HTTP methods that the edge forwards.
            https_only: whether the edge refuses plain HTTP.
            tags: labels that ``cdn.cache.purge`` can select by.
            vendor: the provider to use.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The ``Distribution`` with its new settings.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        arguments = _settings(origin, domain, enabled, cache_ttl_seconds, allowed_methods, https_only, tags, vendor)
        arguments["distribution_id"] = distribution_id
        return await self._dispatcher.call(DISTRIBUTION_UPDATE, arguments, idempotency_key)

    async def delete(self, distribution_id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a distribution (``cdn.distribution.delete``).

        A 404 after an earlier attempt that may have succeeded counts as success (contract D17).

        Args:
            distribution_id: the distribution's id.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            An ``Ack``, truthy if the distribution was deleted.

        Raises:
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(DISTRIBUTION_DELETE, {"distribution_id": distribution_id}, idempotency_key)

    def list(
        self,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[Distribution]:
        """List distributions (``cdn.distribution.list``). Nothing is sent until the cursor is read.

        Args:
            cursor: where to resume: the ``next_cursor`` of an earlier listing. The first page by default.
            limit: the maximum number of items per page. The service chooses by default.
            max_items: the maximum number of items over all pages. No limit by default.
            prefetch: the number of pages to fetch ahead of the one that is being read.

        Returns:
            A ``Cursor`` of ``Distribution`` models.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
        """
        return self._dispatcher.cursor(
            DISTRIBUTION_LIST, {"limit": limit}, cursor=cursor, max_items=max_items, prefetch=prefetch
        )


class Cache(Resource):
    """The edge caches (``client.cdn.cache``)."""

    async def purge(
        self,
        *,
        distribution_id: str,
        paths: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        purge_everything: bool | None = None,
        vendor: str | None = None,
        idempotency_key: str | None = None,
    ) -> PurgeResult:
        """Purge cached responses of a distribution (``cdn.cache.purge``). This call is billed.

        Without ``paths``, ``tags`` or ``purge_everything`` nothing is purged (contract D13).

        Args:
            distribution_id: the distribution's id.
            paths: the URLs or path prefixes to purge.
            tags: the labels to purge.
            purge_everything: whether to purge the whole cache of the distribution.
            vendor: the provider to use.
            idempotency_key: the key that makes repeating this call safe. A fresh key by default.

        Returns:
            A ``PurgeResult``, truthy if the service accepted the purge, with its ``purge_id``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            NotFoundError: the distribution does not exist.
            InfraiError: the call failed for another reason.
        """
        arguments: dict[str, object] = {
            "distribution_id": distribution_id,
            "paths": paths,
            "tags": tags,
            "purge_everything": purge_everything,
            "vendor": vendor,
        }
        return await self._dispatcher.call(CACHE_PURGE, arguments, idempotency_key)

    async def stats(
        self,
        *,
        distribution_id: str | None = None,
        from_: datetime | str | None = None,
        to: datetime | str | None = None,
    ) -> CacheStats:
        """Get cache statistics (``cdn.cache.stats``).

        Args:
            distribution_id: the distribution's id. All distributions by default.
            from_: the start of the time range, an aware ``datetime`` or a string that the API accepts.
            to: the end of the time range, likewise.

        Returns:
            The ``CacheStats`` of the range: ``requests``, ``bytes_served``, ``hit_ratio``, ``hits`` and ``misses``.

        Raises:
            InvalidArgument: an argument is wrong, for example a time without a time zone.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(CACHE_STATS, {"distribution_id": distribution_id, "from_": from_, "to": to})


def _settings(
    origin: str | None,
    domain: str | None,
    enabled: bool | None,
    cache_ttl_seconds: float | timedelta | None,
    allowed_methods: Sequence[str] | None,
    https_only: bool | None,
    tags: Sequence[str] | None,
    vendor: str | None,
) -> dict[str, object]:
    return {
        "origin": origin,
        "domain": domain,
        "enabled": enabled,
        "cache_ttl_seconds": cache_ttl_seconds,
        "allowed_methods": allowed_methods,
        "https_only": https_only,
        "tags": tags,
        "vendor": vendor,
    }
