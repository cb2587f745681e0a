"""``client.cdn``: distributions and their caches (CONTRACT.md 2.3)."""

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
    """Content delivery."""

    @cached_property
    def distribution(self) -> Distributions:
        """Distributions: an edge in front of an origin."""
        return Distributions(self._dispatcher)

    @cached_property
    def cache(self) -> Cache:
        """What the edges hold."""
        return Cache(self._dispatcher)


class Distributions(Resource):
    """``client.cdn.distribution``."""

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
        """Put an edge in front of an origin (``cdn.distribution.create``). It is billed.

        Args:
            origin: the host or URL that the edge fetches from.
            domain: the public hostname that will point at the edge.
            enabled: whether it serves.
            cache_ttl_seconds: how long to keep what the origin says nothing about, in seconds or as a ``timedelta``.
            allowed_methods: the HTTP methods that the edge forwards.
            https_only: whether plain http is refused.
            tags: labels to purge by.
            vendor: pin one provider instead of automatic routing.
            idempotency_key: a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            InfraiError: whatever else the call may raise. This write is sent again only when that is certain not to
                create a second distribution (D19).
        """
        arguments = _settings(origin, domain, enabled, cache_ttl_seconds, allowed_methods, https_only, tags, vendor)
        return await self._dispatcher.call(DISTRIBUTION_CREATE, arguments, idempotency_key)

    async def get(self, distribution_id: str) -> Distribution:
        """Look a distribution up (``cdn.distribution.get``).

        Args:
            distribution_id: its id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
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
        """Change a distribution (``cdn.distribution.update``); what is not given stays as it is.

        Args:
            distribution_id: its id.
            origin: the host or URL that the edge fetches from.
            domain: the public hostname that will point at the edge.
            enabled: whether it serves.
            cache_ttl_seconds: how long to keep what the origin says nothing about, in seconds or as a ``timedelta``.
            allowed_methods: the HTTP methods that the edge forwards.
            https_only: whether plain http is refused.
            tags: labels to purge by.
            vendor: pin one provider.
            idempotency_key: a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        arguments = _settings(origin, domain, enabled, cache_ttl_seconds, allowed_methods, https_only, tags, vendor)
        arguments["distribution_id"] = distribution_id
        return await self._dispatcher.call(DISTRIBUTION_UPDATE, arguments, idempotency_key)

    async def delete(self, distribution_id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a distribution (``cdn.distribution.delete``).

        Args:
            distribution_id: its id.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
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
            cursor: where to resume, from ``next_cursor`` of an earlier listing.
            limit: items a page; the service's choice by default.
            max_items: items in all.
            prefetch: so many pages are fetched ahead while the one in hand is read; none by default.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        return self._dispatcher.cursor(
            DISTRIBUTION_LIST, {"limit": limit}, cursor=cursor, max_items=max_items, prefetch=prefetch
        )


class Cache(Resource):
    """``client.cdn.cache``."""

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
        """Drop from the edges what a distribution has cached (``cdn.cache.purge``). It is billed.

        Args:
            distribution_id: the distribution.
            paths: URLs or path prefixes to drop.
            tags: labels whose objects to drop.
            purge_everything: whether to drop all of it. With no selector at all, nothing is dropped (D13).
            vendor: pin one provider.
            idempotency_key: a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            NotFoundError: there is no such distribution.
            InfraiError: whatever else the call may raise.
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
        """Read delivery figures (``cdn.cache.stats``).

        Args:
            distribution_id: the distribution; all of them by default.
            from_: the start of the range, an aware ``datetime`` or what the API takes.
            to: its end.

        Raises:
            InvalidArgument: an argument is wrong, for example a time without a time zone.
            InfraiError: whatever else the call may raise.
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
