"""``client.storage`` of the blocking client.

Written by ``python -m tools.blocking`` from ``infrai_async/resources/_storage.py``: change that instead.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property, partial
from typing import Literal

from infrai_async.models import Ack, Bucket, PresignedUrl
from infrai_async.resources import _storage
from infrai_async.sync._facade import Cursor, Facade


class Storage(Facade[_storage.Storage]):
    """Object storage: buckets and the objects in them."""

    @cached_property
    def bucket(self) -> Buckets:
        """Buckets, which hold objects."""
        return Buckets(self._async.bucket, self._runner)

    @cached_property
    def object(self) -> Objects:
        """Objects; their content is uploaded and downloaded through presigned URLs."""
        return Objects(self._async.object, self._runner)

    def ensure_bucket(
        self,
        bucket: str,
        *,
        vendor: str | None = None,
        region: str | None = None,
        acl: Literal["private", "public"] | None = None,
    ) -> Bucket:
        """Return a bucket, creating it if there is none (``storage.bucket.create`` and ``storage.bucket.get``).

        Args:
            bucket: name of the bucket.
            vendor: provider to use; any when omitted.
            region: region of the bucket; any when omitted.
            acl: who may read the objects; anything when omitted.

        Returns:
            The ``Bucket``, which is as was asked.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: the bucket exists and differs from what was asked; the message says how.
            InfraiError: a call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.ensure_bucket, bucket, vendor=vendor, region=region, acl=acl))


class Buckets(Facade[_storage.Buckets]):
    """``client.storage.bucket``."""

    def create(
        self,
        *,
        bucket: str,
        vendor: str | None = None,
        region: str | None = None,
        acl: Literal["private", "public"] | None = None,
        idempotency_key: str | None = None,
    ) -> Bucket:
        """Create a bucket (``storage.bucket.create``, contract D20). This call is billed.

        Args:
            bucket: name of the bucket.
            vendor: provider to use; the service chooses when omitted.
            region: region of the bucket.
            acl: who may read the objects.
            idempotency_key: a repeated call with the same key returns the same bucket for 24 hours; generated when
                omitted.

        Returns:
            The new ``Bucket`` with its name, ``vendor`` and ``region``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: a bucket with this name exists already (``STORAGE_BUCKET_EXISTS``).
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d20
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.create,
                bucket=bucket,
                vendor=vendor,
                region=region,
                acl=acl,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, bucket: str) -> Bucket:
        """Get a bucket (``storage.bucket.get``).

        Args:
            bucket: name of the bucket.

        Returns:
            The ``Bucket``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, bucket))

    def delete(self, bucket: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete an empty bucket (``storage.bucket.delete``). This cannot be undone.

        Args:
            bucket: name of the bucket.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the bucket was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            ConflictError: the bucket holds objects.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.delete, bucket, idempotency_key=idempotency_key))

    def list(self, *, max_items: int | None = None) -> Cursor[Bucket]:
        """List the account's buckets (``storage.bucket.list``). Nothing is sent until the cursor is read.

        The service returns all buckets as a single page.

        Args:
            max_items: maximum number of items; no limit when omitted.

        Returns:
            A ``Cursor`` of ``Bucket``; its page is fetched, and its errors raised, as it is read.

        Raises:
            InvalidArgument: ``max_items`` is not an integer, or is negative.
        """
        __tracebackhide__ = True
        return Cursor(self._async.list(max_items=max_items), self._runner)


class Objects(Facade[_storage.Objects]):
    """``client.storage.object``."""

    def presign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT"] = "PUT",
        expires_seconds: float | timedelta | None = None,
        content_type: str | None = None,
        max_bytes: int | None = None,
        response_disposition: str | None = None,
        idempotency_key: str | None = None,
    ) -> PresignedUrl:
        """Create a URL that uploads or downloads one object without the API key (``storage.object.presign``).

        The running service's route alone carries ``content_type``, ``max_bytes`` and ``response_disposition``. A call
        with one of them takes that route; if the service does not have it, the call fails (contract D2).

        Args:
            bucket: name of the bucket.
            key: key of the object; any text, slashes included.
            method: ``"PUT"`` to upload, ``"GET"`` to download.
            expires_seconds: lifetime of the URL in seconds, or as a ``timedelta``; the service decides when omitted.
            content_type: content type that an upload must have.
            max_bytes: maximum size of an upload in bytes.
            response_disposition: ``Content-Disposition`` header of a download.
            idempotency_key: a repeated call with the same key is not charged again for 24 hours; generated when
                omitted.

        Returns:
            A ``PresignedUrl`` with ``url``, ``method``, ``expires_at`` and the ``headers`` that the request must send.

        Raises:
            InvalidArgument: an argument is invalid and nothing was sent, or the service does not have the route that
                carries it (``outcome`` and ``attempts`` tell them apart).
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d2
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.presign,
                bucket,
                key,
                method=method,
                expires_seconds=expires_seconds,
                content_type=content_type,
                max_bytes=max_bytes,
                response_disposition=response_disposition,
                idempotency_key=idempotency_key,
            )
        )

    def delete(self, bucket: str, key: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete an object (``storage.object.delete``). This cannot be undone.

        Args:
            bucket: name of the bucket.
            key: key of the object.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the object was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket or the object does not exist.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.delete, bucket, key, idempotency_key=idempotency_key))
