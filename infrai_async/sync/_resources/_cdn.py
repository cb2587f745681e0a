"""``client.cdn`` of the blocking client.

Written by ``python -m tools.blocking`` from ``infrai_async/resources/_cdn.py``: change that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial

from infrai_async.models import Ack, CacheStats, Distribution, PurgeResult
from infrai_async.resources import _cdn
from infrai_async.sync._facade import Cursor, Facade


class Cdn(Facade[_cdn.Cdn]):
    """Content delivery."""

    @cached_property
    def distribution(self) -> Distributions:
        """Distributions, each an edge in front of an origin."""
        return Distributions(self._async.distribution, self._runner)

    @cached_property
    def cache(self) -> Cache:
        """The caches of the distributions."""
        return Cache(self._async.cache, self._runner)


class Distributions(Facade[_cdn.Distributions]):
    """``client.cdn.distribution``."""

    def create(
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
        """Create a distribution in front of an origin (``cdn.distribution.create``). This call is billed.

        After an ambiguous failure it is not sent again, because that could create a second distribution (contract
        D19).

        Args:
            origin: host or URL that the edge fetches from.
            domain: public hostname to serve the distribution under.
            enabled: whether the distribution serves requests.
            cache_ttl_seconds: lifetime in seconds, or as a ``timedelta``, of responses for which the origin sets none.
            allowed_methods: HTTP methods that the edge forwards.
            https_only: whether to refuse plain http.
            tags: labels to purge by.
            vendor: provider to use; the service chooses when omitted.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            The new ``Distribution`` with its ``distribution_id``, ``status`` and, where the service gives them,
            ``edge_url`` and ``edge_hostname``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            InfraiError: the call failed for another reason; ``error.outcome`` is ``"maybe_applied"`` if the
                distribution may exist.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.create,
                origin=origin,
                domain=domain,
                enabled=enabled,
                cache_ttl_seconds=cache_ttl_seconds,
                allowed_methods=allowed_methods,
                https_only=https_only,
                tags=tags,
                vendor=vendor,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, distribution_id: str) -> Distribution:
        """Get a distribution by id (``cdn.distribution.get``).

        Args:
            distribution_id: id of the distribution.

        Returns:
            The requested ``Distribution`` with its ``distribution_id``, ``status`` and, where the service gives them,
            ``edge_url`` and ``edge_hostname``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, distribution_id))

    def update(
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
        """Update a distribution (``cdn.distribution.update``). Omitted settings keep their values.

        Args:
            distribution_id: id of the distribution.
            origin: host or URL that the edge fetches from.
            domain: public hostname to serve the distribution under.
            enabled: whether the distribution serves requests.
            cache_ttl_seconds: lifetime in seconds, or as a ``timedelta``, of responses for which the origin sets none.
            allowed_methods: HTTP methods that the edge forwards.
            https_only: whether to refuse plain http.
            tags: labels to purge by.
            vendor: provider to use; unchanged when omitted.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            The updated ``Distribution`` with its ``distribution_id``, ``status`` and, where the service gives them,
            ``edge_url`` and ``edge_hostname``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.update,
                distribution_id,
                origin=origin,
                domain=domain,
                enabled=enabled,
                cache_ttl_seconds=cache_ttl_seconds,
                allowed_methods=allowed_methods,
                https_only=https_only,
                tags=tags,
                vendor=vendor,
                idempotency_key=idempotency_key,
            )
        )

    def delete(self, distribution_id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a distribution (``cdn.distribution.delete``). This cannot be undone.

        Args:
            distribution_id: id of the distribution.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the distribution was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.delete, distribution_id, idempotency_key=idempotency_key))

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
            cursor: position to resume from, the ``next_cursor`` of an earlier listing.
            limit: items per page; the service decides when omitted.
            max_items: maximum number of items over all pages; no limit when omitted.
            prefetch: number of pages to fetch ahead while the current page is read, 100 at most.

        Returns:
            A ``Cursor`` of ``Distribution``; its pages are fetched, and their errors raised, as it is read.

        Raises:
            InvalidArgument: an argument is invalid.
        """
        __tracebackhide__ = True
        return Cursor(
            self._async.list(cursor=cursor, limit=limit, max_items=max_items, prefetch=prefetch), self._runner
        )


class Cache(Facade[_cdn.Cache]):
    """``client.cdn.cache``."""

    def purge(
        self,
        *,
        distribution_id: str,
        paths: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        purge_everything: bool | None = None,
        vendor: str | None = None,
        idempotency_key: str | None = None,
    ) -> PurgeResult:
        """Purge cached objects of a distribution from the edges (``cdn.cache.purge``). This call is billed.

        Without any of ``paths``, ``tags`` and ``purge_everything``, nothing is purged (contract D13).

        Args:
            distribution_id: id of the distribution.
            paths: URLs or path prefixes to purge.
            tags: labels whose objects to purge.
            purge_everything: whether to purge the whole cache.
            vendor: provider to use; the service chooses when omitted.
            idempotency_key: a repeated call with the same key returns the same result for 24 hours; generated when
                omitted.

        Returns:
            A ``PurgeResult``, true when the purge was accepted, with its ``purge_id``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no distribution has this id.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d13
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.purge,
                distribution_id=distribution_id,
                paths=paths,
                tags=tags,
                purge_everything=purge_everything,
                vendor=vendor,
                idempotency_key=idempotency_key,
            )
        )

    def stats(
        self,
        *,
        distribution_id: str | None = None,
        from_: datetime | str | None = None,
        to: datetime | str | None = None,
    ) -> CacheStats:
        """Get delivery statistics (``cdn.cache.stats``).

        Args:
            distribution_id: id of the distribution; all distributions when omitted.
            from_: start of the time range, an aware ``datetime`` or a string passed on as it is.
            to: end of the time range, likewise.

        Returns:
            A ``CacheStats`` with ``requests``, ``bytes_served`` in bytes and ``hit_ratio`` from 0 to 1.

        Raises:
            InvalidArgument: an argument is invalid, for example a ``datetime`` without a time zone; nothing was sent.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.stats, distribution_id=distribution_id, from_=from_, to=to))
